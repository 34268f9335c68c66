"""`cascade-train first-tier` from end to end on tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from cascade.training import run
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.data import Examples, TrainingRows, encode_texts, tokenizer_of
from cascade.training.models.static import StaticForSequenceClassification, StaticForTokenClassification
from cascade.training.models.students import Static, StaticTagger, Transformer, principal_components
from cascade.training.models.teacher import teacher_of
from cascade.training.recipes.first_tier import FirstTierOptions, _loss
from cascade.training.units import teacher_logits
from cascade_export import Calibration, ExportOptions, export_bundle
from tests.models import tiny
from tests.training.commands import CASES, Case, Trained, exits, exported, fine_tuned, refused, report_of, train, write

TEXTS, TAGS = CASES


@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_a_first_tier_imitates_its_teacher(kind: str, case: Case, rows: Path, trained: Trained, tmp_path: Path) -> None:
    extra = write(tmp_path / "extra.jsonl", case.bare()[:3])
    train(
        *("first-tier", trained(case), "--task", case.name, "--train", rows, "--eval", rows),
        *("--extra-text", extra, "--output", tmp_path / "tier1", "--kind", kind, "--layers", 1, "--width", 8),
        *("--hidden", 8, "--epochs", 14, "--batch-size", 16, "--learning-rate", 2e-2, "--copies", 1),
        ok=True,
    )
    report = report_of(tmp_path / "tier1")
    assert report["scores"]["accuracy"] >= 0.9
    assert report["rows"] == 2 * len(case.rows) + 3
    loaders: dict[tuple[Case, str], Any] = {
        (TEXTS, "static"): StaticForSequenceClassification,
        (TEXTS, "transformer"): AutoModelForSequenceClassification,
        (TAGS, "static"): StaticForTokenClassification,
        (TAGS, "transformer"): AutoModelForTokenClassification,
    }
    model = loaders[case, kind].from_pretrained(tmp_path / "tier1")
    assert tuple(model.config.id2label.values()) == case.labels
    assert (tmp_path / "tier1" / "tokenizer.json").exists()


def test_in_bfloat16_the_teacher_answers_in_it_too(case: Case, rows: Path, trained: Trained, tmp_path: Path) -> None:
    made: list[tuple[Path, Any]] = []
    for flags in ((), ("--bf16",)):
        train(
            *(
                "first-tier",
                trained(case),
                "--task",
                case.name,
                "--train",
                rows,
                "--output",
                tmp_path / "-".join(("out", *flags)),
                *flags,
            ),
            *("--width", 8, "--hidden", 8, "--epochs", 1, "--shared", tmp_path / "shared"),
            ok=True,
        )
        [file] = set((tmp_path / "shared").glob("teacher-*.npy")) - {file for file, _ in made}
        made.append((file, np.load(file)))
    (_, plain), (_, halved) = made
    assert plain.dtype == halved.dtype == np.float32
    assert 0 < np.abs(plain - halved).max() < 0.1 * np.abs(plain).max()


def test_multi_label_and_pairs(tmp_path: Path) -> None:
    records = [
        {"text": "the film", "text_pair": word, "label": labels}
        for word, labels in (("good", ["warm", "good"]), ("bad", []), ("warm", ["warm"]))
        for _ in range(8)
    ]
    rows = write(tmp_path / "rows.jsonl", records)
    tiny.tier2(tmp_path / "c", labels=("good", "warm"), problem_type="multi_label_classification")
    exits(TEXTS, tmp_path / "c", rows, tmp_path / "out", "--multi-label", ok=True)
    assert report_of(tmp_path / "out")["scores"]["layer_3"] >= 0.9
    train(
        *("first-tier", tmp_path / "out", "--train", rows, "--eval", rows, "--output", tmp_path / "tier1"),
        *("--kind", "transformer", "--layers", 1, "--width", 16, "--epochs", 20, "--learning-rate", 3e-3),
        *("--batch-size", 8),
        ok=True,
    )
    assert report_of(tmp_path / "tier1")["scores"]["accuracy"] >= 0.9


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_static_first_tier_of_pairs(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny.tier2(tmp_path / "tier2", family)
    pairs = [
        {"text": "the film is", "text_pair": word, "label": label}
        for word, label in (("good", "positive"), ("bad", "negative"), ("warm", "positive"), ("dull", "negative"))
    ]
    labelled = write(tmp_path / "pairs.jsonl", pairs)
    extra = write(tmp_path / "extra.jsonl", [{"text": "a film", "text_pair": "a cold story"}, {"text": "a film"}])
    asked: list[TrainingRows] = []

    def spy(model: Any, rows: TrainingRows, progress: Any = None) -> Any:
        asked.append(rows)
        return teacher_logits(model, rows)

    monkeypatch.setattr(run, "teacher_logits", spy)
    train(
        *("first-tier", tmp_path / "tier2", "--train", labelled, "--extra-text", extra),
        *("--output", tmp_path / "tier1", "--epochs", 1, "--width", 8, "--hidden", 8),
        ok=True,
    )
    (rows,) = asked
    pair, alone = tiny.tokenizer().encode("a film", "a cold story"), tiny.tokenizer().encode("a film")
    assert 1 in pair.type_ids
    for row, wanted in ((len(pairs), pair), (len(pairs) + 1, alone)):
        own = rows.select(np.array([row])).units.rows
        assert (own.ids.tolist(), own.types.tolist()) == (wanted.ids, wanted.type_ids)
    texts = [("a film", "a cold story"), ("the film is", "good"), ("bad", "the plot is dull and we laugh")]
    _, full = exported(tmp_path, texts)
    tokenizer = tokenizer_of(load_tokenizer_text(tmp_path / "tier2"), max_length=64)
    best = teacher_logits(teacher, encode_texts(tokenizer, Examples(texts, None, "pairs"), teacher.labels)).argmax(-1)
    assert list(full.predict(texts).labels) == [teacher.labels[number] for number in best]


def test_a_transformer_begins_with_its_teachers_layers_or_projected_embeddings(case: Case, tmp_path: Path) -> None:
    teacher = case.teacher(tmp_path)
    student: Any = Transformer(layers=2, width=16).build(teacher)
    ids = torch.tensor([[2, 40, 50, 3]])
    with torch.inference_mode():
        found = student.bert.eval()(ids).last_hidden_state
        torch.testing.assert_close(found, teacher.states(ids, torch.ones_like(ids), None)[2])
    narrow: Any = Transformer(layers=1, width=8).build(teacher)
    embeddings: Any = teacher.backbone.get_input_embeddings()
    basis = principal_components(embeddings.weight.detach(), 8)
    torch.testing.assert_close(basis.T @ basis, torch.eye(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(narrow.bert.embeddings.word_embeddings.weight, embeddings.weight @ basis)


@pytest.mark.parametrize("width", [8, 24])
def test_a_static_student_begins_with_what_its_teacher_makes_of_a_token(width: int, case: Case, tmp_path: Path) -> None:
    teacher = case.teacher(tmp_path)
    student: Any = (Static if case is TEXTS else StaticTagger)(width=width).build(teacher)
    assert tuple(student.config.id2label.values()) == teacher.labels
    ids = torch.tensor([[60], [61], [140], [20], [90]])
    embeddings: Any = teacher.backbone.get_input_embeddings()
    with torch.inference_mode():
        states = teacher.backbone(ids).last_hidden_state[:, 0] if case is TEXTS else embeddings(ids[:, 0])
    # Projection onto the first components keeps most of the distances; all of them where nothing is left out.
    found, wanted = (torch.pdist(rows).numpy() for rows in (student.embeddings.weight.detach()[ids[:, 0]], states))
    assert np.corrcoef(found, wanted)[0, 1] > (0.7 if width < 16 else 0.999)


@pytest.mark.parametrize("family", ["roberta", "distilbert", "albert"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_transformer_of_any_teacher(family: str, whole: bool, case: Case, rows: Path, tmp_path: Path) -> None:
    """It is a BERT with the teacher's tokenizer, begun from its embeddings, and tells two texts apart."""
    if whole:
        fine_tuned(family, tmp_path / "teacher", tagging=case is TAGS, labels=case.labels)
    else:
        case.teacher(tmp_path / "teacher", family)
    train(
        *("first-tier", tmp_path / "teacher", "--task", case.name, "--train", rows, "--output", tmp_path / "tier1"),
        *("--kind", "transformer", "--layers", 1, "--width", 8, "--epochs", 1, "--learning-rate", 1e-9),
        ok=True,
    )
    kind: Any = AutoModelForTokenClassification if case is TAGS else AutoModelForSequenceClassification
    student = kind.from_pretrained(tmp_path / "tier1")
    assert (student.config.model_type, student.config.type_vocab_size) == ("bert", 2)
    teacher = teacher_of(tmp_path / "teacher", case.model)
    table = teacher.vectors(torch.arange(teacher.vocabulary))
    near = torch.pdist(student.get_input_embeddings().weight.detach()[:50]).numpy()
    assert np.corrcoef(near, torch.pdist(table[:50]).numpy())[0, 1] > 0.7


@pytest.mark.parametrize("kind", ["texts", "tags", "pairs", "ngrams"])
def test_a_static_tier_keeps_the_pieces_of_its_texts(kind: str, tmp_path: Path) -> None:
    case = TAGS if kind == "tags" else TEXTS
    teacher = case.teacher(tmp_path / "tier2", "roberta")
    records = [row | ({"text_pair": "a story"} if kind == "pairs" else {}) for row in case.rows]
    given = ("--task", case.name, "--train", write(tmp_path / "rows.jsonl", records), "--vocabulary", 1, "--epochs", 1)
    sizes = ("--width", 8, "--hidden", 8, *(("--kind", "ngrams") if kind == "ngrams" else ()))
    train("first-tier", tmp_path / "tier2", *given, "--output", tmp_path / "tier1", *sizes, ok=True)
    model: Any = StaticForTokenClassification if case is TAGS else StaticForSequenceClassification
    student = model.from_pretrained(tmp_path / "tier1")
    words = [row[case.item] if case is TAGS else row[case.item].split() for row in records]
    wanted = {"[CLS]", "[SEP]", *(word for own in words for word in own), *(["story"] if kind == "pairs" else [])}
    tokens = [tiny.tokenizer().id_to_token(int(own)) for own in (student.places < student.rows).nonzero()]
    assert set(tokens) == wanted
    grams = 16_384 if kind == "ngrams" else 0
    assert student.embeddings.weight.shape == (len(wanted) + grams, 8)
    assert (student.config.vocab_size, student.config.separator) == (teacher.vocabulary, 3 if kind == "pairs" else None)
    items = [row[case.item] if kind != "pairs" else (row["text"], row["text_pair"]) for row in records]
    options = ExportOptions(agreement=0)
    bundle = export_bundle(
        *(tmp_path / "tier2", tmp_path / "tier1", tmp_path / "bundle"), calibration=Calibration(items), options=options
    )
    graph = onnx.load(bundle.path(bundle.manifest.tier1.file))
    assert max(max(tensor.dims, default=1) for tensor in graph.graph.initializer if len(tensor.dims) > 1) < 50 + grams


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--kind transformer --vocabulary 9", "--vocabulary must be left out of --kind transformer, got 9"),
        (
            "--kind ngrams --reach 1",
            "--kind ngrams must be for texts and without --reach, got --reach 1; use --kind st",
        ),
        ("--kind ngrams --task tagging", "without --reach, got --task tagging; use --kind static"),
    ],
)
def test_what_a_kind_does_not_have_is_refused(given: str, message: str, tmp_path: Path) -> None:
    refused(train("first-tier", tmp_path, *given.split(), "--train", "x.jsonl", "--output", tmp_path), message)


def test_the_loss_by_hand() -> None:
    """Two texts, the second without a label: 0.7 of the mean divergence, 0.3 of the first's cross-entropy, over two."""
    logits, teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    batch = {"labels": torch.tensor([1, -100]), "teacher": teacher}
    wanted, found = teacher[1].softmax(-1), logits[1].softmax(-1)
    divergence = float((wanted * (wanted / found).log()).sum()) / 2
    loss = _loss(FirstTierOptions(temperature=1.0), multi_label=False)
    assert float(loss(logits.unsqueeze(1), batch)) == pytest.approx(0.7 * divergence + 0.3 * np.log(2) / 2, abs=1e-6)
    assert float(loss(logits[:1].unsqueeze(1), {"labels": torch.tensor([1])})) == pytest.approx(np.log(2), abs=1e-6)


def test_more_layers_than_the_teacher_has(case: Case, rows: Path, tmp_path: Path) -> None:
    case.teacher(tmp_path / "teacher")
    given = ("--task", case.name, "--train", rows, "--output", tmp_path / "out", "--kind", "transformer", "--layers", 9)
    refused(train("first-tier", tmp_path / "teacher", *given), "--layers must be 1 to 3, got 9")
