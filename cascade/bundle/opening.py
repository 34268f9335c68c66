"""Bundles on disk: found, opened and verified. Nothing is loaded from a file whose hash is not the manifest's."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from cascade.bundle import hub
from cascade.bundle.manifest import MANIFEST_FILE, Manifest
from cascade.core.files import sha256_of
from cascade.exceptions import BundleError, BundleNotFoundError, printable

# The model card is for people, who mend it on the Hub after the upload; nothing is read from it.
CARD_FILE: Final = "README.md"
LARGEST_MANIFEST: Final = 64 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk: the `folder` of its files, and what it says about itself. Make it with `open_bundle`."""

    folder: Path
    manifest: Manifest

    def path(self, file: str) -> Path:
        """Where a file of the bundle is on this disk. `file`: its path inside the bundle."""
        return self.folder / file

    def read(self, file: str) -> bytes:
        """The verified contents of a listed file; if it is missing or altered a `BundleError` names all that are."""
        path, contents = self.path(file), b""
        with suppress(OSError):  # a FIFO would never end, and a file of another size need not be read
            if path.is_file() and path.stat().st_size == self.manifest.files[file].bytes:
                contents = path.read_bytes()
        if hashlib.sha256(contents).hexdigest() != self.manifest.files[file].sha256:
            self.verify()
            raise BundleError(f"{path} must not change while it is read, but it did; load the bundle again")
        return contents

    def verify(self, files: Collection[str] | None = None) -> None:
        """Hash these files, or all; those that are missing or altered are a `BundleError`, all in one line."""
        faults = {path: self._fault(path) for path in (self.manifest.files if files is None else files)}
        found = [f"{path} {fault}" for path, fault in faults.items() if fault]
        if found:
            raise BundleError(
                f"every file must be as {MANIFEST_FILE} lists it, but in {self.folder}: {'; '.join(found)}; "
                "download or export the bundle again"
            )

    def _fault(self, file: str) -> str:
        """What is wrong with a listed file, in words; nothing if it is as listed."""
        path, record = self.path(file), self.manifest.files[file]
        try:
            if not path.is_file():
                return "is missing"
            if file == CARD_FILE:
                return ""
            if (size := path.stat().st_size) != record.bytes:
                return f"must have {record.bytes} bytes, got {size}"
            return "" if sha256_of(path) == record.sha256 else "was altered (another sha256)"
        except OSError as error:  # its name is too long, or it is closed to this user
            return f"cannot be read ({error.strerror})"


def open_bundle(
    path_or_id: str | Path,
    *,
    verify: bool = True,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Bundle:
    """Find a bundle, read its manifest and verify every file of it.

    `path_or_id`: a folder; where there is none, a Hub id (`name` or `owner/name`). `verify`: hash the files; a caller
    who reads them anyway need not (`Bundle.read`). The others are those of `Pipeline.from_pretrained`.

    Neither such a folder nor such a repository is a `BundleNotFoundError`. One that is incomplete, altered or of
    another format, or whose manifest lists files outside the folder, is a `BundleError` with all faults in one line.
    """
    name = str(path_or_id)
    try:
        folder = Path(path_or_id).expanduser()
        is_file, is_folder = folder.is_file(), folder.is_dir()
    except (OSError, RuntimeError) as error:  # too long a name, a folder that is closed, ~ of an unknown user
        raise BundleNotFoundError(
            f"a bundle must be a folder or a Hub id (owner/name), but {name!r} cannot be looked up "
            f"({getattr(error, 'strerror', error)}); check the path"
        ) from None
    if is_file:
        raise BundleNotFoundError(f"a bundle must be a folder, but {name} is a file; give the folder that it is in")
    if not is_folder:
        if isinstance(path_or_id, Path) or not hub.can_be_id(name):
            raise BundleNotFoundError(
                f"a bundle must be a folder or a Hub id (owner/name), but there is no folder {name!r}; check the path"
            )
        folder = hub.download(
            name, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
    manifest = _manifest(folder, name)
    if faults := faults_of_paths(manifest.files):
        raise BundleError(f"files of {name} must be inside it, but {'; '.join(faults)}; export the bundle again")
    bundle = Bundle(folder=folder, manifest=manifest)
    if verify:
        bundle.verify()
    return bundle


def _manifest(folder: Path, name: str) -> Manifest:
    """What the bundle in a folder says about itself."""
    file = folder / MANIFEST_FILE
    try:
        if not file.is_file():
            raise BundleNotFoundError(
                f"a bundle must hold {MANIFEST_FILE}, but {name or folder} does not; make one with cascade-export"
            )
        if (size := file.stat().st_size) > LARGEST_MANIFEST:
            raise BundleError(f"{file} must have at most {LARGEST_MANIFEST} bytes, got {size}; export again")
        return Manifest.from_json(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{MANIFEST_FILE} must be UTF-8, but {error}; export the bundle again") from None
    except OSError as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{file} must be readable, but: {error.strerror}; check its rights") from None


def faults_of_paths(paths: Mapping[str, object]) -> list[str]:
    """Which of these paths inside a bundle lead out of it, or are none."""
    found = []
    for path in paths:
        windows = PureWindowsPath(path)  # its rules hold elsewhere too: a bundle is read on any system
        odd = "\\" in path or path != printable(path) or ".." in windows.parts or str(PurePosixPath(path)) != path
        if windows.drive or windows.root or odd:
            found.append(f"{path!r} must be a plain path inside the folder")
        elif path in {MANIFEST_FILE, "."}:
            found.append(f"{path!r} must not be listed")
    return found
