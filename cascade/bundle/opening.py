"""Bundles on disk: found, opened and verified.

Every file that a manifest lists is checked for its size and hash before anything is loaded from it, and all faults are
named at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from cascade.bundle import hub
from cascade.bundle.manifest import MANIFEST_FILE, TOKENIZER_FILE, FileRecord, Manifest
from cascade.exceptions import BundleError, BundleNotFoundError

__all__ = ["CARD_FILE", "Bundle", "blocks", "faults_of_list", "faults_of_paths", "open_bundle"]

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
    faults = faults_of_paths(manifest.files) or _faults_of_files(folder, manifest.files)
    faults += faults_of_list(manifest.files)
    if faults:
        raise BundleError(
            f"every file must be as {MANIFEST_FILE} lists it, but in {name}: {'; '.join(faults)}; "
            "download or export the bundle again"
        )
    return Bundle(folder=folder, manifest=manifest)


def blocks(source: bytes | Path) -> Iterator[bytes]:
    """Contents, or those of a file, piece by piece."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def faults_of_paths(paths: Mapping[str, object]) -> list[str]:
    """Which of these paths inside a bundle lead out of it, or are none."""
    found = []
    for path in paths:
        windows = PureWindowsPath(path)  # its rules hold elsewhere too: a bundle is read on any system
        if windows.drive or windows.root or "\\" in path or ".." in windows.parts or str(PurePosixPath(path)) != path:
            found.append(f"{path!r} must be a plain path inside the folder")
        elif path in {MANIFEST_FILE, "."}:
            found.append(f"{path!r} must not be listed")
    return found


def faults_of_list(files: Mapping[str, object]) -> list[str]:
    """What every bundle must list and this one does not."""
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
            for block in blocks(file):
                digest.update(block)
            if digest.hexdigest() != record.sha256:
                found.append(f"{path} was altered (another sha256)")
    return found
