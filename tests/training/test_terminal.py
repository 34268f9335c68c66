"""What a user sees of a command: its own lines, and nothing of the libraries below."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cascade.core.console import QUIET
from tests.training.commands import TEXTS, fine_tuned, write

COMMANDS = """
import json, sys
from cascade.cli import doors

for door, *arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        getattr(doors, door)()
    except SystemExit as end:
        assert not end.code
"""


def test_nothing_of_other_libraries_reaches_the_terminal(tmp_path: Path) -> None:
    """From a stock checkpoint, of whose weights transformers says much, to a bundle."""
    fine_tuned("bert", tmp_path / "mine")
    rows = write(tmp_path / "rows.jsonl", TEXTS[::6])
    common = ("--train", rows, "--eval", rows, "--epochs", 2)
    commands = [
        ("train", "exits", tmp_path / "mine", *common, "--output", tmp_path / "tier2"),
        ("train", "first-tier", tmp_path / "tier2", *common, "--copies", 0, "--output", tmp_path / "tier1"),
        ("export", "--tier2", tmp_path / "tier2", "--tier1", tmp_path / "tier1", "--output", tmp_path / "bundle"),
    ]
    env = {name: value for name, value in os.environ.items() if name not in QUIET} | {"TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands, default=str)],
        env={name: value for name, value in env.items() if name != "PYTHONWARNINGS"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    own = ("epoch ", "wrote ", "  tier ", f"{tmp_path / 'bundle'}: ")
    assert [line for line in done.stdout.splitlines() if not line.startswith(own)] == []
    assert done.stdout.count("epoch ") == 4
