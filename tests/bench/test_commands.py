"""What all commands share: an example in their help, a light start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cascade.training.build.finishing import composed
from cascade_bench.systems.local import Model
from tests.bench.conftest import Run


@pytest.mark.parametrize("command", ["", "table", "curve", "peers", "compare"])
def test_help_has_an_example(run: Run, command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.status == 0
    assert f"cascade-bench {command}" in done.out.split("Example:")[1]


@pytest.mark.parametrize("command", ["table", "curve", "peers"])
def test_a_file_that_is_read_is_not_written_over(run: Run, bundle: Path, data: Path, command: str) -> None:
    more: dict[str, tuple[object, ...]] = {"peers": (bundle, "--checkpoint", "x")}
    before = data.read_bytes()
    done = run(command, *more.get(command, (bundle,)), "--data", data, "--json", data)
    assert "an output must be another file than the input" in done.err
    assert data.read_bytes() == before


@pytest.mark.parametrize("command", ["table", "curve"])
def test_a_cascade_has_two_tiers(run: Run, classifier: Model, data: Path, tmp_path: Path, command: str) -> None:
    single = composed(tmp_path / "single", classifier.bundle, None).folder
    done = run(command, single, "--data", data)
    assert "Error: a cascade must have 2 tiers, got 1 in" in done.err


def test_commands_load_no_extra_unasked() -> None:
    code = "import sys, cascade_bench.cli\nprint([name for name in ('onnx', 'psutil', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


INSTALL = 'pip install "cascade-encoder[bench]"'
PIPELINE = f"comparing with transformers needs the extra bench, but torch is missing; {INSTALL}"
NONE = (
    f"one system at least must run, none did (transformers pipeline, fp32: not installed: torch; {INSTALL}); install "
    "one, or mend the checkpoint"
)


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("torch", ("table", "--checkpoint", "x"), PIPELINE),
        ("torch", ("peers", "--checkpoint", "x", "--only", "transformers"), NONE),
    ],
)
def test_the_extra_is_named_where_it_is_missing(
    run: Run,
    bundle: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    arguments: Sequence[str],
    said: str,
) -> None:
    monkeypatch.chdir(data.parent)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "cascade_bench.systems.transformers_pipeline", raising=False)
    command, *options = arguments
    done = run(command, bundle, "--data", data, *options)
    assert (done.status, done.out, done.err) == (2, "", f"Error: {said}\n")
