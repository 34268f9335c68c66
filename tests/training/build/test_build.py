from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

import cascade
from cascade.bundle.opening import open_bundle
from cascade.calibration.certify.claims import ORIGINAL
from cascade.exceptions import OptionError
from cascade.training.build import BuildOptions, choosing
from cascade.training.build.looking import look, read
from cascade.training.build.shares import Answered, Original, Shares
from cascade.training.build.work import SHARES, Work
from cascade.training.recipes import recorded
from tests.models.cli import Command
from tests.training.build.conftest import KINDS, OPTIONS, OTHERS, Case

Make = Callable[..., Case]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_and_texts_become_a_certified_bundle(kind: str, case: Make) -> None:
    own, told = case(kind), list[str]()
    built = own.build(tell=told.append)
    assert built.certified
    assert [line.split()[0] for line in told if "left out" not in line] == ["look", *made_of(kind)]
    assert {line.split()[0] for line in told} == {"look", *SHARES}
    assert not own.work.exists()
    checkpoint = look(own.model)
    texts = read(checkpoint, [own.file], OPTIONS)
    tags = kind.endswith("tags")
    shares = Shares.of(texts.items, OPTIONS.claim(tags=tags), seed=OPTIONS.seed)
    pipeline = cascade.load(own.output, threads=1)
    assert pipeline.labels == checkpoint.labels
    # What the certificate counted is what the bundle and the original say of the certifying share.
    logits = Original(checkpoint).record([texts.items[number] for number in shares.order.tolist()])
    others = len(shares.certify) + len(shares.choose)
    some = Answered.of(checkpoint, [texts.items[number] for number in shares.order.tolist()], logits, others=others)
    some = some.select(np.arange(len(shares.certify)))
    differ = ~some.alike(pipeline.predict(some.items).probabilities)
    if tags:
        differ = np.logical_or.reduceat(differ, np.cumsum([0, *map(len, some.items[:-1])]))
    certificate = open_bundle(own.output).manifest.certificate
    assert certificate is not None
    assert pipeline.certificate == certificate
    assert (certificate.events, certificate.examples) == (differ.sum(), len(shares.certify))
    assert ORIGINAL in certificate.claim
    page = (own.output / "report.html").read_text(encoding="utf-8")
    assert built.line.split(";")[0] in page
    # Beside each other, by what they are; on a busy machine none may seem worth timing.
    timed = re.findall(r"<td>([^<]*) first tier \(\d\)</td>", page)
    second = "your model" if kind in OTHERS else "(frozen|tuned) exits"
    assert all(re.fullmatch(f"{second}, (static|transformer|no)", name) for name in timed)


def made_of(kind: str) -> list[str]:
    """Steps that a model of this kind has: nothing between layers of other families, no first tier before a number."""
    gone = {"frozen", "tuned"} if kind in OTHERS else set()
    return [name for name in SHARES if name not in gone | ({"static", "transformer"} if "number" in kind else set())]


def test_a_build_that_is_interrupted_goes_on(case: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    own = case()
    options = BuildOptions(max_disagreement=0.2, threads=1, minutes=60, keep=True)
    whole = own.build(options)
    expected = exported(own.work)
    own.work.rename(own.work.with_suffix(".whole"))
    show, marks = Work._show, np.cumsum([0, *SHARES.values()])
    for number, name in enumerate(SHARES):
        told: list[str] = []
        middle = marks[number] + 0.2 * SHARES[name]

        def stop(work: Work, percent: float, middle: float = middle) -> None:
            show(work, percent)
            if percent >= middle:
                raise KeyboardInterrupt

        monkeypatch.setattr(Work, "_show", stop)
        with pytest.raises(KeyboardInterrupt):
            own.build(BuildOptions(**{**vars(options), "overwrite": True}), tell=told.append)
        assert [line.split()[0] for line in told[1:]] == list(SHARES)[:number]
        assert all(line.endswith("there already") for line in told[1:number])
        assert not (own.work / name / "done.json").exists()
    monkeypatch.setattr(Work, "_show", show)
    again = own.build(BuildOptions(**{**vars(options), "overwrite": True}))
    assert exported(own.work) == expected
    assert again.certified == whole.certified


def test_a_full_disk_is_said_and_what_is_done_is_kept(case: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    own, told = case(), list[str]()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(recorded, "over_units", full)  # in the second step
        with pytest.raises(OptionError, match=r"bundle.build must have room for the work, but it is full; make room"):
            own.build()
    assert sorted(path.name for path in own.work.iterdir() if path.is_dir()) == ["frozen.part", "original"]
    assert not own.output.exists()
    assert own.build(tell=told.append).certified
    assert told[1].endswith("there already")


def test_errors_of_a_full_disk_are_known(tmp_path: Path) -> None:
    work = Work(tmp_path, 1.0, print)
    assert work.is_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert work.is_full(SafetensorError("Error while serializing: I/O error: File too large (os error 27)"))
    assert not work.is_full(SafetensorError("Error while deserializing header"))
    work.close()


def exported(work: Path) -> dict[str, str]:
    """Hashes of all graphs that the candidates are made of."""
    found: dict[str, str] = {}
    for name in ("frozen", "tuned"):
        files = json.loads((work / "export" / name / "cascade.json").read_text())["files"]
        found |= {f"{name}/{path}": record["sha256"] for path, record in files.items() if path.endswith(".onnx")}
    return found


def test_where_nothing_pays_the_bundle_is_full_depth(case: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "PAYS", float("inf"))
    own = case()
    built = own.build()
    assert built.certified
    assert "run your model packed in int8" in built.line
    pipeline = cascade.Classifier.from_pretrained(own.output, threads=1)
    assert len(pipeline.tiers) == 1
    assert set(pipeline.predict(own.items).routes.exit_layer.tolist()) == {3}


def test_a_bound_on_accuracy_takes_labels(case: Make, tmp_path: Path) -> None:
    from tests.training.build.conftest import LABELS, write

    own = case()
    file = write(tmp_path / "labelled.txt", own.items, [LABELS[len(item) % 4] for item in own.items])
    built = Case(own.kind, own.model, file, own.items, own.output).build(
        BuildOptions(max_drop=0.2, threads=1, minutes=60)
    )
    assert built.certified
    certificate = open_bundle(own.output).manifest.certificate
    assert certificate is not None
    assert certificate.claim.startswith("accuracy is at most 20 points below that of the original model")


def test_the_command(case: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    own, run = case(), Command(capsys, monkeypatch)
    done = run(
        *("build", own.model, "--texts", own.file, "--output", own.output, "--max-disagreement", "0.2"),
        *("--threads", "1", "--minutes", "60", "--no-progress"),
    )
    assert done.status == 0, done.err
    assert done.out.startswith(f"{own.output}: ")
    assert "cascade predict" in done.err
    again = run.refused("build", own.model, "--texts", own.file, "--output", own.output)
    assert "must be a new or empty folder" in again
