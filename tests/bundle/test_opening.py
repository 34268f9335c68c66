"""Opening and verifying bundles on this disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from cascade.bundle.manifest import MANIFEST_FILE
from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.writing import write_bundle
from cascade.exceptions import BundleError, BundleNotFoundError
from tests.bundle.conftest import FILES, MANIFEST, names


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of a bundle in place."""
    file = folder / MANIFEST_FILE
    raw = json.loads(file.read_text(encoding="utf-8"))
    change(raw)
    file.write_text(json.dumps(raw), encoding="utf-8")


def test_round_trip(made: Bundle, tmp_path: Path) -> None:
    opened = open_bundle(made.folder)
    assert opened == made == open_bundle(str(made.folder))
    assert replace(opened.manifest, files={}) == MANIFEST
    paths = {path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file()}
    assert paths == {*FILES, MANIFEST_FILE}
    assert opened.path("onnx/model.onnx").read_bytes() == b"tier one"
    record = opened.manifest.files["onnx/model.onnx"]
    assert (record.bytes, record.sha256) == (8, hashlib.sha256(b"tier one").hexdigest())
    assert names(tmp_path) == ["made"]


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


def test_what_is_read_is_what_was_verified(made: Bundle) -> None:
    bundle = open_bundle(made.folder, verify=False)
    assert bundle.read("onnx/model.onnx") == b"tier one"
    made.path("onnx/model.onnx").write_bytes(b"tier onf")
    made.path("tokenizer.json").unlink()
    message = "tokenizer.json is missing; onnx/model.onnx was altered"
    for file in ("onnx/model.onnx", "tokenizer.json"):
        with pytest.raises(BundleError, match=message):
            bundle.read(file)


def test_what_the_system_refuses_is_a_fault_as_any_other(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are too long, files that are closed to this user, the home of nobody."""
    for name in ("a" * 300, Path("a" * 300), "~nobody of this name/bundle"):
        with pytest.raises(BundleNotFoundError, match="folder"):
            open_bundle(name)

    def refused(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    for place, match in {
        "cascade.bundle.opening.sha256_of": r"onnx/model.onnx cannot be read \(Permission denied\)",
        "pathlib.Path.read_text": "must be readable, but: Permission denied",
    }.items():
        with monkeypatch.context() as patched:
            patched.setattr(place, refused)
            with pytest.raises(BundleError, match=match):
                open_bundle(made.folder)
    rewrite(made.folder, lambda raw: raw["files"].update({"a" * 300: raw["files"]["onnx/model.onnx"]}))
    with pytest.raises(BundleError, match=r"a{300} (cannot be read|is missing)"):
        open_bundle(made.folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_what_never_ends_is_not_read(made: Bundle) -> None:
    for file in ("tokenizer.json", MANIFEST_FILE):
        made.path(file).unlink()
        os.mkfifo(made.path(file))
        with pytest.raises(BundleError, match=r"tokenizer.json is missing|must hold cascade.json"):
            open_bundle(made.folder, verify=False).read("tokenizer.json")
    made.path(MANIFEST_FILE).unlink()
    with made.path(MANIFEST_FILE).open("wb") as stream:
        stream.truncate(1 << 40)  # takes no room
    with pytest.raises(BundleError, match=r"cascade.json must have at most 67108864 bytes, got 1099511627776"):
        open_bundle(made.folder)


@pytest.mark.parametrize(
    "path", ["a\x1b[2J", "a\u202eb", "/etc/passwd", "../outside", "a/../../b", "C:/x", "C:x", "a\\b", "./a", "a//b"]
)
def test_paths_stay_inside(made: Bundle, path: str) -> None:
    rewrite(made.folder, lambda raw: raw["files"].update({path: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(BundleError, match="must be a plain path inside the folder"):
        open_bundle(made.folder)
    with pytest.raises(BundleError, match=r"must be a plain path inside the folder.*give relative paths"):
        write_bundle(made.folder.with_name("other"), {**FILES, path: b"x"}, MANIFEST)
    assert not made.folder.with_name("other").exists()


def test_manifests_that_cannot_be_used(made: Bundle) -> None:
    rewrite(made.folder, lambda raw: raw["files"].pop("tokenizer.json"))
    with pytest.raises(BundleError, match=r"tokenizer.json is used but not listed under files"):
        open_bundle(made.folder)
    rewrite(made.folder, lambda raw: raw.update(format_version=99))
    with pytest.raises(BundleError, match=r"format_version must be 3, got 99; export it again"):
        open_bundle(made.folder)
    made.path(MANIFEST_FILE).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BundleError, match=r"must be UTF-8.*export the bundle again"):
        open_bundle(made.folder)
    made.path(MANIFEST_FILE).unlink()
    with pytest.raises(BundleNotFoundError, match=r"must hold cascade.json.*cascade-export"):
        open_bundle(made.folder)
    with pytest.raises(BundleNotFoundError, match=r"is a file; give the folder that it is in"):
        open_bundle(made.path("tokenizer.json"))


@pytest.mark.parametrize(
    "name", ["./missing", "/missing/folder", "a/b/c", "~/missing-bundle", "missing/", "a b", "a--b", Path("missing")]
)
def test_a_missing_path_is_not_looked_for_on_the_hub(name: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(FileNotFoundError, match=r"must be a folder or a Hub id .* no folder .*; check the path"):
        open_bundle(name)
