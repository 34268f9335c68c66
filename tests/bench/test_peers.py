"""Systems in processes of their own: the protocol, what fails in its place, the whole command on a tiny checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from cascade.bundle.writing import copy_bundle
from cascade.exceptions import OptionError
from cascade.pipelines.loading import load
from cascade.policies import AtExit
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade_bench.peers.running import Peers, compare
from cascade_bench.systems.baselines import BASELINES
from cascade_bench.systems.conversion import MAKERS, Padded, converted
from cascade_bench.systems.local import answered
from cascade_bench.systems.process import Job, WorkerError
from cascade_bench.systems.transformers_pipeline import TransformersPipeline
from cascade_bench.systems.worker import answer
from cascade_bench.table.data import Data
from cascade_bench.table.measuring import Table
from cascade_export import ExportOptions, export_bundle
from tests.bench.conftest import Run, bare, far_end, given, numbered, write_lines
from tests.models import tiny

# A far end whose kinds need no library: `echo` answers with the batch size, the others fail in their own ways.
FAR_END = """
import os, sys, time
from cascade_bench.systems.process import WorkerError
from cascade_bench.systems.worker import obey

def echo(job):
    print("a library that prints")
    return lambda texts, size: [f"{text} {size}" for text in texts]

def broken(job):
    raise ValueError("no such\\nmodel")

def refused(job):
    raise WorkerError("this CPU has no bf16")

def dies(job):
    def model(texts, size):
        sys.stderr.write("out of memory\\n")
        sys.stderr.flush()
        os._exit(9)
    return model

def slow(job):
    time.sleep(60)

loaders = dict(full=echo, cascade=echo, transformers=echo)
loaders |= {"onnxruntime-int8": broken}
loaders |= dict(openvino=refused, optimum=dies, slow=slow)
obey(loaders)
"""


start = partial(far_end, FAR_END)
TEXTS = ["aa", ["b", "cccc"], "d"]


def test_load_run_quit(job: Job) -> None:
    given(job, TEXTS)
    with start() as process:
        assert process.load("full", job)["seconds"] >= 0
        seconds, labels = process.run(batch_size=8)
        assert labels == ["aa 8", "('b', 'cccc') 8", "d 8"]
        assert process.run(batch_size=8, by_length=True)[1] == labels
        assert process.run(batch_size=2, some=2)[1] == ["aa 2", "d 2"]
        assert 0 < seconds < 60  # a busy machine may take its time
        peak = process.quit()
        assert peak is None or 5 < peak < 2000
        with pytest.raises(WorkerError, match="its process has ended"):
            process.run(batch_size=8)


def test_longest_first_and_back_again() -> None:
    seen: list[object] = []

    def model(texts: Sequence[object], _size: int) -> list[object]:
        seen.extend(texts)
        return list(seen)

    assert answer(model, ["aa", ("b", "cccc"), "d"], 1, by_length=True) == ["aa", ("b", "cccc"), "d"]
    assert seen == [("b", "cccc"), "aa", "d"]


@pytest.mark.parametrize(
    ("kind", "message"), [("onnxruntime-int8", "ValueError: no such model"), ("openvino", "this CPU has no bf16")]
)
def test_a_fault_is_one_line_and_the_process_lives_on(job: Job, kind: str, message: str) -> None:
    given(job, TEXTS)
    with start() as process:
        with pytest.raises(WorkerError) as fault:
            process.load(kind, job)
        assert str(fault.value) == message
        process.load("full", job)


def test_a_process_that_dies_says_its_last_words(job: Job) -> None:
    given(job, TEXTS)
    with start() as process:
        process.load("optimum", job)
        with pytest.raises(WorkerError, match="its process ended with status 9: out of memory"):
            process.run(batch_size=1)


def test_a_process_that_takes_too_long_is_ended(job: Job) -> None:
    given(job, TEXTS)
    with start(limit=1.0) as process, pytest.raises(WorkerError, match="it took longer than 1 s"):
        process.load("slow", job)


def test_what_fails_is_reported_and_the_rest_go_on(job: Job) -> None:
    kinds = [
        bare("full"),
        bare("transformers"),
        bare("onnxruntime-int8"),
        bare("optimum"),
        bare("openvino", needs=("no_such_module", "no_such.module"), install="pip install it"),
    ]
    data = numbered("text 0 0", "text 1 0", "wrong")
    peers = Peers(job, data.items, sizes=(4, 8), start=lambda _: start())
    made = compare(kinds, peers, data, repeats=2, pause=0.0)
    assert [(row.key, row.order) for row in made.rows] == [
        ("full", "own order"),
        ("transformers", "as given"),
        ("transformers-by-length", "by length"),
    ]
    reasons = {
        "onnxruntime-int8": "failed: ValueError: no such model",
        "optimum": "failed: its process ended with status 9: out of memory",
        "openvino": "not installed: no_such_module, no_such.module; pip install it",
    }
    assert made.absent == {BASELINES[key].name: reason for key, reason in reasons.items()}
    full, pipeline, _ = made.rows
    assert full.accuracy == pytest.approx(2 / 3)
    assert (full.agreement, full.batch) == (1.0, None)
    assert (pipeline.accuracy, pipeline.agreement) == (0.0, 0.0)  # the echo names the batch size
    assert pipeline.batch in (4, 8)
    assert full.over_full is not None
    assert full.over_full.median == 1
    assert all(len(row.seconds) == 2 for row in made.rows)


def test_none_runs(job: Job) -> None:
    peers = Peers(job, ["text 0"], start=lambda _: start())
    with pytest.raises(OptionError, match=r"one system at least must run, none did \(.*no such model\)"):
        compare([bare("onnxruntime-int8")], peers, numbered("a"), repeats=1, pause=0.0)


TEXTS_OF_WORDS = [*tiny.TEXTS, *(" ".join(tiny.WORDS[number:][:4]) for number in range(30))]
SENTENCES = [["good"], ["a", "very", "xylophones", "film"], ["the", "plot", "is", "dull"], ["not", "bad", "bad"] * 9]


@pytest.mark.parametrize("make", [tiny.tier2, partial(tiny.tier1_transformer, seed=5), tiny.tagger])
def test_every_installed_peer_answers_as_the_checkpoint(
    tmp_path: Path, job: Job, make: Callable[[Path], object]
) -> None:
    checkpoint, tagging = tmp_path / "checkpoint", make is tiny.tagger
    checkpoint.mkdir()
    make(checkpoint)
    given(job, SENTENCES if tagging else [*tiny.TEXTS, ("good", "bad " * 50)])
    job = replace(job, checkpoint=str(checkpoint), threads=torch.get_num_threads(), tagging=tagging)
    kinds = [kind for kind in BASELINES.values() if not kind.own and not kind.missing]
    assert {"transformers", "onnxruntime"} <= {kind.key for kind in kinds}
    for name in ("plain.json", "model.onnx", "model_quantized.onnx"):  # a process would import torch for each
        MAKERS[name](job)
    expected = list(BASELINES["transformers"].load(job)(job.items(), 4))
    assert make is not tiny.tier2 or set(expected) == set(tiny.LABELS)
    for kind in kinds:
        found = list(kind.load(job)(job.items(), 3))
        if "int8" not in kind.name and "bf16" not in kind.name:
            assert found == expected, kind.key
        elif not tagging:
            assert set(found) <= set(tiny.LABELS)
        if tagging:
            assert [len(tags) for tags in found] == [len(words) for words in SENTENCES], kind.key


def test_tags_stand_at_first_pieces() -> None:
    padded = Padded(tiny.tokenizer(), tiny.TAGS, tagging=True)
    words = ["good", "xylophones", "film"]
    made = padded.encoded([words])
    assert len(made[0].ids) > len(words) + 2  # or nothing is tested
    logits = np.zeros((1, len(made[0].ids), len(tiny.TAGS)), dtype=np.float32)
    firsts = [made[0].word_ids.index(word) for word in range(3)]
    for tag, place in enumerate(firsts):
        logits[0, place, tag] = 1
    assert padded.answers(logits, made, [words]) == [list(tiny.TAGS[:3])]


def test_several_labels() -> None:
    padded = Padded(tiny.tokenizer(), ("a", "b"), multi_label=True)
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0], [-1.0, -1.0]]).numpy()
    assert padded.answers(logits, [], []) == [("a",), ("a", "b"), ()]


def test_without_labels_and_in_markdown(
    run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_kinds: object, _peers: object, data: Data, **_options: object) -> Table:
        return Table((), data)

    monkeypatch.setattr("cascade_bench.peers.cli.compare", nothing)
    file = write_lines(tmp_path / "texts.jsonl", [{"text": "good film"}, {"text": "bad plot"}])
    done = run("peers", bundle, "--data", file, "--checkpoint", "x", "--markdown")
    assert done.status == 0, done.err
    assert done.out.startswith("| system | agreement |")
    assert "\nThe file has no labels: agreement with tier 2 at full depth is reported, not accuracy." in done.out


@pytest.mark.parametrize("tagging", [False, True])
def test_a_bundle_beside_the_model_that_it_was_built_from(run: Run, tmp_path: Path, tagging: bool) -> None:
    own, exits, written = tmp_path / "own", tmp_path / "exits", tmp_path / "peers.json"
    kind: Any = AutoModelForTokenClassification if tagging else AutoModelForSequenceClassification
    labels = tiny.TAGS if tagging else ("c", "a", "b")
    torch.manual_seed(1)
    tiny.kept(kind.from_config(tiny.named(tiny.config(), labels, None)), own)
    multi_exit: Any = MultiExitTagger if tagging else MultiExitModel
    multi_exit.from_checkpoint(own, labels=labels).save_pretrained(exits)
    (exits / "tokenizer.json").write_bytes((own / "tokenizer.json").read_bytes())
    full = export_bundle(exits, None, tmp_path / "full", options=ExportOptions(int8=False))
    copy_bundle(full, tmp_path / "bundle", policies=replace(full.manifest.policies, exits=(AtExit(2),)))
    items = [text.split() for text in TEXTS_OF_WORDS] if tagging else TEXTS_OF_WORDS
    file = write_lines(tmp_path / "new.jsonl", [{"tokens" if tagging else "text": item} for item in items])
    given = ("peers", tmp_path / "bundle", "--data", file, "--repeats", 1, "--threads", 1)
    done = run(*given, "--original", own, "--json", written)
    assert done.status == 0, done.err
    found = {entry["name"]: entry["extra_info"]["unlike"] for entry in json.loads(written.read_text())["benchmarks"]}
    assert list(found) == ["full", "cascade", "transformers", "transformers-by-length"]
    assert (found["full"], found["transformers"], found["transformers-by-length"]) == (0.0, 0.0, 0.0)
    wanted = TransformersPipeline.load(own, threads=1, max_length=64, tagging=tagging).labels(items, batch_size=4)
    answers = answered(load(tmp_path / "bundle", threads=1), items).labels
    assert found["cascade"] == np.mean([one != other for one, other in zip(answers, wanted, strict=True)]) > 0
    assert f"{found['cascade']:.2%}" in done.out
    for more, got in (((), "none"), (("--original", own, "--checkpoint", own), "both")):
        assert f"one of --checkpoint and --original must be given, got {got}" in run(*given, *more).err


def test_bad_use(run: Run, bundle: Path, data: Path) -> None:
    given = ("peers", bundle, "--data", data, "--checkpoint", "x")
    assert "--single" in run(*given, "--single", "-1").err


def test_every_baseline_says_how_to_install_it() -> None:
    assert all(kind.install for kind in BASELINES.values() if kind.needs)


def test_files_are_made_once_and_a_fault_is_told(job: Job, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--checkpoint must be a folder or Hub id with a model for transformers, got"):
        converted(replace(job, checkpoint=str(tmp_path / "nothing")), "model.onnx")
    for name in ("plain.json", "model.onnx"):
        (Path(job.folder) / name).write_text("made")
    assert Path(converted(job, "model.onnx")).read_text() == "made"
