"""Bundles on disk: opened and verified, written whole or not at all.

Every file that a manifest lists is checked for its size and hash before anything is loaded from it, and all faults are
named at once. Writing goes to a folder beside the destination that is renamed when it is complete.

It leaves to others: the manifest's fields and their consistency (`manifest`), the Hub (`hub`), loading graphs and
tokenizers (`backend`, `tokenizer`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cascade import hub
from cascade.exceptions import BundleError, BundleNotFoundError, OptionError
from cascade.manifest import MANIFEST_FILE, FileRecord, Manifest

__all__ = ["TOKENIZER_FILE", "Bundle", "copy_bundle", "open_bundle", "push_bundle", "write_bundle"]

TOKENIZER_FILE = "tokenizer.json"
# The model card is for people, who mend it on the Hub after the upload; nothing is read from it.
CARD_FILE = "README.md"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        folder: where its files are.
        manifest: what it says about itself.
    """

    folder: Path
    manifest: Manifest

    def path(self, file: str) -> Path:
        """Where a file of the bundle is on this disk. `file`: its path inside the bundle."""
        return self.folder / file


def open_bundle(
    path_or_id: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Bundle:
    """Find a bundle and verify every file of it.

    Args:
        path_or_id: a folder; where there is none, a Hub id (`name` or `owner/name`).
        revision: branch, tag or commit on the Hub.
        cache_dir: where downloads are kept; the Hub's own cache if not given.
        token: for closed repositories; the stored login if not given.
        local_files_only: take what the cache has, download nothing.

    Raises:
        BundleNotFoundError: there is neither such a folder nor such a repository.
        BundleError: it is incomplete, altered or of another format version; all faults in one line.
    """
    name = str(path_or_id)
    folder = Path(path_or_id).expanduser()
    if folder.is_file():
        raise BundleNotFoundError(
            f"a bundle must be a folder, but {name} is a file; give the folder that {MANIFEST_FILE} is in"
        )
    if not folder.is_dir():
        if isinstance(path_or_id, Path) or not hub.can_be_id(name):
            raise BundleNotFoundError(
                f"a bundle must be a folder or a Hub id (owner/name), but there is no folder {name!r}; check the path"
            )
        folder = hub.download(
            name, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
    file = folder / MANIFEST_FILE
    if not file.is_file():
        raise BundleNotFoundError(
            f"a bundle must hold {MANIFEST_FILE}, but {name} does not; make one with cascade-export"
        )
    try:
        manifest = Manifest.from_json(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{MANIFEST_FILE} must be UTF-8, but {error}; export the bundle again") from None
    faults = _faults_of_paths(manifest.files) or _faults_of_files(folder, manifest.files)
    faults += _faults_of_list(manifest.files)
    if faults:
        raise BundleError(
            f"every file must be as {MANIFEST_FILE} lists it, but in {name}: {'; '.join(faults)}; "
            "download or export the bundle again"
        )
    return Bundle(folder=folder, manifest=manifest)


def write_bundle(
    destination: str | Path, files: Mapping[str, bytes | Path], manifest: Manifest, *, overwrite: bool = False
) -> Bundle:
    """Write a bundle: whole, or not at all.

    Args:
        destination: the folder to make. An empty one is filled.
        files: contents, or where to copy them from, by path inside the bundle (with `/`).
        manifest: `files` in it is ignored and computed here.
        overwrite: replace a bundle that is there. A folder that is no bundle is never replaced.

    Raises:
        OptionError: the destination is there already.
        BundleError: a path leads out of the bundle, or the manifest contradicts itself.
    """
    return _write(destination, files, manifest, expected={}, overwrite=overwrite)


def copy_bundle(
    bundle: Bundle,
    destination: str | Path,
    *,
    router: Mapping[str, Any],
    exit_policy: Mapping[str, Any],
    windows: Mapping[str, Any] | None = None,
    decoding: Mapping[str, Any] | None = None,
    blend: float | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle's files again, with these policies as its defaults.

    Args:
        bundle: what to copy.
        destination: the folder to make; may be the bundle's own with `overwrite`.
        router: in the form that `routing.to_json` writes.
        exit_policy: in the form that `exits.to_json` writes.
        windows: of a tagger, in the form that `windows.to_json` writes; the bundle's own if left out.
        decoding: of a tagger, in the form that `decoding.to_json` writes; the bundle's own if left out.
        blend: how much tier 1's answer counts beside tier 2's; the bundle's own if left out.
        overwrite: as in `write_bundle`.

    Raises:
        OptionError: the destination is there already.
        BundleError: a file was altered since the bundle was opened.
    """
    old = bundle.manifest
    new = replace(
        old,
        router=dict(router),
        exit_policy=dict(exit_policy),
        windows=old.windows if windows is None else dict(windows),
        decoding=old.decoding if decoding is None else dict(decoding),
        blend=old.blend if blend is None else blend,
    )
    # A certificate is about the policies that it was issued for.
    manifest = new if new == old else replace(new, certificate=None)
    files = {path: bundle.path(path) for path in old.files}
    return _write(destination, files, manifest, expected=old.files, overwrite=overwrite)


def push_bundle(
    bundle: Bundle,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload a cascade bundle",
    revision: str | None = None,
) -> str:
    """Upload a bundle's files, and no others of its folder, to the Hub as one commit.

    Args:
        bundle: what to upload.
        repo_id: `owner/name`; made if missing.
        private: whether a repository that is made is closed.
        token: the stored login if not given.
        commit_message: its first line.
        revision: a branch; made if missing. The main branch if not given.

    Returns:
        The address of the commit.

    Raises:
        BundleError: the Hub refuses.
    """
    return hub.upload(
        bundle.folder,
        [*bundle.manifest.files, MANIFEST_FILE],
        repo_id,
        private=private,
        token=token,
        commit_message=commit_message,
        revision=revision,
    )


def _write(
    destination: str | Path,
    files: Mapping[str, bytes | Path],
    manifest: Manifest,
    *,
    expected: Mapping[str, FileRecord],
    overwrite: bool,
) -> Bundle:
    folder = Path(destination).expanduser().resolve()
    faults = _faults_of_paths(files)
    if faults:
        raise BundleError(f"every file must stay inside the bundle, but: {'; '.join(faults)}; give relative paths")
    _check_destination(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _staging(folder) as staging:
        records = {path: _write_file(staging / path, source) for path, source in files.items()}
        altered = [path for path, record in expected.items() if path != CARD_FILE and records[path] != record]
        if altered:
            raise BundleError(
                f"a bundle must not change while it is copied, but these files did: {', '.join(altered)}; open it again"
            )
        manifest = replace(manifest, files=records)
        faults = manifest.faults() + _faults_of_list(records)
        if faults:
            raise BundleError(f"the manifest contradicts itself: {'; '.join(faults)}; nothing was written")
        _write_file(staging / MANIFEST_FILE, manifest.to_json().encode())
        _move(staging, folder)
    return Bundle(folder=folder, manifest=manifest)


def _check_destination(folder: Path, *, overwrite: bool) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if overwrite and (folder.exists() and not (folder / MANIFEST_FILE).is_file()):
        raise OptionError(
            f"only a bundle can be overwritten, but {folder} holds no {MANIFEST_FILE}; choose another destination"
        )
    if folder.exists() and not overwrite:
        raise OptionError(f"the destination must not be there yet, was: {folder}; choose another or set overwrite")


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder beside this one, gone afterwards unless it was renamed, whatever happens."""
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        staging.mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move(staging: Path, folder: Path) -> None:
    """Put the finished folder in its place; what was there stays until then and comes back if that fails."""
    old = staging.with_suffix(".old")
    try:
        if folder.exists():
            folder.rename(old)
        staging.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def _write_file(target: Path, source: bytes | Path) -> FileRecord:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as out:
        for block in _blocks(source):
            out.write(block)
            digest.update(block)
            size += len(block)
        out.flush()
        os.fsync(out.fileno())
    return FileRecord(sha256=digest.hexdigest(), bytes=size)


def _blocks(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _faults_of_paths(paths: Mapping[str, object]) -> list[str]:
    found = []
    for path in paths:
        windows = PureWindowsPath(path)  # its rules hold elsewhere too: a bundle is read on any system
        if windows.drive or windows.root or "\\" in path or ".." in windows.parts or str(PurePosixPath(path)) != path:
            found.append(f"{path!r} must be a plain path inside the folder")
        elif path in {MANIFEST_FILE, "."}:
            found.append(f"{path!r} must not be listed")
    return found


def _faults_of_list(files: Mapping[str, object]) -> list[str]:
    return [] if TOKENIZER_FILE in files else [f"{TOKENIZER_FILE} is not listed under files"]


def _faults_of_files(folder: Path, files: Mapping[str, FileRecord]) -> list[str]:
    found = []
    for path, record in files.items():
        file = folder / path
        if not file.is_file():
            found.append(f"{path} is missing")
        elif path == CARD_FILE:
            continue
        elif (size := file.stat().st_size) != record.bytes:
            found.append(f"{path} must have {record.bytes} bytes, has {size}")
        else:
            digest = hashlib.sha256()
            for block in _blocks(file):
                digest.update(block)
            if digest.hexdigest() != record.sha256:
                found.append(f"{path} was altered (another sha256)")
    return found
