"""What README and the pages under docs show exists: commands and their options, files, Python names, links."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from tests.test_floors import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "models" / "README.md"]
PROGRAMS = {
    "cascade": "cascade.cli.main:cascade",
    "cascade-train": "cascade.training.cli:train",
    "cascade-export": "cascade_export.cli:export",
    "cascade-bench": "cascade_bench.cli:bench",
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Command lines of the project in a page: in shell blocks, and in line with at least one option."""
    joined = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    joined += [
        " ".join(code.split()) for code in re.findall(r"`(cascade[- ][^`]*--[^`]*)`", page.read_text(encoding="utf-8"))
    ]
    return [line for line in joined if re.search(r"(^|[|;] *)cascade(-\w+)? ", line)]


def program(name: str) -> click.Command:
    module, _, attribute = PROGRAMS[name].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


def faults(line: str) -> list[str]:
    """Subcommands and options of a command line that do not exist."""
    found = []
    for part in re.split(r"\||;|&&", line.split("#", maxsplit=1)[0]):
        words = [word for word in shlex.split(part.replace("<(", " ").replace(")", " ")) if word not in {"<", ">"}]
        if not words or words[0] not in PROGRAMS:
            continue
        command, rest = program(words[0]), words[1:]
        while isinstance(command, click.Group) and rest:
            known = command.commands.get(rest[0])
            if known is None:
                break
            command, rest = known, rest[1:]
        if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found.append(f"{words[0]} has no {rest[0]}")
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        options |= {"--help", "--version"}
        found += [
            f"{part.strip()}: no {word}" for word in rest if word.startswith("--") and word.split("=")[0] not in options
        ]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    pytest.importorskip("torch")
    assert [fault for line in commands(page) for fault in faults(line)] == []


def test_commands_are_found() -> None:
    assert len(commands(ROOT / "README.md")) > 5
    assert faults("cascade predict models/pos --no-such-option 3") != []
    assert faults("cat x | cascade no-such-command") != []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_imports_in_examples_work(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cascade"):
                if node.module == "cascade.jobs.ray":
                    pytest.importorskip("ray")
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"\b(?:bench|cascade|export|tests)/[\w/]+\.(?:py|json)\b", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250
