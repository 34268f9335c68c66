from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

import cascade as package
from cascade.cli.show import clipped, duration, route_in_words, size
from cascade.core.console import finish, table
from cascade.core.results import Route
from cascade.exceptions import BundleNotFoundError, CascadeWarning, CertificateWarning, DataError
from tests.models.cli import Command


def test_version(run: Command) -> None:
    assert run("--version").out == f"cascade {package.__version__}\n"


@pytest.mark.parametrize("command", [(), ("predict",), ("inspect",), ("demo",), ("tune",)])
def test_help_has_a_worked_example(run: Command, command: tuple[str, ...]) -> None:
    done = run.well(*command, "--help")
    assert "Example:\n" in done.out
    assert "cascade " in done.out.split("Example:\n")[1]


def test_nothing_is_help(run: Command) -> None:
    done = run()
    assert done.status == 2
    assert "Commands:" in done.err


@pytest.mark.parametrize("arguments", [("explode",), ("--explode",)])
def test_unknown_words_are_one_line(run: Command, arguments: tuple[str, ...]) -> None:
    assert re.search(r"^Error: No such .*\(see cascade --help\)\n$", run.refused(*arguments))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("rule\n  value; remedy"), "Error: rule value; remedy"),
        (BundleNotFoundError("no bundle"), "Error: no bundle"),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), "Error: x.csv: No such file or directory"),
        (PermissionError(13, "Permission denied"), "Error: Permission denied"),
        (OSError("the network is down"), "Error: the network is down"),
    ],
)
def test_errors_are_one_line_and_status_2(capsys: pytest.CaptureFixture[str], error: Exception, said: str) -> None:
    @click.command()
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        finish(fail, [])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"{said}\n"


@pytest.mark.parametrize("asked", [[], ["default"]])
def test_own_warnings_take_one_line_and_others_are_shown_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    @click.command()
    def warn() -> None:
        warnings.warn("rule;\n  remedy", CertificateWarning, stacklevel=1)
        warnings.warn("also", CascadeWarning, stacklevel=1)
        warnings.warn("elsewhere", UserWarning, stacklevel=1)

    shown: list[str] = []
    monkeypatch.setattr(sys, "warnoptions", asked)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", lambda message, *place, **more: shown.append(str(message)))
        with pytest.raises(SystemExit) as end:
            finish(warn, [])
    assert end.value.code == 0
    assert capsys.readouterr().err == "Warning: rule; remedy\nWarning: also\n"
    assert shown == (["elsewhere"] if asked else [])


@pytest.mark.parametrize(
    ("before", "sent", "status", "said"),
    [
        ("", "SIGTERM", 143, "Terminated.\n"),
        ("signal.signal(signal.SIGHUP, signal.SIG_DFL)", "SIGHUP", 129, "Hung up.\n"),  # also where tests ignore it
        ("signal.signal(signal.SIGHUP, signal.SIG_IGN)", "SIGHUP", 0, ""),  # nohup
    ],
)
def test_signals_end_a_command_with_everything_cleared_away(
    tmp_path: Path, before: str, sent: str, status: int, said: str
) -> None:
    code = (
        "import click, os, signal\nfrom cascade.core.console import finish\n"
        "from cascade.core.files import text_stream\n"
        f"{before}\n@click.command()\ndef work():\n    with text_stream('out') as out:\n"
        f"        out.write('some')\n        os.kill(os.getpid(), signal.{sent})\n        input()\nfinish(work, [])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, input="\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, said)
    assert [file.name for file in tmp_path.iterdir()] == ([] if status else ["out"])


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_is_no_error(lines: int) -> None:
    code = (
        "import click\nfrom cascade.core.console import finish\n@click.command()\ndef talk():\n"
        f"    input()\n    for line in range({lines}):\n        click.echo(line)\nfinish(talk, [])"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.close()
        process.stdin.write("go on\n")
        process.stdin.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == ""


def test_what_has_no_encoding_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def talk() -> None:
        click.echo("é \ud800")

    with pytest.raises(SystemExit) as end:
        finish(talk, [])
    assert end.value.code == 0
    assert capsys.readouterr().out == "é \\ud800\n"


def test_a_fault_of_the_program_is_not_hidden() -> None:
    @click.command()
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        finish(fail, [])


@pytest.mark.parametrize(
    ("door", "arguments", "extra"),
    [
        ("cascade.cli.doors import train", ["exits", "--help"], "train"),
        ("cascade.cli.doors import export", ["--tier2", "a", "--tier1", "b", "--output", "c"], "export"),
        ("cascade.cli import main", ["calibrate", "m", "--data", __file__], "calibrate"),
        ("cascade.cli import main", ["build", "m", "--texts", "f", "--output", "b"], "train,export,calibrate"),
    ],
)
def test_commands_without_their_extra_end_in_one_line(door: str, arguments: list[str], extra: str) -> None:
    done = without_extras(door, arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert done.stderr.endswith(f'pip install "cascade-encoder[{extra}]"\n')
    assert done.stderr.count("\n") == 1


def test_texts_of_a_build_may_come_from_a_pipe(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read more than once, so what it gives is copied."""

    def build(model: str, texts: list[Path], output: Path, **_: object) -> SimpleNamespace:
        return SimpleNamespace(line=" ".join(file.read_text().strip() for file in texts * 2), certified=True)

    monkeypatch.setattr("cascade.training.build.build", build)
    (tmp_path / "a.txt").write_text("one\n")
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_text, args=("two\n",), daemon=True).start()
    texts = ("--texts", tmp_path / "a.txt", "--texts", tmp_path / "pipe")
    assert run.well("build", "m", *texts, "--output", tmp_path / "out").out == "one two one two\n"


def test_help_needs_no_extra() -> None:
    done = without_extras("cascade.cli import main", ["calibrate", "--help"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "cascade calibrate models/sentiment --data" in done.stdout


def without_extras(door: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\n"
        "for name in ('accelerate', 'onnx', 'optimum', 'scipy', 'torch', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        f"from {door} as command\nsys.argv[1:] = {arguments!r}\ncommand()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_what_is_shown_in_few_characters() -> None:
    assert clipped("a gripping film", 15) == "a gripping film"
    assert clipped("a gripping film", 10) == "a gripp..."
    assert clipped("two\nlines", 20) == "two lines"
    assert [duration(seconds) for seconds in (0.0042, 0.123, 0.9996, 3.21)] == ["4.2 ms", "123 ms", "1000 ms", "3.2 s"]
    assert [size(count) for count in (12, 2048, 13_000_000)] == ["12 B", "2.0 KiB", "12.4 MiB"]
    assert route_in_words(Route(1, 0, 0.9), 6) == "tier 1"
    assert route_in_words(Route(2, 3, 0.9), 6) == "tier 2, layer 3 of 6"


def test_table_aligns_what_is_seen() -> None:
    red = click.style("7", fg="red")
    assert click.unstyle(table(["word", "n"], [["a", "12"], ["long", red]], right=(1,))).splitlines() == [
        "word   n",
        "a     12",
        "long   7",
    ]
