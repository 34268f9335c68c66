"""`cascade-train exits` from end to end on tiny models: it learns, refuses, and leaves plain folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cascade.training import loop
from cascade.training.models.config import MULTI_LABEL
from cascade_export import Calibration, ExportOptions, export_bundle
from tests.models import tiny
from tests.training.commands import CASES, SPANS, Case, exits, fine_tuned, refused, report_of, train, write

TEXTS, TAGS = CASES


def test_exits_learn_and_leave_a_report(case: Case, rows: Path, backbone: Path, tmp_path: Path) -> None:
    done = exits(case, backbone, rows, tmp_path / "out", "--vocabulary", 140, "--epochs", 8, ok=True)
    report = report_of(tmp_path / "out")
    assert report["scores"]["layer_3"] >= 0.9
    assert (report["rows"], report["units"]) == (len(case.rows), case.units)
    assert {"layer_1", "layer_2", "layer_3", "mean_of_exits"} == report["scores"].keys()
    assert "epoch 1.00  layer 1" in done.output
    assert not (tmp_path / "out" / "part").exists()
    model = case.model.from_pretrained(tmp_path / "out")
    assert model.labels == case.labels
    assert model.backbone.get_input_embeddings().weight.shape == (model.config.vocab_size, 16) == (140, 16)
    assert len(json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]["vocab"]) == 140


def test_spans_are_chosen_by_entity_f1(backbone: Path, tmp_path: Path) -> None:
    spans = write(tmp_path / "spans.jsonl", SPANS)
    exits(TAGS, backbone, spans, tmp_path / "out", "--epochs", 12, "--dropout", 0, ok=True)
    assert report_of(tmp_path / "out")["scores"]["entity_f1"] >= 0.95
    assert TAGS.model.from_pretrained(tmp_path / "out").labels == ("O", "B-thing", "I-thing")


@pytest.mark.parametrize(("case", "objective"), [(TEXTS, "detached"), (TAGS, "joint")])
def test_the_same_seed_gives_the_same_weights(
    case: Case, objective: str, rows: Path, backbone: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        options = ("--objective", objective, "--seed", seed, "--epochs", 1)
        exits(case, backbone, rows, tmp_path / name, *options, ok=True)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_two_stage_leaves_full_depth_to_the_first_stage(
    case: Case, rows: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    run = loop.run_loop

    def spy(model: torch.nn.Module, *rows: Any, **options: Any) -> dict[str, float]:
        scores = run(model, *rows, **options)
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return scores

    monkeypatch.setattr("cascade.training.recipes.exits.run_loop", spy)
    exits(case, backbone, rows, tmp_path / "out", "--objective", "two-stage", "--epochs", 1, ok=True)
    first, second = seen
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved
    assert all(name.startswith(("heads.0.", "heads.1.")) for name in moved)


def test_distillation_reads_no_labels(case: Case, rows: Path, tmp_path: Path) -> None:
    before = case.teacher(tmp_path / "teacher")
    unlabelled = write(tmp_path / "unlabelled.jsonl", case.bare())
    train(
        *("exits", tmp_path / "teacher", "--task", case.name, "--train", unlabelled, "--eval", rows),
        *("--output", tmp_path / "out", "--objective", "distil", "--epochs", 8, "--learning-rate", 3e-3),
        ok=True,
    )
    after = case.model.from_pretrained(tmp_path / "out")
    ids = torch.tensor([[2, *range(131, 141), 3]])
    with torch.inference_mode():
        old, new = before(ids, torch.ones_like(ids))["logits"], after(ids, torch.ones_like(ids))["logits"]
    torch.testing.assert_close(new[:, -1], old[:, -1], atol=1e-5, rtol=0)  # other versions of attention round otherwise
    # The first exit agrees better with the last than before.
    far, near = (float((own[0, 0].softmax(-1) - own[0, -1].softmax(-1)).abs().sum()) for own in (old, new))
    assert near < far


def test_options_of_the_model(case: Case, backbone: Path, tmp_path: Path) -> None:
    records = [{"item": row[case.item], "own": row[case.label]} for row in case.rows]
    exits(
        case, backbone, write(tmp_path / "rows.jsonl", records), tmp_path / "out",
        f"--{case.item}-column", "item", "--label-column", "own", "--exits", "1,3", "--layer-weights", "1,3",
        "--average", 0.5, "--max-length", 5, "--epochs", 1, ok=True,
    )  # fmt: skip
    report = report_of(tmp_path / "out")
    assert report["rows"] == len(case.rows) * (2 if case is TAGS else 1)  # four words and two special tokens
    assert report["options"]["max_length"] == 5
    (objective,) = report["options"]["objectives"]
    assert objective.endswith("weights=(1.0, 3.0))")
    assert case.model.from_pretrained(tmp_path / "out").layers == (1, 3)


@pytest.mark.parametrize("family", ["roberta", "electra", "distilbert", "albert"])
def test_other_families(family: str, tmp_path: Path) -> None:
    folder = tiny.backbone(tmp_path / "backbone", family)
    rows = write(tmp_path / "rows.jsonl", TAGS.rows)
    exits(TAGS, folder, rows, tmp_path / "out", "--epochs", 1, ok=True)
    assert TAGS.model.from_pretrained(tmp_path / "out").config.model_type == family


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 1, 0], [1, 0, 0]], "several labels must be lists of names, got only 0 and 1; write"),
        (["a,b", "b"], "several labels of a text must be a list of names, got strings alone, such as 'a,b'; write"),
        (["a|b", "c"], "got strings alone, such as 'a|b'; write jsonl with"),
    ],
)
def test_forms_of_several_labels_that_are_not_read(
    labels: list[Any], message: str, backbone: Path, tmp_path: Path
) -> None:
    rows = write(tmp_path / "rows.jsonl", [{"text": "good", "label": label} for label in labels])
    refused(train("exits", backbone, "--train", rows, "--output", tmp_path / "out", "--multi-label"), message)


def test_several_labels_in_a_csv(backbone: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\ngood,warm;bad\nbad,\nit,warm\n", encoding="utf-8")
    options = ("--multi-label", "--label-separator", ";", "--epochs", 1)
    train("exits", backbone, "--train", rows, "--output", tmp_path / "out", *options, ok=True)
    assert TEXTS.model.from_pretrained(tmp_path / "out").labels == ("bad", "warm")
    fine_tuned("bert", tmp_path / "stock", labels=("warm", "bad"), problem_type=MULTI_LABEL)
    rows.write_text("text,label\ngood,warm;bad\n", encoding="utf-8")
    done = train("exits", tmp_path / "stock", "--train", rows, "--output", tmp_path / "no")
    refused(
        done,
        "has the label 'warm;bad', which the model does not have (2 labels: warm, bad); correct it, say with",
    )


@pytest.mark.parametrize(
    ("case", "records", "message"),
    [
        (TEXTS, [{"text": "good", "label": "a"}, {"text": 3, "label": "b"}], "line 2: "),
        (TEXTS, [{"text": "good", "label": "a"}, {"text": "bad", "label": None}], "line 2: "),
        (TEXTS, [{"text": "good", "label": "a"}], "must have at least two labels, got ['a']"),
        (TAGS, [{"tokens": ["a"], "tags": ["X"]}], "the training data must have at least two labels, got ['X']"),
        (TAGS, [{"tokens": ["a", "b"], "tags": ["X"]}], "line 1: there must be one tag per word"),
    ],
)
def test_bad_rows_are_named(
    case: Case, records: list[dict[str, Any]], message: str, backbone: Path, tmp_path: Path
) -> None:
    rows = write(tmp_path / "bad.jsonl", records)
    done = train("exits", backbone, "--task", case.name, "--train", rows, "--output", tmp_path / "out")
    refused(done, message)
    assert done.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("case", "arguments", "message"),
    [
        (TEXTS, ["--layer-weights", "1,x"], "'--layer-weights': must be numbers separated by commas, got 1,x"),
        (
            TEXTS,
            ["--exits", "3", "--objective", "distil"],
            "an exit before the last, got exits (3,)",
        ),
        (TAGS, ["--exits", "3", "--objective", "two-stage"], "there must be an exit before the last, got"),
        (TEXTS, ["--vocabulary", "3"], "--vocabulary must be at least"),
        (TAGS, ["--pooling", "mean"], "--pooling must be left out of --task tagging, got mean"),
        (TAGS, ["--multi-label"], "--multi-label must be left out of --task tagging, got True"),
        (TAGS, ["--max-length", "2"], "max_length must be at least 5 (special tokens and a text)"),
    ],
)
def test_bad_options(case: Case, arguments: list[str], message: str, backbone: Path, tmp_path: Path) -> None:
    done = exits(case, backbone, write(tmp_path / "rows.jsonl", case.rows), tmp_path / "out", *arguments)
    refused(done, message)


def test_a_missing_checkpoint_and_the_other_tasks(case: Case, rows: Path, tmp_path: Path) -> None:
    message = f"a folder or a Hub id (owner/name), but there is no folder '{tmp_path}/nowhere'; check the path"
    refused(exits(case, tmp_path / "nowhere", rows, tmp_path / "out"), message)
    (other,) = (other for other in CASES if other is not case)
    other.teacher(tmp_path / "other")
    for command in ("exits", "first-tier"):
        done = train(command, tmp_path / "other", "--task", case.name, "--train", rows, "--output", tmp_path / "out")
        message = f"must hold a multi-exit model for {case.model.task}, got one for {other.model.task}; choose its task"
        refused(done, message)


@pytest.mark.parametrize("command", ["exits", "first-tier", "crf"])
def test_help_has_an_example_and_says_what_options_are(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    told = train(command, "--help").output
    assert "Example:" in told
    assert ("--batch-size INTEGER" in told) == (command != "crf") == ("Rows per step.  [default: 32]" in told)


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_a_vocabulary_of_another_kind_keeps_its_texts(kind: str, case: Case, rows: Path, tmp_path: Path) -> None:
    """The tokenizer stays, pieces that do not occur share one embedding, full depth of the texts is the same."""
    stock = fine_tuned("roberta", tmp_path / "stock", tagging=case is TAGS)
    names = sorted(tiny.VOCABULARY[:5]) + sorted(
        {word for text in tiny.TEXTS for word in text.split()} | set(tiny.WORDS)
    )
    if kind == "BPE":
        model: Any = models.BPE({name: number for number, name in enumerate(names)}, [], unk_token="[UNK]")
    else:
        model = models.Unigram(
            [(name, -float(number)) for number, name in enumerate(names)], unk_id=names.index("[UNK]")
        )
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, names.index(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    made.save(str(tmp_path / "stock" / "tokenizer.json"))
    given = ("--task", case.name, "--train", rows, "--objective", "distil", "--vocabulary", 9, "--epochs", 1)
    unlabelled = write(rows, case.bare())
    train("exits", tmp_path / "stock", *given, "--output", tmp_path / "tier2", ok=True)
    assert unlabelled.exists()
    found = case.model.from_pretrained(tmp_path / "tier2")
    table: Any = found.backbone.get_input_embeddings()
    assert table.num_embeddings < 40 < found.config.vocab_size
    items = [row[case.item] for row in case.rows]
    for item in items[:5]:
        ids = torch.tensor([made.encode(item, is_pretokenized=case is TAGS).ids])
        with torch.inference_mode():
            wanted, own = stock(ids).logits, found(ids, torch.ones_like(ids))["logits"][:, -1]
        torch.testing.assert_close(own, wanted, atol=1e-5, rtol=1e-5)
    train("first-tier", tmp_path / "tier2", *given[:4], "--epochs", 1, "--output", tmp_path / "tier1", ok=True)
    options = ExportOptions(int8=False)
    export_bundle(
        *(tmp_path / "tier2", tmp_path / "tier1", tmp_path / "bundle"), calibration=Calibration(items), options=options
    )
