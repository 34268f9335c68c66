from __future__ import annotations

import os
import re
import socket
import stat
import threading
from pathlib import Path

import pytest

from cascade.core.files import refuse_same_file, staged, text_stream, write
from cascade.exceptions import OptionError


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
    with pytest.raises(OptionError, match=rf"can be written, got {re.escape(str(file))} \(No such file.*name another"):
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
