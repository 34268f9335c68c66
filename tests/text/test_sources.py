"""Examples from packed files, pipes and streams; lines without end."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cascade.exceptions import DataError, MissingExtraError, OptionError
from cascade.text.reading import OnError, read_examples
from cascade.text.records import FileFormat
from cascade.text.sources import regular
from tests.text.files import PACK, write


@pytest.mark.parametrize(("name", "line"), [("a.txt", "%s\n"), ("a.jsonl", '{"text": "%s"}\n'), ("a.csv", "%s\n")])
def test_a_line_that_is_too_long_is_a_fault_of_that_line(tmp_path: Path, name: str, line: str) -> None:
    head = "text\n" if name == "a.csv" else ""
    most = 300_000 + len(line % "") - 1
    file = write(tmp_path / name, head + "".join(line % text for text in ("one", "x" * 300_000, "y" * 300_001, "four")))
    assert [len(str(example.text)) for example in read_examples(file)][-4:] == [3, 300_000, 300_001, 4]
    examples = list(read_examples(file, on_error=OnError.NULL, max_line=most))
    assert [example.text for example in examples] == ["one", "x" * 300_000, None, "four"]
    number = 4 if head else 3
    message = (
        rf"{name}, line {number}: a line must have at most {most:,} bytes \(max_line\), got more; correct the line"
    )
    with pytest.raises(DataError, match=message):
        list(read_examples(file, max_line=most))
    with pytest.raises(OptionError, match="max_line must be a whole number of at least 1, got 0; leave it out"):
        read_examples(file, max_line=0)


def test_a_line_without_end_takes_no_memory() -> None:
    class Zeros(io.RawIOBase):
        def readline(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 < size <= 100_000
            self.got = getattr(self, "got", 0) + size
            return b"\0" * size if self.got < 10_000_000 else b""

    zeros: Any = Zeros()
    with pytest.raises(DataError, match="line 1: a line must have at most 99,999 bytes"):
        list(read_examples(zeros, max_line=99_999))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_packed_files_that_are_cut_or_broken(tmp_path: Path, suffix: str) -> None:
    packed = PACK[suffix]("".join(f"text {number}\n" for number in range(3000)).encode())
    file = write(tmp_path / f"a.txt{suffix}", packed + packed)
    assert len(list(read_examples(file))) == 6000
    for content in (packed[:-20], packed + packed[:20], b"no such thing", packed + b"or such"):
        write(file, content)
        with pytest.raises(DataError, match=r"a\.txt\..* must be readable to its end, but: .*; check the file$"):
            list(read_examples(file))


def test_zstd_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"reading .zst needs pyarrow, .*; pip install 'cascade-encoder\[jobs"):
        list(read_examples(write(tmp_path / "a.csv.zst", b"")))


def test_a_pipe_has_a_path(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("one\ntwo\n",))
    writer.start()
    assert [example.text for example in read_examples(pipe)] == ["one", "two"]
    writer.join()


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"missing.jsonl must be a file of examples, but it is missing; check the path"):
        read_examples(tmp_path / "missing.jsonl")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(DataError, match="must be a file of examples, but Too many levels of symbolic links; check"):
        read_examples(tmp_path / "loop.txt")
    with pytest.raises(DataError, match="must be a file of examples, but it is a folder"):
        read_examples(tmp_path)
    file = write(tmp_path / "a.docx", "")
    with pytest.raises(OptionError, match=r"one of .txt, .jsonl, .* \.gz or \.zst\), got a.docx; rename it or"):
        read_examples(file)
    assert [example.text for example in read_examples(write(file, "a"), format=FileFormat.TEXT)] == ["a"]

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"a.docx must be readable, but: Permission denied; check its permissions"):
        list(read_examples(file, format=FileFormat.TEXT))


def test_streams_and_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [example.text for example in read_examples(io.StringIO("a\nb"))] == ["a", "b"]
    stream = io.BytesIO(b'{"text": "a"}\n')
    assert [example.text for example in read_examples(stream, format=FileFormat.JSONL)] == ["a"]
    assert not stream.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\nb\n"), encoding="utf-8"))
    examples = read_examples("-", on_error=OnError.NULL)
    assert [example.text for example in examples] == ["a", None, "b"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b""), encoding="utf-8"))
    with pytest.raises(DataError, match="standard input must hold at least one example"):
        list(read_examples(sys.stdin))
    with pytest.raises(DataError, match="the stream, line 1: a line must be JSON"):
        list(read_examples(io.StringIO("x"), format=FileFormat.JSONL))


@pytest.mark.parametrize(("name", "copied"), [("fifo", "fifo.txt"), ("1.5", "1.5.txt"), ("a.jsonl", "a.jsonl")])
def test_what_a_pipe_gives_can_be_read_again(tmp_path: Path, name: str, copied: str) -> None:
    (tmp_path / "file").touch()
    for other in ("file", "missing", "."):
        with regular(tmp_path / other) as found:
            assert found == tmp_path / other
    os.mkfifo(tmp_path / name)
    writer = threading.Thread(target=(tmp_path / name).write_text, args=("some\n",), daemon=True)
    writer.start()
    with regular(tmp_path / name) as found:
        assert (found.name, found.read_text(), found.read_text()) == (copied, "some\n", "some\n")
    assert not found.exists()
