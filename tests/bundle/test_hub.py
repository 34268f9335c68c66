"""Bundles from the Hub; no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from cascade.bundle import hub
from cascade.bundle.opening import Bundle, open_bundle
from cascade.exceptions import BundleNotFoundError


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


class ConnectError(Exception):
    """As httpx has it: no OSError."""


@pytest.mark.parametrize("error", [OSError("403\nno"), ConnectError("403\nno")])
def test_a_refusal_of_the_hub(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(BundleNotFoundError, match=r"the Hub gave no owner/name \(403 no\)"):
        open_bundle("owner/name")
