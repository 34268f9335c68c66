"""Readers of files: what can be read is read, in order, and what cannot is told in one line."""

from __future__ import annotations

import gzip
from random import Random
from tempfile import NamedTemporaryFile

from hypothesis import strategies as st

from cascade.text.reading import Example, OnError, read_examples
from cascade.text.records import FileFormat
from tests.fuzz import fuzzed, tried
from tests.fuzz.texts import WRITERS, HostileFile, broken_file, hostile_file

FORMS = st.sampled_from([form for form in WRITERS if form in {one.value for one in FileFormat}])


def read(file: HostileFile, on_error: OnError = OnError.NULL) -> list[Example]:
    with NamedTemporaryFile(suffix=file.suffix) as written:
        written.write(file.content)
        written.flush()
        return list(read_examples(written.name, on_error=on_error))


@fuzzed(8, FORMS, st.booleans())
def test_good_lines_are_read_and_broken_ones_are_not(rng: Random, form: str, compressed: bool) -> None:
    file = hostile_file(rng, form, compressed=compressed)
    found = read(file)
    assert [example.text for example in found] == file.texts
    assert [example.text is None for example in found] == [example.error is not None for example in found]
    lines = [example.line for example in found]
    assert lines == sorted(set(lines))
    kept = [example for example in found if example.error is None]
    assert read(file, OnError.SKIP) == kept
    if len(kept) == len(found):
        assert read(file, OnError.STOP) == kept


@fuzzed(20, FORMS, st.booleans())
def test_altered_bytes_end_in_one_line(rng: Random, form: str, compressed: bool) -> None:
    file = broken_file(rng, form, compressed=compressed)
    found, _ = tried(lambda: read(file))
    if found is None:
        return
    lines = [example.line for example in found]
    assert lines == sorted(lines)
    kept = [example for example in found if example.error is None]
    assert [example.text for example in read(file, OnError.SKIP)] == [example.text for example in kept]
    stopped, refusal = tried(lambda: read(file, OnError.STOP))
    assert (stopped is not None) == (len(kept) == len(found))
    told = [str(example.error) for example in found if example.error is not None]
    assert not refusal or refusal.partition(", ")[2] == told[0].partition(", ")[2]  # names of files differ


def test_the_generators_make_what_they_say() -> None:
    """Both good and broken lines come up, and compressed files are."""
    made = [hostile_file(Random(seed), form, compressed=True) for seed in range(40) for form in WRITERS]
    texts = [one for file in made for one in file.texts or ()]
    assert 0.02 < sum(one is None for one in texts) / len(texts) < 0.4
    assert any(one and not one.isascii() for one in texts)
    assert all(gzip.decompress(file.content) for file in made)
