"""The Hub, down and up; no network."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from cascade.bundle import hub
from cascade.bundle.manifest import MANIFEST_FILE
from cascade.bundle.opening import Bundle, open_bundle
from cascade.exceptions import BundleError, BundleNotFoundError
from tests.bundle.conftest import FILES


def test_ids() -> None:
    assert all(map(hub.can_be_id, ("gpt2", "owner/name", "a.b/c_d-e", "owner/name.v1")))
    assert not any(map(hub.can_be_id, ("", "/a", "a/", "a/b/c", ".a", "a.", "-a/b", "a/..", "a b", "C:\\x", "é")))


def test_a_name_in_a_folder_that_is_here_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub.can_be_id("runs/typo")
    (tmp_path / "runs").mkdir()
    assert not hub.can_be_id("runs/typo")
    with pytest.raises(BundleNotFoundError, match="there is no folder 'runs/typo'; check the path"):
        open_bundle("runs/typo")


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
