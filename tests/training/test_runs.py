"""Runs that are interrupted, refused or repeated; what they keep and leave behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

from cascade.core import files
from cascade.training import loop
from cascade.training.checkpoint import spaced
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.run import Run
from tests.models import tiny
from tests.training.commands import CASES, SENTENCES, TEXTS, Done, exits, refused, report_of, train, write


def stop_after(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt training when the first checkpoint after this share of the steps was written."""
    save = loop._State.save

    def stop(state: loop._State, file: Path) -> None:
        save(state, file)
        if state.step >= share * state.total:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._State, "save", stop)


def same_weights(a: Path, b: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (a, b))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-6, rtol=1e-5)


def test_an_interrupted_run_goes_on_from_its_checkpoint(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, output, uncut = CASES[0], tmp_path / "cut", tmp_path / "uncut"
    options = ("--epochs", 3, "--average", 0.8)
    rows = write(tmp_path / "rows.jsonl", case.rows[::3])
    exits(case, backbone, rows, uncut, *options, ok=True)
    with monkeypatch.context() as patched:
        stop_after(0.6, patched)
        assert exits(case, backbone, rows, output, *options).status == 130
    assert not (output / "model.safetensors").exists()
    refused(
        exits(case, backbone, rows, output, *options),
        "--resume goes on, --overwrite starts again",
    )
    shutil.copytree(output, tmp_path / "later")
    done = exits(case, backbone, rows, tmp_path / "later", "--resume", *options, ok=True)
    assert "epoch 2.00" not in done.output
    assert "epoch 3.00" in done.output
    same_weights(uncut, tmp_path / "later")
    assert report_of(uncut)["scores"] == report_of(tmp_path / "later")["scores"]

    file = output / "run" / "stage_0" / loop.CHECKPOINT
    file.write_bytes(file.read_bytes()[:1000])
    for gone in (False, True):
        folder = tmp_path / f"gone {gone}"
        shutil.copytree(output, folder)
        if gone:
            (folder / "run" / "stage_0" / loop.CHECKPOINT).unlink()
        done = exits(case, backbone, rows, folder, "--resume", *options, ok=True)
        assert f"{loop.CHECKPOINT} cannot be read, so training starts at the first step: " in done.output
        assert "epoch 1.00" in done.output
        same_weights(uncut, folder)


def test_without_evaluation_rows_a_run_goes_on_within_an_epoch(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single epoch of a large model takes long: there are checkpoints after each fifth of the steps."""
    rows = write(tmp_path / "rows.jsonl", TEXTS)
    command = ("exits", backbone, "--train", rows, "--epochs", 1, "--batch-size", 8, "--average", 0.8, "--output")
    train(*command, tmp_path / "uncut", ok=True)
    with monkeypatch.context() as patched:
        stop_after(0.4, patched)
        assert train(*command, tmp_path / "cut").status == 130
    with safe_open(tmp_path / "cut" / "run" / "stage_0" / loop.CHECKPOINT, "pt") as file:
        assert 0 < json.loads(file.metadata()["state"])["step"] < len(TEXTS) / 8
    train(*command, tmp_path / "cut", "--resume", ok=True)
    same_weights(tmp_path / "uncut", tmp_path / "cut")


def test_what_the_teacher_said_is_kept_for_the_same_data_and_teacher(tmp_path: Path) -> None:
    """A marked file shows whether it was taken: of the same data and teacher it is, of others or cut it is not."""
    tagging = CASES[1]
    tagging.teacher(tmp_path / "teacher")
    rows = write(tmp_path / "rows.jsonl", SENTENCES)

    def run(epochs: int, *more: str) -> Done:
        given = ("--train", rows, "--output", tmp_path / "out", "--epochs", epochs, "--width", 8, *more)
        return train("first-tier", tmp_path / "teacher", "--task", "tagging", *given, ok=True)

    def kept() -> Path:
        (file,) = (tmp_path / "out" / "run").glob("teacher*.npy")
        return file

    run(1)
    np.save(kept(), np.zeros_like(np.load(kept())))
    run(2, "--resume")
    assert not np.load(kept()).any()
    kept().write_bytes(kept().read_bytes()[:200])
    assert "is made again, because it cannot be read" in run(3, "--resume").output
    assert np.load(kept()).any()
    np.save(kept(), np.zeros_like(np.load(kept())))
    write(rows, [{**row, "tokens": row["tokens"][::-1]} for row in SENTENCES])  # as many rows, other words
    run(4, "--resume")
    assert np.load(kept()).any()
    np.save(kept(), np.zeros_like(np.load(kept())))
    tiny.tagger(tmp_path / "teacher", seed=7)
    run(5, "--resume")
    assert np.load(kept()).any()
    assert not list((tmp_path / "out" / "run").glob("*.partial"))


def test_a_killed_publication_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tiny.tier2(tmp_path / "old"), tiny.tier2(tmp_path / "new", seed=9, pooling="first")
    output, text = tmp_path / "out", tiny.tokenizer().to_str()

    def write_model(model: MultiExitModel) -> None:
        Run(source=tmp_path / "old", train=(), output=output).publish(model, text, {})

    def contents() -> dict[str, bytes]:
        return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}

    write_model(old)
    (output / "run" / "stage_0").mkdir(parents=True)
    (output / "run" / "stage_0" / "model.safetensors").write_bytes(b"weights")
    (output / "notes.txt").write_text("mine")
    before = contents()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "give_name", die)
        with pytest.raises(KeyboardInterrupt):
            write_model(new)
    assert contents() == before
    write_model(new)
    assert MultiExitModel.from_pretrained(output).digest() == new.digest()
    others = {name: content for name, content in before.items() if name.startswith(("run/", "notes"))}
    assert len(others) == 2
    assert others.items() <= contents().items()
    assert contents().keys() == before.keys()
    assert {path.name for path in tmp_path.iterdir()} == {"old", "new", "out"}


def test_an_output_that_cannot_be_replaced_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.tier2(tmp_path / "teacher")
    rows = write(tmp_path / "rows.jsonl", TEXTS)
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for output in (".", tmp_path / "here"):
        done = train("exits", tmp_path / "teacher", "--train", rows, "--output", output)
        refused(done, "which is mounted or the current one; name a folder inside it")


def test_a_refused_command_leaves_its_output_free(tmp_path: Path) -> None:
    tiny.tier2(tmp_path / "teacher")
    rows = write(tmp_path / "rows.jsonl", TEXTS)
    bad = write(tmp_path / "bad.jsonl", [{"text": "good", "label": "a"}])
    for command in ("exits", "first-tier"):
        output = tmp_path / command
        given = (command, tmp_path / "teacher", "--train", rows, "--output", output, "--epochs", 1)
        refused(train(*given, "--eval", bad), "which the model does not have")
        assert not output.exists()
        (output / "run").mkdir(parents=True)  # as a crash leaves it
        train(*given, ok=True)
    refused(train("exits", tmp_path, "--train", rows, "--output", rows), "--output must be a folder, got a file")


def test_transformers_reads_byte_level_words_as_training_did(tmp_path: Path) -> None:
    inner = Tokenizer(models.BPE({piece: number for number, piece in enumerate(["<unk>", "Ġ", "a", "<s>"])}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "tokenizer_config.json").write_text('{"add_prefix_space": false, "kept": 1}')
    nothing = SimpleNamespace(save_pretrained=lambda _folder: None)
    Run(source=tmp_path / "source", train=(), output=tmp_path / "out").publish(nothing, spaced(inner.to_str()), {})
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written == {"add_prefix_space": True, "kept": 1}
