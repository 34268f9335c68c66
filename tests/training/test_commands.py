"""`cascade-train` from end to end on tiny models: it learns, resumes, refuses, and leaves nothing half-written."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, TrainerCallback

from cascade import Classifier
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.training import checkpoint as checkpoints
from cascade.training import data, loop
from cascade.training.cli import main
from cascade.training.models.multi_exit import MULTI_LABEL, MultiExitModel
from cascade.training.models.static import StaticForSequenceClassification
from cascade.training.models.students import Static, Transformer, principal_components
from cascade.training.recipes import first_tier
from cascade.training.recipes.first_tier import teacher_logits
from cascade_export import Calibration, ExportOptions, Int8, export_bundle
from tests.models import tiny
from tests.training.test_multi_exit import fine_tuned

TEXT_PAIRS = [("a film", "a cold story"), ("the film is", "good"), ("bad", "the plot is dull and we laugh")]
ROWS = [
    {"text": f"{subject} {verb} {word}", "label": label}
    for subject in ("the film", "a story", "the plot", "it", "the actor", "the end")
    for verb in ("is", "was", "is very", "was never")
    for word, label in (("good", "positive"), ("bright", "positive"), ("bad", "negative"), ("dull", "negative"))
]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    output: str


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny.tier2(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def train(*arguments: object) -> Done:
    """Run the command inside this process; `output` has both streams."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    status = end.value.code
    assert isinstance(status, int)
    return Done(status, out.getvalue() + err.getvalue())


def exits(checkpoint: Path, rows: Path, output: Path, *more: object) -> Done:
    return train(
        *("exits", checkpoint, "--train", rows, "--eval", rows, "--output", output),
        *("--epochs", 4, "--batch-size", 8, "--learning-rate", 1e-2, "--head-factor", 1, *more),
    )


def test_exits_learn_and_leave_a_report(checkpoint: Path, rows: Path, tmp_path: Path) -> None:
    result = exits(checkpoint, rows, tmp_path / "out")
    assert result.status == 0, result.output
    report = json.loads((tmp_path / "out" / "training.json").read_text())
    assert report["scores"]["layer_3"] >= 0.9
    assert report["rows"] == len(ROWS)
    assert {"layer_1", "layer_2", "layer_3", "mean_of_exits"} == report["scores"].keys()
    assert "epoch 1.00  layer 1" in result.output
    assert not (tmp_path / "out" / "part").exists()
    assert MultiExitModel.from_pretrained(tmp_path / "out").labels == ("negative", "positive")


@pytest.mark.parametrize("objective", ["detached", "joint"])
def test_the_same_seed_gives_the_same_weights(objective: str, checkpoint: Path, rows: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        result = exits(checkpoint, rows, tmp_path / name, "--objective", objective, "--seed", seed, "--epochs", 1)
        assert result.status == 0, result.output
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_two_stage_leaves_full_depth_to_the_first_stage(
    checkpoint: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    run = loop.run_loop

    def spy(model: torch.nn.Module, **options: Any) -> dict[str, float]:
        scores = run(model, **options)
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return scores

    monkeypatch.setattr("cascade.training.recipes.exits.run_loop", spy)
    assert exits(checkpoint, rows, tmp_path / "out", "--objective", "two-stage").status == 0
    first, second = seen
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved
    assert all(name.startswith(("heads.0.", "heads.1.")) for name in moved)


def test_distillation_reads_no_labels(checkpoint: Path, rows: Path, tmp_path: Path) -> None:
    unlabelled = write(tmp_path / "unlabelled.jsonl", [{"text": row["text"]} for row in ROWS])
    result = train(
        "exits", checkpoint, "--train", unlabelled, "--eval", rows, "--output", tmp_path / "out",
        "--objective", "distil", "--epochs", 8, "--batch-size", 16, "--learning-rate", 3e-3,
    )  # fmt: skip
    assert result.status == 0, result.output
    before, after = MultiExitModel.from_pretrained(checkpoint), MultiExitModel.from_pretrained(tmp_path / "out")
    ids = torch.tensor([[2, *range(131, 141), 3]])
    with torch.inference_mode():
        old, new = before(ids, torch.ones_like(ids))["logits"], after(ids, torch.ones_like(ids))["logits"]
    torch.testing.assert_close(new[:, -1], old[:, -1])
    # The first exit agrees better with the last than before.
    assert (new[0, 0].softmax(-1) - new[0, -1].softmax(-1)).abs().sum() < (
        old[0, 0].softmax(-1) - old[0, -1].softmax(-1)
    ).abs().sum()


class _Stop(TrainerCallback):
    """Interrupts training at the end of the second epoch, after its checkpoint was written."""

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.epoch >= 2:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_where_it_stopped(
    checkpoint: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exits(checkpoint, rows, tmp_path / "whole").status == 0
    with monkeypatch.context() as patched:
        patched.setattr(loop, "_EpochLine", _Stop)
        stopped = exits(checkpoint, rows, tmp_path / "cut")
    assert stopped.status == 130
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    refused = exits(checkpoint, rows, tmp_path / "cut")
    assert refused.status == 2
    assert "is not empty; use --resume to go on with it, --overwrite to begin anew" in refused.output
    resumed = exits(checkpoint, rows, tmp_path / "cut", "--resume")
    assert resumed.status == 0, resumed.output
    assert "epoch 1.00" not in resumed.output
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    for name, tensor in whole.items():
        torch.testing.assert_close(cut[name], tensor, atol=1e-6, rtol=1e-5)


def test_options_of_the_model(checkpoint: Path, rows: Path, tmp_path: Path) -> None:
    tiny.tier2(tmp_path / "labelled", labels=("negative", "positive"))
    result = exits(
        checkpoint, rows, tmp_path / "out", "--vocabulary", 140, "--min-words", 3, "--layer-weights", "1,1,4",
        "--self-distil", 0.5, "--dropout", 0, "--epochs", 1,
    )  # fmt: skip
    assert result.status == 0, result.output
    model = MultiExitModel.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == 140
    assert model.backbone.get_input_embeddings().weight.shape == (140, 16)
    vocabulary = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(vocabulary) == 140
    report = json.loads((tmp_path / "out" / "training.json").read_text())
    assert report["rows"] == sum(len(row["text"].split()) >= 3 for row in ROWS)
    assert "Joint(weights=(1.0, 1.0, 4.0), distil=0.5, smoothing=0.0)" in report["objectives"]


def test_multi_label_and_pairs(tmp_path: Path) -> None:
    records = [
        {"text": "the film", "text_pair": word, "label": labels}
        for word, labels in (("good", ["warm", "good"]), ("bad", []), ("warm", ["warm"]))
        for _ in range(8)
    ]
    rows = write(tmp_path / "rows.jsonl", records)
    tiny.tier2(tmp_path / "c", labels=("good", "warm"), problem_type="multi_label_classification")
    result = exits(tmp_path / "c", rows, tmp_path / "out", "--multi-label")
    assert result.status == 0, result.output
    assert json.loads((tmp_path / "out" / "training.json").read_text())["scores"]["layer_3"] >= 0.9
    student = train(
        "first-tier", tmp_path / "out", "--train", rows, "--eval", rows, "--output", tmp_path / "tier1",
        "--kind", "transformer", "--layers", 1, "--width", 16, "--epochs", 20, "--learning-rate", 3e-3,
        "--batch-size", 8,
    )  # fmt: skip
    assert student.status == 0, student.output
    assert json.loads((tmp_path / "tier1" / "training.json").read_text())["scores"]["accuracy"] >= 0.9


@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_a_first_tier_imitates_its_teacher(kind: str, checkpoint: Path, rows: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    assert exits(checkpoint, rows, teacher).status == 0
    extra = write(tmp_path / "extra.jsonl", [{"text": "they laugh and it is good"}] * 3)
    result = train(
        "first-tier", teacher, "--train", rows, "--eval", rows, "--extra-text", extra, "--output", tmp_path / "tier1",
        "--kind", kind, "--layers", 1, "--width", 8, "--hidden", 8, "--epochs", 20, "--batch-size", 16,
        "--learning-rate", 5e-3, "--copies", 1,
    )  # fmt: skip
    assert result.status == 0, result.output
    report = json.loads((tmp_path / "tier1" / "training.json").read_text())
    assert report["scores"]["accuracy"] >= 0.9
    assert report["rows"] == 2 * len(ROWS) + 3
    if kind == "static":
        model = StaticForSequenceClassification.from_pretrained(tmp_path / "tier1")
    else:
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tier1")
    assert [model.config.id2label[i] for i in range(2)] == ["negative", "positive"]
    assert (tmp_path / "tier1" / "tokenizer.json").exists()


def test_a_student_as_wide_as_its_teacher_begins_with_its_layers(tmp_path: Path) -> None:
    teacher = tiny.tier2(tmp_path)
    student: Any = Transformer(layers=2, width=16, heads=2).build(teacher)
    ids = torch.tensor([[2, 40, 50, 3]])
    with torch.inference_mode():
        found = student.bert.eval()(ids).last_hidden_state
        wanted = teacher.backbone(ids, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(found, wanted)


def test_a_narrower_student_begins_with_projected_embeddings(tmp_path: Path) -> None:
    teacher = tiny.tier2(tmp_path)
    student: Any = Transformer(layers=1, width=8, heads=2).build(teacher)
    embeddings: Any = teacher.backbone.get_input_embeddings()
    table = embeddings.weight.detach()
    basis = principal_components(table, 8)
    torch.testing.assert_close(basis.T @ basis, torch.eye(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(student.bert.embeddings.word_embeddings.weight, table @ basis)


@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_frozen_embeddings_stay(kind: str, rows: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = tiny.tier2(tmp_path / "teacher")
    result = train(
        *("first-tier", tmp_path / "teacher", "--train", rows, "--output", tmp_path / "tier1", "--kind", kind),
        *("--layers", 1, "--width", 16, "--epochs", 1, "--learning-rate", 1e-2, "--freeze-embeddings"),
    )
    assert result.status == 0, result.output
    name = "embeddings.weight" if kind == "static" else "bert.embeddings.word_embeddings.weight"
    found = load_file(tmp_path / "tier1" / "model.safetensors")[name]
    student: Any = (Static(width=16) if kind == "static" else Transformer(layers=1, width=16, heads=2)).build(teacher)
    torch.testing.assert_close(found, student.get_input_embeddings().weight)


@pytest.mark.parametrize("width", [8, 24])
def test_a_static_student_begins_with_what_the_teacher_makes_of_a_piece(width: int, tmp_path: Path) -> None:
    teacher = tiny.tier2(tmp_path)
    student: Any = Static(width=width).build(teacher)
    table = student.embeddings.weight.detach()
    ids = torch.tensor([[60], [61], [140]])
    with torch.inference_mode():
        states = teacher.backbone(ids).last_hidden_state[:, 0]
    # Projection onto the first components keeps most of the distances.
    found, wanted = (torch.pdist(rows) for rows in (table[ids[:, 0]], states))
    assert np.corrcoef(found.numpy(), wanted.numpy())[0, 1] > 0.8


def test_split_is_stratified_seeded_and_complete(rows: Path, tmp_path: Path) -> None:
    kept, out = tmp_path / "a" / "kept.jsonl", tmp_path / "b" / "out.jsonl"
    assert train("split", rows, "--share", 0.25, "--kept", kept, "--held-out", out).status == 0
    stayed, held = ([json.loads(line) for line in path.read_text().splitlines()] for path in (kept, out))
    assert len(held) == len(ROWS) // 4
    assert sum(row["label"] == "positive" for row in held) == len(held) // 2
    assert sorted(map(str, stayed + held)) == sorted(map(str, ROWS))
    again = tmp_path / "again.jsonl"
    train("split", rows, "--share", 0.25, "--kept", tmp_path / "k.jsonl", "--held-out", again)
    assert again.read_text() == out.read_text()


def test_split_of_tagged_sentences_is_seeded_and_complete(tmp_path: Path) -> None:
    sentences = [{"tokens": ["word", str(number)], "tags": ["A", "B"]} for number in range(20)]
    file = write(tmp_path / "tags.jsonl", sentences)
    found = []
    for folder in ("once", "again"):
        kept, out = tmp_path / folder / "kept.jsonl", tmp_path / folder / "out.jsonl"
        given = ("--task", "tagging", "--share", 0.25, "--kept", kept, "--held-out", out)
        assert train("split", file, *given).output == f"15 rows in {kept}, 5 in {out}\n"
        found.append([[json.loads(line) for line in path.read_text().splitlines()] for path in (kept, out)])
    assert found[0] == found[1]
    assert sorted(map(str, found[0][0] + found[0][1])) == sorted(map(str, sentences))


BAD = [
    ([{"text": "good"}], "label"),
    ([{"text": "good", "label": "a"}, {"text": 3, "label": "b"}], "2"),
    ([{"text": "good", "label": "a"}, {"text": "bad", "label": None}], "2"),
    ([{"text": "good", "label": "a"}], "must be among the checkpoint's, ['negative', 'positive'], but there was: a"),
]


@pytest.mark.parametrize(("records", "message"), BAD)
def test_bad_rows_are_named(records: list[dict[str, Any]], message: str, checkpoint: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "bad.jsonl", records)
    result = train("exits", checkpoint, "--train", rows, "--output", tmp_path / "out")
    assert result.status == 2
    assert result.output.startswith("Error: ")
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer-weights", "1,x"], "--layer-weights must be numbers separated by commas, was: 1,x"),
        (["--epochs", "0"], "epochs must be above 0, was: 0"),
        (["--warmup", "1"], r"warmup must be in [0, 1), was: 1"),
        (["--min-words", "99"], "--min-words 99 leaves no training row; lower it"),
        (["--exits", "1,2"], "exits must rise from 1 or more and end at the last layer"),
        (["--vocabulary", "3"], "--vocabulary must be at least"),
    ],
)
def test_bad_options(arguments: list[str], message: str, rows: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stock"
    tiny.tier1_transformer(folder, labels=("negative", "positive"))
    result = train("exits", folder, "--train", rows, "--output", tmp_path / "out", *arguments)
    assert result.status == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--imitation", "2"], "imitation must be in [0, 1], was: 2"),
        (["--temperature", "0"], "temperature must be above 0, was: 0"),
        (["--kind", "transformer", "--layers", "9"], "--layers must be 1 to 3, was: 9"),
    ],
)
def test_bad_first_tier_options(
    arguments: list[str], message: str, checkpoint: Path, rows: Path, tmp_path: Path
) -> None:
    result = train("first-tier", checkpoint, "--train", rows, "--output", tmp_path / "out", *arguments)
    assert result.status == 2
    assert message in result.output


def test_labels_of_the_evaluation_must_be_known(checkpoint: Path, rows: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [{"text": "good", "label": "neutral"}])
    result = train("exits", checkpoint, "--train", rows, "--eval", other, "--output", tmp_path / "out")
    assert result.status == 2
    assert "example 1 has the label 'neutral', which the model does not have" in result.output


def test_a_refused_command_leaves_its_output_free(checkpoint: Path, rows: Path, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", [{"text": "good", "label": "a"}])
    for command in ("exits", "first-tier"):
        output = tmp_path / command
        options = ("--output", output, "--epochs", 1)
        assert train(command, checkpoint, "--train", rows, "--eval", bad, *options).status == 2
        assert not output.exists()
        (output / "run").mkdir(parents=True)  # as a crash leaves it
        done = train(command, checkpoint, "--train", rows, *options)
        assert done.status == 0, done.output


PAIRS = [
    {"text": "the film is", "text_pair": word, "label": label}
    for word, label in (("good", "positive"), ("bad", "negative"), ("warm", "positive"), ("dull", "negative"))
]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_static_first_tier_of_pairs(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny.tier2(tmp_path / "teacher", family)
    labelled = write(tmp_path / "pairs.jsonl", PAIRS)
    extra = write(tmp_path / "extra.jsonl", [{"text": "a film", "text_pair": "a cold story"}, {"text": "a film"}])
    asked: list[data.Rows] = []

    def spy(model: MultiExitModel, rows: data.Rows) -> Any:
        asked.append(rows)
        return teacher_logits(model, rows)

    monkeypatch.setattr(first_tier, "teacher_logits", spy)
    result = train(
        *("first-tier", tmp_path / "teacher", "--train", labelled, "--extra-text", extra),
        *("--output", tmp_path / "tier1", "--epochs", 1, "--width", 8, "--hidden", 8),
    )
    assert result.status == 0, result.output
    (rows,) = asked
    assert rows.types is not None
    pair = tiny.tokenizer().encode("a film", "a cold story")
    assert rows.ids[len(PAIRS)] == pair.ids
    assert rows.types[len(PAIRS)] == pair.type_ids
    assert 1 in pair.type_ids
    options = ExportOptions(int8=Int8.NONE)
    bundle = export_bundle(
        tmp_path / "teacher", tmp_path / "tier1", tmp_path / "out", calibration=Calibration(TEXT_PAIRS), options=options
    )
    classifier = Classifier.from_pretrained(bundle.folder, threads=1)
    full = classifier.with_router(defer_all).with_exit_policy(never).predict(TEXT_PAIRS)
    encoded = data.encode(
        checkpoints.tokenizer_from_text(checkpoints.load_tokenizer_text(tmp_path / "teacher")),
        data.Examples(texts=TEXT_PAIRS, labels=None, source="pairs"),
        teacher.labels,
        multi_label=False,
        max_length=64,
    )
    best = teacher_logits(teacher, encoded).argmax(-1)
    assert list(full.labels) == [teacher.labels[number] for number in best]


def stock(folder: Path, labels: Sequence[str], problem_type: str | None = None) -> Any:
    """A fine-tuned classifier whose labels have this order."""
    tiny.save_tokenizer(folder)
    return fine_tuned("bert", folder, labels=labels, problem_type=problem_type)


def distilled(
    folder: Path, labelled: bool, labels: Sequence[Any], problem_type: str | None = None
) -> tuple[Any, Classifier]:
    """`exits --objective distil` and `first-tier` from a fine-tuned checkpoint in `folder`, exported in fp32."""
    given = [{"label": labels[i % len(labels)]} if labelled else {} for i in range(len(tiny.TEXTS))]
    rows = write(folder / "own.jsonl", [{"text": text} | own for text, own in zip(tiny.TEXTS, given, strict=True)])
    done = train(
        *("exits", folder / "stock", "--train", rows, "--output", folder / "tier2", "--objective", "distil"),
        *("--epochs", 1, *(("--eval", rows) if labelled else ())),
    )
    assert done.status == 0, done.output
    done = train(
        *("first-tier", folder / "tier2", "--train", rows, "--output", folder / "tier1", "--epochs", 1),
        *("--width", 8, "--hidden", 8),
    )
    assert done.status == 0, done.output
    bundle = export_bundle(
        folder / "tier2",
        folder / "tier1",
        folder / "out",
        calibration=Calibration(tiny.TEXTS),
        options=ExportOptions(int8=Int8.NONE),
    )
    full = Classifier.from_pretrained(bundle.folder, threads=1).with_router(defer_all).with_exit_policy(never)
    return bundle.manifest, full


def logits_of(model: Any) -> torch.Tensor:
    found = [tiny.tokenizer().encode(text) for text in tiny.TEXTS]
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([one.ids])).logits for one in found])


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("NUM", "HUM", "ABBR", "LOC"), ("HUM", "LOC", "NUM")),
        (tuple(f"LABEL_{number}" for number in range(11)), (0, 2, 10)),
        (("NUM", "HUM", "ABBR", "LOC"), None),
    ],
)
def test_full_depth_answers_as_the_fine_tuned_checkpoint(
    names: tuple[str, ...], labels: tuple[Any, ...] | None, tmp_path: Path
) -> None:
    model = stock(tmp_path / "stock", names)
    manifest, full = distilled(tmp_path, labels is not None, labels or ())
    wanted = [names[number] for number in logits_of(model).argmax(-1)]
    assert len(set(wanted)) > 1
    assert manifest.labels == names
    assert list(full.predict(list(tiny.TEXTS)).labels) == wanted


@pytest.mark.parametrize("labels", [(["warm"], [], ["warm", "bad"]), None])
def test_a_multi_label_checkpoint_stays_one(labels: tuple[Any, ...] | None, tmp_path: Path) -> None:
    names = ("warm", "bad", "long")
    model = stock(tmp_path / "stock", names, MULTI_LABEL)
    manifest, full = distilled(tmp_path, labels is not None, labels or ())
    assert manifest.problem_type == MULTI_LABEL
    np.testing.assert_allclose(full.predict(list(tiny.TEXTS)).probabilities, logits_of(model).sigmoid(), atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 1, 0], [1, 0, 0]], "must name each of its labels once, was: ['0', '1', '0']; give the names"),
        (["a,b", "b"], "several labels of a row must be a list of names, was one string: 'a,b'; write jsonl"),
    ],
)
def test_forms_of_several_labels_that_are_not_read(labels: list[Any], message: str, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [{"text": "good", "label": label} for label in labels])
    folder = tiny.backbone(tmp_path / "backbone")
    result = train("exits", folder, "--train", rows, "--output", tmp_path / "out", "--multi-label")
    assert result.status == 2
    assert message in result.output


def test_missing_files_and_checkpoints(rows: Path, tmp_path: Path) -> None:
    result = train("exits", tmp_path / "nowhere", "--train", rows, "--output", tmp_path / "out")
    assert result.status == 2
    assert result.output.startswith("Error: ")
    (tmp_path / "adapter_config.json").write_text("{}")
    result = train("first-tier", tmp_path, "--train", tmp_path / "no.jsonl", "--output", tmp_path / "out")
    assert result.status == 2
    assert "must be a checkpoint that transformers reads, but: Unrecognized model" in result.output
    assert result.output.endswith(
        "it holds an adapter: merge it into its model first (merge_and_unload) and save that\n"
    )
    before = rows.read_bytes()
    refused = train("split", rows, "--share", 0.2, "--kept", rows, "--held-out", "b").output
    assert refused.startswith("Error: an output must be another file than the input, was: ")
    assert rows.read_bytes() == before
    assert train("split", rows, "--share", 2, "--kept", "a", "--held-out", "b").output == (
        "Error: --share must be in (0, 1), was: 2.0\n"
    )


@pytest.mark.parametrize("command", ["exits", "first-tier", "split"])
def test_help_has_an_example(command: str) -> None:
    assert "Example:" in train(command, "--help").output
