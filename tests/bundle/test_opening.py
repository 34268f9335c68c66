"""Opening, verifying, writing, copying and pushing bundles; no network."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import onnx
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from onnx import TensorProto, helper, numpy_helper

from cascade.bundle import hub, writing
from cascade.bundle.manifest import MANIFEST_FILE, Manifest
from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.tiers import MultiExitSpec, SingleExitSpec, StageSpec
from cascade.bundle.writing import copy_bundle, write_bundle
from cascade.core.checks import names_another_file
from cascade.exceptions import BundleError, BundleNotFoundError, OptionError
from cascade.policies import AtExit, Policies, Threshold, never
from cascade.runtime.backend import OnnxBackend
from tests.models.certificates import certificate_of

LABELS = ("no", "yes")
FILES: dict[str, bytes | Path] = {
    "tokenizer.json": b"{}",
    "onnx/model.onnx": b"tier one",
    "tier2/embed.onnx": b"embed",
    "tier2/stage_00.onnx": b"x" * (3 << 20),  # more than a block
}
POLICIES = Policies((Threshold(0.9),), (never, never), ((1.0,), (1.0,)))
MANIFEST = Manifest(
    task="text-classification",
    problem_type="single_label_classification",
    labels=LABELS,
    tiers=(
        SingleExitSpec(file="onnx/model.onnx", model="static", max_length=16),
        MultiExitSpec("tier2/embed.onnx", (StageSpec("tier2/stage_00.onnx", 1),), width=4, heads=2, max_length=16),
    ),
    policies=POLICIES,
    library_version="0.1.0",
)


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "made", FILES, MANIFEST)


@pytest.fixture
def certified(made: Bundle, tmp_path: Path) -> Bundle:
    carded = write_bundle(tmp_path / "carded", {**FILES, "README.md": b"a card\n"}, MANIFEST)
    return copy_bundle(carded, tmp_path / "certified", policies=POLICIES, certificate=certificate_of(made.manifest))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of a bundle in place."""
    file = folder / MANIFEST_FILE
    raw = json.loads(file.read_text(encoding="utf-8"))
    change(raw)
    file.write_text(json.dumps(raw), encoding="utf-8")


def test_round_trip(made: Bundle, tmp_path: Path) -> None:
    opened = open_bundle(tmp_path / "made")
    assert opened == made
    assert opened == open_bundle(str(tmp_path / "made"))
    assert replace(opened.manifest, files={}) == MANIFEST
    assert files_under(opened.folder) == {*FILES, MANIFEST_FILE}
    assert opened.path("onnx/model.onnx").read_bytes() == b"tier one"
    record = opened.manifest.files["onnx/model.onnx"]
    assert record.bytes == 8
    assert record.sha256 == hashlib.sha256(b"tier one").hexdigest()
    assert names(tmp_path) == ["made"]


def test_files_may_come_from_paths_and_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from a path")
    (tmp_path / "deep" / "empty").mkdir(parents=True)
    written = write_bundle(tmp_path / "deep" / "empty", {**FILES, "tier2/embed.onnx": source}, MANIFEST)
    assert open_bundle(written.folder).path("tier2/embed.onnx").read_bytes() == b"from a path"


def test_links_in_the_cache_of_the_hub_are_followed(made: Bundle, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    made.path("onnx/model.onnx").rename(blob)
    made.path("onnx/model.onnx").symlink_to(blob)
    assert open_bundle(made.folder).manifest == made.manifest


def test_every_fault_is_named_at_once(made: Bundle) -> None:
    made.path("tier2/stage_00.onnx").unlink()
    made.path("onnx/model.onnx").write_bytes(b"tier onf")
    made.path("tier2/embed.onnx").write_bytes(b"embedding")
    with pytest.raises(BundleError) as caught:
        open_bundle(made.folder)
    message = str(caught.value)
    assert "tier2/stage_00.onnx is missing" in message
    assert "onnx/model.onnx was altered (another sha256)" in message
    assert "tier2/embed.onnx must have 5 bytes, got 9" in message
    assert "download or export the bundle again" in message
    assert "\n" not in message


def test_another_format_version_is_refused(made: Bundle) -> None:
    rewrite(made.folder, lambda raw: raw.update(format_version=99))
    with pytest.raises(BundleError, match=r"format_version must be 2 or 3, got 99; export it again"):
        open_bundle(made.folder)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b", "C:/x", "C:x", "a\\b", "./a", "a//b"])
def test_paths_stay_inside(made: Bundle, path: str) -> None:
    rewrite(made.folder, lambda raw: raw["files"].update({path: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(BundleError, match="must be a plain path inside the folder"):
        open_bundle(made.folder)
    with pytest.raises(BundleError, match=r"must be a plain path inside the folder.*give relative paths"):
        write_bundle(made.folder.with_name("other"), {**FILES, path: b"x"}, MANIFEST)
    assert not made.folder.with_name("other").exists()


def test_the_manifest_does_not_list_itself(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"'cascade.json' must not be listed"):
        write_bundle(tmp_path / "made", {**FILES, MANIFEST_FILE: b"{}"}, MANIFEST)


def test_a_tokenizer_is_needed(made: Bundle, tmp_path: Path) -> None:
    files = {path: content for path, content in FILES.items() if path != "tokenizer.json"}
    with pytest.raises(BundleError, match=r"tokenizer.json is used but not listed under files; nothing was written"):
        write_bundle(tmp_path / "other", files, MANIFEST)
    rewrite(made.folder, lambda raw: raw["files"].pop("tokenizer.json"))
    with pytest.raises(BundleError, match=r"tokenizer.json is used but not listed under files"):
        open_bundle(made.folder)


def test_a_contradiction_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"labels must be distinct .*nothing was written"):
        write_bundle(tmp_path / "made", FILES, replace(MANIFEST, labels=("no", "no")))
    assert names(tmp_path) == []


def test_a_manifest_that_is_no_text(made: Bundle) -> None:
    made.path(MANIFEST_FILE).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BundleError, match=r"must be UTF-8.*export the bundle again"):
        open_bundle(made.folder)


@pytest.mark.parametrize(
    "name", ["./missing", "/missing/folder", "a/b/c", "~/missing-bundle", "missing/", "a b", "a--b"]
)
def test_a_missing_path_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(BundleNotFoundError, match=r"must be a folder or a Hub id .* no folder .*; check the path"):
        open_bundle(name)


def test_a_missing_path_object_is_a_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder 'missing'"):
        open_bundle(Path("missing"))


def test_a_file_and_a_folder_without_manifest(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleNotFoundError, match=r"is a file; give the folder that cascade.json is in"):
        open_bundle(tmp_path / "file")
    with pytest.raises(BundleNotFoundError, match=r"must hold cascade.json.*cascade-export"):
        open_bundle(tmp_path)


def test_ids() -> None:
    assert all(map(hub.can_be_id, ("gpt2", "owner/name", "a.b/c_d-e", "owner/name.v1")))
    assert not any(map(hub.can_be_id, ("", "/a", "a/", "a/b/c", ".a", "a.", "-a/b", "a/..", "a b", "C:\\x", "é")))


def test_from_the_hub(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(repo_id: str, **options: object) -> str:
        asked.append((repo_id, options))
        return str(made.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    opened = open_bundle("owner/bundle", revision="v1", cache_dir="c", token="t", local_files_only=True)
    assert opened == made
    options = {"revision": "v1", "cache_dir": "c", "token": "t", "local_files_only": True}
    assert asked == [("owner/bundle", options)]


@pytest.mark.parametrize(
    ("local", "remedy"), [(True, "allow the download, or give a folder"), (False, "check the name, your network")]
)
def test_nothing_on_the_hub(local: bool, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("nothing\nthere")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(BundleNotFoundError, match=r"owner/bundle at revision v1 \(nothing there\); " + remedy):
        open_bundle("owner/bundle", revision="v1", local_files_only=local)


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


def test_a_failed_swap_brings_the_old_bundle_back(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(made.folder, {**FILES, "README.md": b"new"}, MANIFEST, overwrite=True)
    assert names(tmp_path) == ["made"]
    assert open_bundle(made.folder) == made


def test_copying_sets_the_policies(made: Bundle, tmp_path: Path) -> None:
    policies = POLICIES.with_(routers=[Threshold(0.5)], temperatures=[[2], [0.5]])
    copied = copy_bundle(made, tmp_path / "copy", policies=policies)
    assert open_bundle(tmp_path / "copy") == copied
    assert copied.manifest == replace(made.manifest, policies=policies)
    assert open_bundle(made.folder) == made
    same = copy_bundle(made, made.folder, policies=POLICIES, overwrite=True)
    assert same == made
    assert open_bundle(made.folder) == made
    with pytest.raises(OptionError, match="temperatures must be one per exit, got 2 for 1 of tier 2"):
        copy_bundle(made, tmp_path / "other", policies=POLICIES.with_(temperatures=[[1], [1, 1]]))


def test_figures_of_another_operating_point_are_dropped(made: Bundle, tmp_path: Path) -> None:
    written = POLICIES.to_json()
    notes: list[dict[str, Any]] = [
        {"policies": written},
        {"router": written["routers"][0], "exit_policy": written["exits"][1], "blend": 0.0},
    ]
    for note in notes:
        noted = Bundle(made.folder, replace(made.manifest, figures={"operating_point": note, "int8": "static"}))
        kept = copy_bundle(noted, tmp_path / "kept", policies=POLICIES, overwrite=True)
        assert kept.manifest.figures == noted.manifest.figures
        other = copy_bundle(noted, tmp_path / "other", policies=POLICIES.with_(blend=[0.5]), overwrite=True)
        assert other.manifest.figures == {"int8": "static"}


def test_a_certificate_is_kept_as_long_as_it_is_about_the_copy(certified: Bundle, tmp_path: Path) -> None:
    assert open_bundle(certified.folder) == certified
    assert certified.manifest.certificate == certificate_of(certified.manifest)
    figures = replace(certified.manifest, figures={"accuracy": 0.9})
    same = copy_bundle(Bundle(certified.folder, figures), tmp_path / "same", policies=POLICIES)
    assert same.manifest.certificate == certified.manifest.certificate
    changes: list[dict[str, Any]] = [
        {"routers": [Threshold(0.5)]},
        {"exits": [never, AtExit(1)]},
        {"blend": [0.5]},
        {"temperatures": [[1.0], [1.5]]},
    ]
    for number, change in enumerate(changes):
        new = copy_bundle(certified, tmp_path / f"new{number}", policies=POLICIES.with_(**change))
        assert new.manifest.certificate is None
        assert open_bundle(new.folder) == new


def test_a_certificate_of_something_else_is_not_written(made: Bundle, certified: Bundle, tmp_path: Path) -> None:
    certificate = certificate_of(certified.manifest)
    message = r"must be about the bundle that it is written into, but blend must be \(0.0,\) as certified, got"
    with pytest.raises(OptionError, match=message):
        copy_bundle(made, tmp_path / "copy", policies=POLICIES.with_(blend=[0.5]), certificate=certificate)
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
    again = (
        copy_bundle(certified, tmp_path / "again", policies=POLICIES, certificate=certificate)
        .path("README.md")
        .read_text()
    )
    assert again.startswith("a card\n\nmended on the Hub\n\n<!--")
    assert (again.count("## Certificate"), again.count("Counted against it: 4 of")) == (1, 1)
    dropped = copy_bundle(certified, tmp_path / "dropped", policies=POLICIES.with_(blend=[0.5]))
    assert dropped.path("README.md").read_text() == "a card\n\nmended on the Hub\n"
    same = copy_bundle(certified, tmp_path / "same", policies=POLICIES)
    assert same.path("README.md").read_bytes() == card.read_bytes()
    without = copy_bundle(made, tmp_path / "without", policies=POLICIES, certificate=certificate)
    assert without.manifest.certificate is not None
    assert not without.path("README.md").exists()


def test_copying_does_not_launder_an_altered_file(made: Bundle, tmp_path: Path) -> None:
    made.path("onnx/model.onnx").write_bytes(b"tier onf")
    with pytest.raises(BundleError, match=r"these files did: onnx/model.onnx; open it again"):
        copy_bundle(made, tmp_path / "copy", policies=POLICIES)
    assert names(tmp_path) == ["made"]


class FakeApi:
    calls: list[Any]
    error: Exception | None = None

    def __init__(self, token: str | None) -> None:
        FakeApi.calls = [("token", token)]

    def create_repo(self, repo_id: str, **options: object) -> None:
        if FakeApi.error:
            raise FakeApi.error
        self.calls.append(("create_repo", repo_id, options))

    def create_branch(self, repo_id: str, **options: object) -> None:
        self.calls.append(("create_branch", repo_id, options))

    def upload_folder(self, **options: object) -> SimpleNamespace:
        self.calls.append(("upload_folder", options))
        return SimpleNamespace(commit_url="https://hub.example/commit/1")


def test_pushing(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)

    def push(revision: str | None) -> str:
        files = [*FILES, MANIFEST_FILE]
        options = {"private": True, "token": "t", "commit_message": "m", "revision": revision}
        return hub.upload(made.folder, files, "owner/name", **options)  # type: ignore[arg-type]  # each of its type

    assert push("b") == "https://hub.example/commit/1"
    upload = {
        "repo_id": "owner/name",
        "folder_path": made.folder,
        "commit_message": "m",
        "revision": "b",
        "allow_patterns": [*FILES, MANIFEST_FILE],
    }
    assert FakeApi.calls == [
        ("token", "t"),
        ("create_repo", "owner/name", {"private": True, "exist_ok": True}),
        ("create_branch", "owner/name", {"branch": "b", "exist_ok": True}),
        ("upload_folder", upload),
    ]
    push(None)
    assert [call[0] for call in FakeApi.calls] == ["token", "create_repo", "upload_folder"]


class ConnectError(Exception):
    """As httpx has it: no OSError."""


@pytest.mark.parametrize("error", [OSError("403\nno"), ConnectError("403\nno")])
def test_a_refusal_of_the_hub(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", SimpleNamespace(HTTPError=ConnectError))
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "error", error)
    options = {"private": False, "token": None, "commit_message": "m", "revision": None}
    with pytest.raises(BundleError, match=r"accept the bundle as owner/name, but: 403 no; check the name and your"):
        hub.upload(Path(), [], "owner/name", **options)  # type: ignore[arg-type]  # each of its type

    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(BundleNotFoundError, match=r"the Hub gave no owner/name \(403 no\)"):
        open_bundle("owner/name")


def test_what_is_read_is_what_was_verified(made: Bundle) -> None:
    bundle = open_bundle(made.folder, verify=False)
    assert bundle.read("onnx/model.onnx") == b"tier one"
    made.path("onnx/model.onnx").write_bytes(b"tier onf")
    made.path("tokenizer.json").unlink()
    message = "tokenizer.json is missing; onnx/model.onnx was altered"
    for file in ("onnx/model.onnx", "tokenizer.json"):
        with pytest.raises(BundleError, match=message):
            bundle.read(file)


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


def test_the_model_card_may_be_edited(tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "made", {**FILES, "README.md": b"a card"}, MANIFEST)
    made.path("README.md").write_text("a better card")
    assert open_bundle(made.folder).path("README.md").read_text() == "a better card"
    copied = copy_bundle(made, tmp_path / "copy", policies=POLICIES)
    assert copied.path("README.md").read_text() == "a better card"
