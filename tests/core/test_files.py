from __future__ import annotations

import ast
import errno
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascade.core import files
from cascade.core.files import refuse_same_file, staged, staged_folder, text_stream, write
from cascade.exceptions import CascadeWarning, OptionError

ROOT = Path(__file__).parents[2]


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "new", "é\n")
    finally:
        os.umask(before)
    assert (tmp_path / "new").read_bytes() == b"\xc3\xa9\n"
    assert mode(tmp_path / "new") == 0o640
    assert names(tmp_path) == ["new"]


@pytest.mark.parametrize("kept", [0o600, 0o444, 0o755])
def test_the_mode_of_a_file_stays(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "old"
    file.write_text("old")
    file.chmod(kept)
    write(file, b"new")
    assert (file.read_bytes(), mode(file)) == (b"new", kept)


@pytest.mark.parametrize("there", [False, True])
def test_a_link_is_followed(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    if there:
        target.write_text("old")
    link.symlink_to("far/target")
    write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert (names(tmp_path), names(tmp_path / "far")) == (["far", "link"], ["target"])


@pytest.mark.parametrize("linked", [False, True])
def test_a_fifo_is_written_to_and_stays(tmp_path: Path, linked: bool) -> None:
    fifo = output = tmp_path / "fifo"
    os.mkfifo(fifo)
    if linked:
        output = tmp_path / "link"
        output.symlink_to(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    with text_stream(output) as stream:
        stream.write("through\n")
    reader.join(10)
    assert read == [b"through\n"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert output.is_symlink() == linked


def test_a_link_to_a_device_stays(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(os.devnull)
    with staged(link) as path:  # where this fails, the device that a rename would destroy is not touched
        assert path == link
    write(link, "nothing")
    assert os.readlink(link) == os.devnull  # noqa: PTH115
    assert stat.S_ISCHR(link.stat().st_mode)


@pytest.mark.parametrize("interrupt", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_the_old_file_stays_whatever_happens(tmp_path: Path, interrupt: type[BaseException]) -> None:
    file = tmp_path / "old"
    file.write_text("old")

    def half() -> None:
        with text_stream(file) as stream:
            stream.write("half")
            stream.flush()
            assert len(names(tmp_path)) == 2
            raise interrupt

    with pytest.raises(interrupt):
        half()
    assert file.read_text() == "old"
    assert names(tmp_path) == ["old"]


def test_folders_and_sockets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^an output must be a file, got a folder: .*; name a file$"):
        write(tmp_path, "")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(OptionError, match="got a socket"):
            write(tmp_path / "s", "")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none" / "file"
    with pytest.raises(
        OptionError, match=rf"must be writable, got {re.escape(str(file))} \(No such file.*name another"
    ):
        write(file, "")
    with pytest.raises(FileNotFoundError) as caught, staged(file):
        pass
    assert caught.value.filename == str(file)


def test_a_long_name_and_lone_surrogates(tmp_path: Path) -> None:
    name = "é" * 127
    write(tmp_path / name, "é \ud800")
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == "é \\ud800"


def test_the_input_is_no_output(tmp_path: Path) -> None:
    one, other, link = tmp_path / "one", tmp_path / "other", tmp_path / "link"
    one.touch()
    link.symlink_to(one)
    refuse_same_file(one, [other, tmp_path])
    refuse_same_file(other, [one, other])
    refuse_same_file(os.devnull, [os.devnull])
    for output, given in ((one, one), (link, one), (one, link), (f"{tmp_path}/../{tmp_path.name}/one", str(one))):
        with pytest.raises(OptionError, match=r"^an output must be another file than the input, got .*; name another"):
            refuse_same_file(output, [other, given])
    with one.open() as stream, pytest.raises(OptionError, match="another file"):
        refuse_same_file(link, [stream.fileno()])


def killed(code: str, folder: Path) -> None:
    """Run code in a process that ends itself by SIGKILL."""
    head = "import os, signal\nfrom pathlib import Path\nfrom cascade.core.files import *\n"
    die = "os.kill(os.getpid(), signal.SIGKILL)"
    ended = subprocess.run([sys.executable, "-c", head + code.replace("DIE", die)], cwd=folder, check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["out", "x" * 200])
def test_what_a_killed_run_left_is_cleared(tmp_path: Path, name: str) -> None:
    """By the next one that writes the same file, and by no other."""
    killed(f"with staged({name!r}) as path:\n    path.write_text('half')\n    DIE", tmp_path)
    (left,) = names(tmp_path)
    assert re.fullmatch(r"\..*\.[0-9a-f]{8}\.partial", left)
    write(tmp_path / f"{name}2", "")
    assert left in names(tmp_path)
    write(tmp_path / name, "whole")
    assert names(tmp_path) == [name, f"{name}2"]


def test_what_a_living_run_makes_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out"
    with text_stream(file) as stream:
        write(file, "inner")
        assert len(names(tmp_path)) == 2
        stream.write("outer")
    assert file.read_text() == "outer"
    (tmp_path / ".out.0123abcd.partial").touch()
    monkeypatch.setattr(files, "fcntl", None)  # without locks nobody knows who lives
    write(file, "more")
    assert names(tmp_path) == [".out.0123abcd.partial", "out"]


def test_a_file_that_is_a_mount_is_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    (tmp_path / "out").write_text("old")
    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path / "out", "new")
    assert ((tmp_path / "out").read_text(), names(tmp_path)) == ("new", ["out"])


def test_what_standard_output_goes_to_is_written_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    code = "from cascade.core.files import write; write('/dev/stdout', 'one\\n'); print('two')"
    with log.open("a") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert log.read_text() == "before\none\ntwo\n"
    assert names(tmp_path) == ["log"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder, and a link to it."""
    (tmp_path / "folder").mkdir(mode=0o750)
    (tmp_path / "folder" / "old").touch()
    (tmp_path / "link").symlink_to("folder")
    yield tmp_path / "folder"
    assert names(tmp_path) == ["folder", "link"]
    assert (tmp_path / "link").is_symlink()


def fill(folder: Path) -> None:
    with staged_folder(folder) as made:
        (made / "new").touch()


def test_a_folder_is_exchanged_in_one_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = folder / "one", folder / "other"
    one.mkdir()
    other.mkdir()
    if not files._exchanged(one, other):
        pytest.skip("this file system cannot")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", None)  # which would be two steps
        fill(folder.parent / "link")
    assert (names(folder), mode(folder)) == (["new"], 0o750)


def test_where_it_takes_two_steps_that_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    with pytest.warns(CascadeWarning, match=r"cannot be exchanged in one step here, .* there is no .*/folder; if this"):
        fill(folder)
    assert names(folder) == ["new"]
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.warns(CascadeWarning), pytest.raises(KeyboardInterrupt):
        fill(folder)
    assert names(folder) == ["new"]


def test_folders_of_killed_runs(folder: Path) -> None:
    killed("with staged_folder('link') as path:\n    (path / 'half').touch()\n    DIE", folder.parent)
    assert len(names(folder.parent)) == 3
    old = folder.with_name(".folder.0123abcd.old")
    folder.rename(old)  # killed between two steps
    files.clear(folder)
    assert names(folder) == ["old"]
    old.mkdir()  # killed after them
    fill(folder)
    assert names(folder) == ["new"]


APART = {  # what these write is temporary, or part of a folder that gets its name when it is whole
    "cascade/core/files.py", "cascade/bundle/writing.py", "cascade/training/run.py",
    "cascade/training/build/building.py", "cascade/training/build/work.py", "bench/systems/conversion.py",
    "bench/peers/running.py", "bench/systems/worker.py", "bench/compare.py", "cascade/text/sources.py",
    "cascade/jobs/leases.py",  # a lease is no output: it is there whole from its first moment, under its own name
}  # fmt: skip


def test_nothing_else_writes_files() -> None:
    """Or it goes through `staged`, or `durable`, which is that and fsync; they name the path that the block opens."""
    writes = re.compile(r"open\(.*'[bt]*[wax][bt+]*'|\.(write_text|write_bytes|rename|copyfile|copytree|move)\(")
    found = set()
    for source in (file for top in ("cascade", "bench", "export") for file in (ROOT / top).rglob("*.py")):
        text = source.read_text(encoding="utf-8")
        calls = [ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        if any(map(writes.search, calls)) and not re.search(r"\b(staged|durable)\(", text):
            found.add(source.relative_to(ROOT).as_posix())
    assert found - APART == set()
