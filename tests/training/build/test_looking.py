from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from cascade.calibration.certify.claims import ORIGINAL, Agreement, Claim
from cascade.exceptions import CascadeError, DataError, OptionError
from cascade.training.build import BuildOptions, build, building
from cascade.training.build.finishing import mixed
from cascade.training.build.looking import look, read
from cascade.training.build.shares import Shares, _encoded
from tests.training.build.conftest import OPTIONS, Case, items, write


def spoiled(case: Case, change: Callable[[dict[str, Any]], object]) -> None:
    file = case.model / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def few(case: Case) -> None:
    write(case.file, case.items[:90])


def headless(case: Case) -> None:
    spoiled(case, lambda config: config.update(architectures=["BertModel"]))


def with_exits(case: Case) -> None:
    spoiled(case, lambda config: config.update(cascade_exits={"layers": [1]}))


def unknown(case: Case) -> None:
    spoiled(case, lambda config: config.update(model_type="vit"))


def without_mask(case: Case) -> None:
    spoiled(case, lambda config: config.update(model_type="fnet"))


def numbers(case: Case) -> None:
    spoiled(case, lambda config: config.update(problem_type="regression"))


def without_tokenizer(case: Case) -> None:
    (case.model / "tokenizer.json").unlink()


def without_weights(case: Case) -> None:
    (case.model / "model.safetensors").unlink()


def cut(case: Case) -> None:
    with (case.model / "model.safetensors").open("rb+") as file:
        file.truncate(3000)


def without_head(case: Case) -> None:
    file = case.model / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if not name.startswith("classifier.")}
    save_file(kept, file, metadata={"format": "pt"})


def with_another_head(case: Case) -> None:
    spoiled(case, lambda config: config.update(id2label={0: "one", 1: "two"}, label2id={"one": 0, "two": 1}))


def in_a_file(case: Case) -> None:
    (case.output.parent / f"{case.output.name}.build").touch()


def without_texts(case: Case) -> None:
    case.file.unlink()


def without_model(case: Case) -> None:
    case.model.rename(case.model.with_name("elsewhere"))


def file_as_model(case: Case) -> None:
    without_model(case)
    case.model.touch()


def taken(case: Case) -> None:
    case.output.mkdir()
    (case.output / "mine").touch()


REFUSALS = [
    (few, "there must be at least 94 distinct texts, got 90: a bound of 0.2 at 95 % takes 14 that certify"),
    (few, "ask for --max-disagreement 0.259, which 90 can show"),
    (headless, "must be fine-tuned for classification or tagging"),
    (with_exits, "has exits already; use cascade-export"),
    (unknown, "model_type"),
    (without_mask, "must read an attention_mask"),
    (numbers, "a regression must have one output, got 4"),
    (without_tokenizer, "must have a tokenizer.json or a vocabulary"),
    (without_weights, "must hold a model that transformers reads, but: "),
    (cut, "must hold a model that transformers reads, but: "),
    (
        without_head,
        "must hold all weights of a BertForSequenceClassification, 2 are missing, such as classifier.bias",
    ),
    (with_another_head, "must hold a model that transformers reads, but: "),
    (in_a_file, "the output must be where folders can be, got "),
    (without_texts, "there is no file"),
    (without_model, "there is no folder"),
    (file_as_model, "model' is a file; give its folder"),
    (taken, "the output must be a new or empty folder"),
]


@pytest.mark.parametrize(("spoil", "said"), REFUSALS, ids=[f"{spoil.__name__}: {said[:9]}" for spoil, said in REFUSALS])
def test_what_cannot_be_built_is_refused_before_anything_is_written(
    spoil: Callable[[Case], None], said: str, case: Callable[..., Case]
) -> None:
    own = case()
    spoil(own)
    before = sorted(own.output.parent.rglob("*"))
    with pytest.raises(CascadeError) as refused:
        own.build()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(own.output.parent.rglob("*")) == before


@pytest.mark.parametrize("missing", ["model", "texts.txt"])
def test_a_mistyped_path_is_said_before_torch_is_imported(missing: str, tmp_path: Path) -> None:
    paths = {name: str(tmp_path / name) for name in ("model", "texts.txt", "bundle")}
    Path(paths["model"]).mkdir()
    Path(paths["texts.txt"]).touch()
    code = (
        "import sys\nfrom cascade.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "finally:\n    print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    given = ["build", f"{paths['model']}{'x' * (missing == 'model')}", "--texts"]
    given += [f"{paths['texts.txt']}{'x' * (missing == 'texts.txt')}", "--output", paths["bundle"]]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert re.fullmatch(rf"Error: .*there is no (folder|file) '.*{missing}x'; check the path\n", done.stderr)


def test_what_torch_cannot_trace_is_refused_before_it_teaches(
    case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = case("other texts")

    def refuse(model: Any, task: Any, *, number: int) -> None:
        raise OptionError(f"tier {number}'s model_type must be one that torch can trace, got {model.config.model_type}")

    monkeypatch.setattr(building, "export_tier1", refuse)
    with pytest.raises(OptionError, match="one that torch can trace, got ernie"):
        own.build()
    assert not own.work.exists()


def test_a_bound_on_accuracy_needs_known_labels(case: Callable[..., Case], tmp_path: Path) -> None:
    own, options = case(), BuildOptions(max_drop=0.1)
    with pytest.raises(
        DataError, match=r"a label for every text, but .*texts.txt has some without; label them, or ask"
    ):
        own.build(options)
    file = write(tmp_path / "labelled.txt", own.items, ["right", *["nobody knows"] * (len(own.items) - 1)])
    with pytest.raises(DataError, match=r"example 2 has the label 'nobody knows', which the model does not have"):
        build(own.model, [file], own.output, options=options)
    file = write(tmp_path / "labelled.txt", own.items, ["right"] * len(own.items))  # the others are rare
    assert set(read(look(own.model), [file], options).truth.tolist()) == {0}


def test_an_accuracy_of_numbers_is_refused(case: Callable[..., Case], tmp_path: Path) -> None:
    own = case("a number")
    file = write(tmp_path / "labelled.txt", own.items, [0.5] * len(own.items))
    with pytest.raises(OptionError, match="max_drop must be of labels, got a regression; ask for max_disagreement"):
        build(own.model, [file], own.output, options=BuildOptions(max_drop=0.1))


def test_options_that_cannot_be() -> None:
    with pytest.raises(OptionError, match="exclude each other"):
        BuildOptions(max_disagreement=0.1, max_drop=0.1)
    with pytest.raises(OptionError, match="minutes must be above 0"):
        BuildOptions(minutes=0)
    with pytest.raises(OptionError, match=r"max_disagreement must be in|max_disagreement must be"):
        BuildOptions(max_disagreement=1.5)


def test_no_text_is_in_two_shares_and_order_does_not_matter() -> None:
    claim, some = Claim(Agreement(0.1), than=ORIGINAL), items("texts")
    shares = Shares.of(some, claim, seed=1)
    parts = (shares.learn, shares.choose, shares.certify)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(some)))
    turned = Shares.of(some[::-1], claim, seed=1)
    assert {some[n] for n in shares.certify.tolist()} == {some[::-1][n] for n in turned.certify.tolist()}
    assert {some[n] for n in Shares.of(some, claim, seed=2).certify.tolist()} != {
        some[n] for n in shares.certify.tolist()
    }


def test_defaults_are_two_in_a_hundred_against_the_original() -> None:
    assert BuildOptions().claim(tags=False).describe() == (
        "the answer differs from that of the original model for at most 2 % of texts, with a confidence of 95 %"
    )
    assert OPTIONS.claim(tags=True).unit.value == "sentence"


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["a b c", "d e"], ["a b e", "d b c"]),
        ([("a", "b"), ("c", "d")], [("a", "d"), ("c", "b")]),
        ([["a", "b", "c"], ["d"]], [["a", "b", "d"], ["d", "b", "c"]]),
    ],
)
def test_mixtures_are_half_of_each_of_two(items: list[Any], expected: list[Any]) -> None:
    assert mixed(items) == expected


@pytest.mark.parametrize("kind", ["texts", "tags"])
def test_special_tokens_that_users_type_can_be_text(case: Callable[..., Case], kind: str) -> None:
    own = case(kind)
    before, after = look(own.model), look(own.model, encode_special_tokens=True)
    assert before.digest != after.digest  # no step of a build is taken for one of the other
    item: Any = ["good", "[SEP]"] if kind == "tags" else "good [SEP] bad"
    ids = [_encoded(one, [item])[0].units.rows.ids.tolist() for one in (before, after)]
    sep = ids[0][-1]
    assert [one.count(sep) for one in ids] == [2, 1]
    file = own.model / "tokenizer_config.json"
    told = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**told, "split_special_tokens": True}))  # then the model reads them so itself
    assert look(own.model).encode_special_tokens
