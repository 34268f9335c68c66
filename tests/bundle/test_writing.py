"""Writing bundles, whole or not at all, and copying them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cascade.bundle import writing
from cascade.bundle.manifest import MANIFEST_FILE
from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.writing import copy_bundle, write_bundle
from cascade.core.checks import names_another_file
from cascade.exceptions import BundleError, OptionError
from cascade.policies import AtExit, Threshold, never
from cascade.runtime.backend import OnnxBackend
from tests.bundle.conftest import FILES, MANIFEST, POLICIES, names
from tests.models.certificates import certificate_of


@pytest.fixture
def certified(made: Bundle, tmp_path: Path) -> Bundle:
    carded = write_bundle(tmp_path / "carded", {**FILES, "README.md": b"a card\n"}, MANIFEST)
    return copy_bundle(carded, tmp_path / "certified", policies=POLICIES, certificate=certificate_of(made.manifest))


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_files_may_come_from_paths_and_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from a path")
    (tmp_path / "deep" / "empty").mkdir(parents=True)
    written = write_bundle(tmp_path / "deep" / "empty", {**FILES, "tier2/embed.onnx": source}, MANIFEST)
    assert open_bundle(written.folder).path("tier2/embed.onnx").read_bytes() == b"from a path"


def test_what_cannot_be_opened_is_not_written(tmp_path: Path) -> None:
    without = {path: content for path, content in FILES.items() if path != "tokenizer.json"}
    for files, manifest, message in (
        ({**FILES, MANIFEST_FILE: b"{}"}, MANIFEST, r"'cascade.json' must not be listed"),
        (without, MANIFEST, r"tokenizer.json is used but not listed under files; nothing was written"),
        (FILES, replace(MANIFEST, labels=("no", "no")), r"labels must be distinct .*nothing was written"),
    ):
        with pytest.raises(BundleError, match=message):
            write_bundle(tmp_path / "made", files, manifest)
        assert names(tmp_path) == []


def test_an_existing_destination_is_refused(made: Bundle, tmp_path: Path) -> None:
    before = files_under(tmp_path)
    with pytest.raises(OptionError, match=r"must not be there yet.*choose another or set overwrite"):
        write_bundle(made.folder, FILES, MANIFEST)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(OptionError, match="choose another"):
            write_bundle(tmp_path / "mine", FILES, MANIFEST, overwrite=overwrite)
    with pytest.raises(OptionError, match=r"only a bundle can be overwritten"):
        write_bundle(tmp_path / "mine" / "letter.txt", FILES, MANIFEST, overwrite=True)
    assert files_under(tmp_path) == before | {"mine/letter.txt"}


def test_overwriting_replaces_the_whole_folder(made: Bundle, tmp_path: Path) -> None:
    made.path("stray").write_text("x")
    write_bundle(made.folder, {**FILES, "README.md": b"new"}, MANIFEST, overwrite=True)
    assert files_under(tmp_path) == {f"made/{path}" for path in (*FILES, "README.md", MANIFEST_FILE)}
    assert open_bundle(made.folder).path("README.md").read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interruption_leaves_nothing_half_written(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], overwrite: bool
) -> None:
    before = files_under(tmp_path)
    real = writing._write_file
    count = 0

    def write(target: Path, source: bytes | Path) -> object:
        nonlocal count
        count += 1
        if count == 3:
            raise error
        return real(target, source)

    monkeypatch.setattr(writing, "_write_file", write)
    with pytest.raises(error):
        write_bundle(made.folder if overwrite else tmp_path / "other", FILES, MANIFEST, overwrite=overwrite)
    assert files_under(tmp_path) == before
    assert names(tmp_path) == ["made"]


def test_a_bundle_that_a_killed_run_moved_away_comes_back(made: Bundle, tmp_path: Path) -> None:
    made.folder.rename(tmp_path / ".made.0123abcd.old")
    with pytest.raises(OptionError, match="must not be there yet"):
        write_bundle(made.folder, FILES, MANIFEST)
    assert open_bundle(made.folder) == made
    (tmp_path / ".made.0123abcd.partial").mkdir()
    copy_bundle(made, made.folder, policies=POLICIES, overwrite=True)
    assert names(tmp_path) == ["made"]


def test_copying_sets_the_policies(made: Bundle, tmp_path: Path) -> None:
    policies = replace(POLICIES, routers=(Threshold(0.5),), temperatures=((2,), (0.5,)))
    copied = copy_bundle(made, tmp_path / "copy", policies=policies)
    assert open_bundle(tmp_path / "copy") == copied
    assert copied.manifest == replace(made.manifest, policies=policies)
    assert open_bundle(made.folder) == made
    assert copy_bundle(made, made.folder, policies=POLICIES, overwrite=True) == made == open_bundle(made.folder)
    with pytest.raises(OptionError, match="temperatures must be one per exit, got 2 for 1 of tier 2"):
        copy_bundle(made, tmp_path / "other", policies=replace(POLICIES, temperatures=((1,), (1, 1))))


def test_figures_of_another_operating_point_are_dropped(made: Bundle, tmp_path: Path) -> None:
    written = POLICIES.to_json()
    note = {"policies": written}
    noted = Bundle(made.folder, replace(made.manifest, figures={"operating_point": note, "int8": "static"}))
    kept = copy_bundle(noted, tmp_path / "kept", policies=POLICIES)
    assert kept.manifest.figures == noted.manifest.figures
    other = copy_bundle(noted, tmp_path / "other", policies=replace(POLICIES, blend=(0.5,)))
    assert other.manifest.figures == {"int8": "static"}


def test_a_certificate_is_kept_as_long_as_it_is_about_the_copy(certified: Bundle, tmp_path: Path) -> None:
    assert open_bundle(certified.folder) == certified
    assert certified.manifest.certificate == certificate_of(certified.manifest)
    figures = replace(certified.manifest, figures={"accuracy": 0.9})
    same = copy_bundle(Bundle(certified.folder, figures), tmp_path / "same", policies=POLICIES)
    assert same.manifest.certificate == certified.manifest.certificate
    for number, policies in enumerate(
        (
            replace(POLICIES, routers=(Threshold(0.5),)),
            replace(POLICIES, exits=(never, AtExit(1))),
            replace(POLICIES, blend=(0.5,)),
            replace(POLICIES, temperatures=((1.0,), (1.5,))),
        )
    ):
        new = copy_bundle(certified, tmp_path / f"new{number}", policies=policies)
        assert new.manifest.certificate is None
        assert open_bundle(new.folder) == new


def test_a_certificate_of_something_else_is_not_written(made: Bundle, certified: Bundle, tmp_path: Path) -> None:
    certificate = certificate_of(certified.manifest)
    message = r"must be about the bundle that it is written into, but blend must be \(0.0,\) as certified, got"
    with pytest.raises(OptionError, match=message):
        copy_bundle(made, tmp_path / "copy", policies=replace(POLICIES, blend=(0.5,)), certificate=certificate)
    other = write_bundle(tmp_path / "other", {**FILES, "onnx/model.onnx": b"another"}, MANIFEST)
    with pytest.raises(OptionError, match=r"onnx/model.onnx is another than the certified one; calibrate again"):
        copy_bundle(other, tmp_path / "copy", policies=POLICIES, certificate=certificate)
    assert not (tmp_path / "copy").exists()


def test_the_model_card_says_what_is_certified_and_no_more(made: Bundle, certified: Bundle, tmp_path: Path) -> None:
    card = certified.path("README.md")
    text = card.read_text()
    assert text.startswith("a card\n\n<!-- certificate: ")
    assert "## Certificate\n\n- Claim, at a confidence of 95 %: the accuracy is at most 1 point below" in text
    card.write_text(f"{text}\nmended on the Hub\n")
    certificate = certificate_of(made.manifest, events=4)
    copied = copy_bundle(certified, tmp_path / "again", policies=POLICIES, certificate=certificate)
    again = copied.path("README.md").read_text()
    assert again.startswith("a card\n\nmended on the Hub\n\n<!--")
    assert (again.count("## Certificate"), again.count("Counted against it: 4 of")) == (1, 1)
    dropped = copy_bundle(certified, tmp_path / "dropped", policies=replace(POLICIES, blend=(0.5,)))
    assert dropped.path("README.md").read_text() == "a card\n\nmended on the Hub\n"
    same = copy_bundle(certified, tmp_path / "same", policies=POLICIES)
    assert same.path("README.md").read_bytes() == card.read_bytes()
    without = copy_bundle(made, tmp_path / "without", policies=POLICIES, certificate=certificate)
    assert without.manifest.certificate is not None
    assert not without.path("README.md").exists()


def test_copying_does_not_launder_an_altered_file(made: Bundle, tmp_path: Path) -> None:
    made.path("onnx/model.onnx").write_bytes(b"tier onf")
    with pytest.raises(BundleError, match=r"these did: onnx/model.onnx; open it again"):
        copy_bundle(made, tmp_path / "copy", policies=POLICIES)
    assert names(tmp_path) == ["made"]


@pytest.mark.parametrize("overlong", [False, True])
def test_weights_in_another_file_are_refused(overlong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "location")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [value], [], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert not names_another_file(model.SerializeToString())
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    contents = (tmp_path / "a.onnx").read_bytes()
    if overlong:  # which protobuf reads alike
        contents = contents.replace(b"\x0a\x08location\x12", b"\x8a\x00\x88\x80\x00location\x12")
    with pytest.raises(BundleError, match=r"onnx/model.onnx must hold its weights itself, .*; nothing was written"):
        write_bundle(tmp_path / "made", {**FILES, "onnx/model.onnx": contents}, MANIFEST)
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would find the other file
    digest = hashlib.sha256((tmp_path / "a.onnx").read_bytes()).hexdigest()
    with pytest.raises(BundleError, match=r"a.onnx must hold its weights itself, got external data; export the bundle"):
        OnnxBackend(tmp_path / "a.onnx", sha256=digest)


KEY = b"\x0a\x08location\x12\x05w.bin"


def large(*, raw: bytes = b"", more: int = 0) -> onnx.ModelProto:
    """A graph of three large weights; `raw`: what the second one's bytes spell; `more`: how many more small ones."""
    weights = [
        *(numpy_helper.from_array(np.frombuffer(raw.ljust(8192, b"\xff"), np.int8), name) for name in "abc"),
        *(numpy_helper.from_array(np.ones(4, np.float32), f"{number}") for number in range(more)),
    ]
    constant = helper.make_node("Constant", [], ["d"], value=numpy_helper.from_array(np.ones(4096, np.float32), "d"))
    return helper.make_model(helper.make_graph([constant], "g", [], [], weights))


def test_weights_that_spell_a_key_are_no_files() -> None:
    assert not names_another_file(large(raw=KEY, more=3).SerializeToString())


@pytest.mark.parametrize("where", ["weight 0", "weight 1", "weight 2", "weight 4", "constant", "function", "sparse"])
def test_a_file_is_found_wherever_it_is_named(where: str) -> None:
    model = large(more=3)
    graph = model.graph
    if where == "function":
        model.functions.add(name="f", domain="g").node.append(graph.node[0])
    if where == "sparse":
        graph.sparse_initializer.add(values=graph.initializer[3])
    tensors = {
        **{f"weight {number}": tensor for number, tensor in enumerate(graph.initializer)},
        "constant": graph.node[0].attribute[0].t,
        "function": (model.functions or [graph])[0].node[0].attribute[0].t,
        "sparse": graph.sparse_initializer[0].values if graph.sparse_initializer else None,
    }
    tensors[where].external_data.add(key="location", value="w.bin")
    contents = model.SerializeToString()
    assert names_another_file(contents)
    # Fields may come in any order: what follows the graph, or raw data, is searched too.
    raw = b"\x4a\x80\x40" + b"\xff" * 8192
    for odd in (
        b"\x3a\x80\x00" + contents,  # an empty graph, its length spelled oddly
        b"\x3b\x3c" + contents,  # a group
        b"\x0d\x00\x00\x00\x00" + contents,  # four bytes
        b"\x3a\x99\x40\x2a\x96\x40" + raw + b"\x6a\x11" + KEY,
        b"\x3a\xff\xff\xff\xff\xff\x01" + contents,
        b"\x3a\xff\xff\xff\xff\x0f" + contents,  # longer than the file
    ):
        assert names_another_file(odd)


def test_the_model_card_may_be_edited(tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "made", {**FILES, "README.md": b"a card"}, MANIFEST)
    made.path("README.md").write_text("a better card")
    assert open_bundle(made.folder).path("README.md").read_text() == "a better card"
    copied = copy_bundle(made, tmp_path / "copy", policies=POLICIES)
    assert copied.path("README.md").read_text() == "a better card"
