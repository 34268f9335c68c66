"""Thirty faults that users of other tools reported: each is no fault here, or is refused in one clear line.

Those with a test elsewhere:
 1  a library phones home                    runtime/test_backend.py        test_nothing_reports_home
 2  a forked child hangs                     runtime/test_backend.py        test_a_forked_child_ends
 3  preloaded workers hang                   pipelines/test_processes.py    test_preloaded_workers_start_answer_and_stop
 4  a pipeline cannot be pickled             pipelines/test_processes.py    test_pickles_are_equal_and_answer_the_same
10  an empty text gets a label like others   pipelines/test_odd_inputs.py   test_files_of_every_kind_say_what_is_empty
12  lone surrogates                          text/test_tokenizer.py         test_surrogates
13  special tokens that users type act     pipelines/test_odd_inputs.py  test_special_tokens_that_users_type_can_be_text
21  labels by position, not by number        training/test_models.py        test_labels_and_their_numbers
22  labels in another order than scores      training/test_examples.py      test_order_of_labels
24  checkpoints in half precision            training/test_loading.py       test_half_precision_is_read_as_fp32
25  int8 that answers otherwise              export/test_agreement.py        test_stages_that_disagree_go_back_to_fp32
26  int8 labels flip from CPU to CPU         test_golden.py                 test_golden_answers
29  a closed pipe is a traceback             cli/test_bundle.py             test_closed_streams
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from cascade import CascadeError, Classifier, DataError, Tagger
from cascade.policies.routing import defer_none
from cascade.text.reading import OnError, read_examples
from cascade.text.records import FileFormat
from tests.models.cli import Command, lines
from tests.models.toy import toy_bundle


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("reports") / "toy").folder


def texts_of(content: str, form: FileFormat, **options: Any) -> list[Any]:
    """What a stream of bytes holds."""
    stream = io.BytesIO(content.encode("utf-8", "surrogatepass"))
    return [example.text for example in read_examples(stream, format=form, **options)]


def test_05_a_field_of_csv_may_be_a_document(run: Command, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "huge.csv"
    file.write_text(f'id,text\n1,"{"good film " * 30_000}"\n2,bad\n')
    assert [line["line"] for line in lines(run.well("predict", folder, file).out)] == [2, 3]


def test_06_a_byte_order_mark_is_no_part_of_the_header() -> None:
    assert texts_of("\ufefftext,label\r\na,b\r\n", FileFormat.CSV) == ["a"]
    assert texts_of('\ufeff{"text": "a"}\n', FileFormat.JSONL) == ["a"]


def test_07_of_two_columns_of_one_name_none_wins() -> None:
    with pytest.raises(DataError, match=r"columns must be distinct, twice: \['text'\]; correct the header"):
        texts_of("text,text,id\na,b,1\n", FileFormat.CSV)


def test_08_the_words_null_and_nan_are_texts() -> None:
    assert texts_of("text,id\nNaN,1\nnull,2\nNone,3\nNA,4\n,5\n", FileFormat.CSV) == ["NaN", "null", "None", "NA", ""]


def test_09_what_is_no_text_is_told_with_its_line_and_type() -> None:
    content = '{"text": "a"}\n{"text": null}\n{"text": 3}\n{"text": NaN}\n'
    assert texts_of(content, FileFormat.JSONL, on_error=OnError.NULL) == ["a", None, None, None]
    with pytest.raises(DataError, match="line 2: column 'text' must be a string, got NoneType"):
        texts_of(content, FileFormat.JSONL)


@pytest.mark.parametrize("form", [FileFormat.TEXT, FileFormat.JSONL, FileFormat.CSV])
def test_11_only_newlines_end_a_line(form: FileFormat) -> None:
    text = "good\u2028bad\u2029not\x85very\x0bthe\x0cis"
    content = {FileFormat.JSONL: f'{{"text": "{text}"}}\n'.replace("\x0b", "").replace("\x0c", "")}
    content |= {FileFormat.TEXT: f"{text}\n", FileFormat.CSV: f"text\n{text}\n"}
    (found,) = texts_of(content[form], form)
    assert found == (text if form is not FileFormat.JSONL else text.replace("\x0b", "").replace("\x0c", ""))


def test_14_special_tokens_that_are_typed_have_their_own_place(tagger: Tagger) -> None:
    (found,) = tagger.predict_texts(["[SEP] [PAD] film"])
    assert found.spans is not None
    assert found.spans[-1].tolist() == [12, 16]
    assert (np.diff(found.spans.ravel()) >= 0).all()


def test_15_a_word_that_comes_again_has_its_own_offsets(tagger: Tagger) -> None:
    text = "film not film , film"
    (found,) = tagger.predict_texts([text])
    assert found.spans is not None
    assert [text[begin:end] for begin, end in found.spans] == text.split()


@pytest.fixture(scope="module")
def alone(tagger: Tagger) -> Tagger:
    """The first tier, which tags each piece by itself: whatever stands around a word, its tag stays."""
    return tagger.with_router(defer_none)


ENTITY, FILLER = ["bad", "warm", "it"], "good"


def test_16_nothing_is_dropped_behind_the_longest_row(alone: Tagger) -> None:
    (wanted,) = alone.predict([ENTITY])
    for filler in (1, 40, 400, 4000):
        text = " ".join([FILLER] * filler + ENTITY)
        (found,) = alone.predict_texts([text])
        assert len(found.tags) == filler + len(ENTITY)
        assert found.tags[-len(ENTITY) :] == wanted.tags
        assert found.spans is not None
        assert found.spans[-1].tolist() == [len(text) - len(ENTITY[-1]), len(text)]


def test_17_an_entity_is_found_once_and_whole_wherever_rows_end(alone: Tagger) -> None:
    (wanted,) = alone(" ".join(ENTITY), aggregation_strategy="first")
    assert not alone(FILLER, aggregation_strategy="first")
    for before in range(2 * alone.tokenizer.max_length):
        text = " ".join([FILLER] * before + ENTITY + [FILLER] * 9)
        (found,) = alone(text, aggregation_strategy="first")
        start = len(FILLER + " ") * before
        assert (found["start"], found["end"]) == (start, start + wanted["end"])
        assert (found["entity_group"], found["word"]) == (wanted["entity_group"], wanted["word"])


def test_18_a_window_never_ends_within_a_word(tagger: Tagger) -> None:
    for filler in range(14, 24):
        words = ["film"] * filler + ["filmxyzstory"] + ["film"] * 3
        (found,) = tagger.predict([words])
        assert [len(words), len(found.probabilities)] == [len(found.tags), len(words)]


def test_19_rows_may_share_as_many_tokens_as_anyone_asks_for(alone: Tagger, tmp_path: Path) -> None:
    sentence = [FILLER] * 50 + ENTITY
    (wanted,) = alone.predict([sentence])
    for overlap in (0, alone.tier1.max_length - 2, alone.tier1.max_length, 1000):
        tiers: Any = [replace(tier, overlap=overlap) for tier in cast("Any", alone.tiers)]
        assert replace(alone, tiers=tuple(tiers)).predict([sentence])[0].tags == wanted.tags
    for max_length in range(1, 7):
        folder = toy_bundle(tmp_path / str(max_length), max_length=max_length).folder
        if max_length < 5:
            with pytest.raises(CascadeError, match="max_length must be at least 5") as refused:
                Classifier.from_pretrained(folder, threads=1)
            assert "\n" not in str(refused.value)
        else:
            assert len(Classifier.from_pretrained(folder, threads=1).predict(["good film " * 9] * 3)) == 3


def test_20_nothing_is_a_sentence_too(tagger: Tagger) -> None:
    assert tagger([""]) == [[]]
    assert [answer.tags for answer in tagger.predict([[]])] == [[]]
    (found,) = tagger.predict([["", "a", "\u200b", "\ufeff"]])
    assert len(found.tags) == 4


def test_23_heads_of_several_labels_are_no_softmax(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "topics", labels=["a", "b", "c"], multi_label=True)
    scores = Classifier.from_pretrained(bundle.folder, threads=1)("good film", top_k=None)
    assert abs(sum(one["score"] for one in scores) - 1) > 0.01
    one = toy_bundle(tmp_path / "one", labels=["spam"], multi_label=True)
    (score,) = Classifier.from_pretrained(one.folder, threads=1)("bad film", top_k=None)
    assert 0 < score["score"] < 1


def test_27_a_cache_of_the_hub_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    """As `snapshot_download` leaves it, links to blobs and all, on a read-only file system and without a network."""
    whole, blobs = tmp_path / "models--owner--toy", tmp_path / "models--owner--toy" / "blobs"
    for name in ("blobs", "refs"):
        (whole / name).mkdir(parents=True)
    (whole / "refs" / "main").write_text("c0ffee")
    for number, file in enumerate(one for one in folder.rglob("*") if one.is_file()):
        link = whole / "snapshots" / "c0ffee" / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    every = [tmp_path, *tmp_path.rglob("*")]
    for path in every:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        found = Classifier.from_pretrained("owner/toy", cache_dir=tmp_path, local_files_only=True, threads=1)
        assert found.predict(["good film"]).labels == Classifier.from_pretrained(folder).predict(["good film"]).labels
    finally:
        for path in every:
            if path.is_dir():
                path.chmod(0o755)


BARE = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none /sys && mount -t tmpfs -o ro none /dev/shm && exec "$@"', ""]


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*BARE, "true"], check=False, capture_output=True).returncode != 0,
    reason="needs namespaces of mounts",
)
def test_28_a_host_without_sys_and_shared_memory(folder: Path) -> None:
    code = "from cascade.cli import main; main()"
    command = [*BARE, sys.executable, "-c", code, "predict", str(folder), "--threads", "2"]
    done = subprocess.run(command, input="good film\n" * 40, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 40), done.stderr


def test_30_a_call_in_a_thread_lets_others_go_on(clf: Classifier) -> None:
    async def serve() -> tuple[list[Any], int]:
        ticks, done = 0, asyncio.gather(*(asyncio.to_thread(clf, ["good film"] * 50) for _ in range(4)))
        while not done.done():
            ticks += 1
            await asyncio.sleep(0)
        return await done, ticks

    found, ticks = asyncio.run(serve())
    assert found == [clf(["good film"] * 50)] * 4
    assert ticks > 0
    before = threading.active_count()
    for _ in range(20):
        thread = threading.Thread(target=clf.with_router(defer_none).predict, args=(["good"],))
        thread.start()
        thread.join()
    assert threading.active_count() == before


def test_all_thirty_have_a_test() -> None:
    elsewhere = re.findall(r"^ ?(\d+) {2}.*? {2,}(\S+\.py) +(test_\w+)$", str(__doc__), re.MULTILINE)
    for _, file, name in elsewhere:
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")
    here = [name.split("_")[1] for name in globals() if re.match(r"test_\d\d_", name)]
    assert sorted(int(number) for number in [*here, *(number for number, *_ in elsewhere)]) == list(range(1, 31))
