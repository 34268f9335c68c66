"""Writing bundles, whole or not at all, and copying them with other policies.

A bundle is written into a folder beside its destination, which is renamed when it is complete.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cascade.bundle.certificate import Certificate
from cascade.bundle.manifest import MANIFEST_FILE, Manifest
from cascade.bundle.opening import CARD_FILE, Bundle, faults_of_paths
from cascade.bundle.tiers import FileRecord
from cascade.core.checks import names_another_file
from cascade.core.files import clear, sha256_of, staged_folder
from cascade.exceptions import BundleError, OptionError
from cascade.policies.settings import Policies

CARD_BEGIN = b"<!-- certificate: written by cascade, replaced or removed with the certificate itself -->"
CARD_END = b"<!-- end of the certificate -->"


def write_bundle(
    destination: str | Path,
    files: Mapping[str, bytes | Path],
    manifest: Manifest,
    *,
    overwrite: bool = False,
    expected: Mapping[str, FileRecord] | None = None,
) -> Bundle:
    """Write a bundle: whole, or not at all.

    `destination`: the folder to make, an empty one is filled; `files`: contents, or where to copy them from, by path
    inside the bundle (with `/`); `manifest`: `files` in it is ignored and computed here; `overwrite`: replace a bundle
    that is there, and no other folder; `expected`: what is known of the files. A destination that is there already is
    an `OptionError`; a path that leads out of the bundle, a manifest that contradicts itself, or a file that is not as
    expected, but for the model card, a `BundleError`.
    """
    folder = Path(destination).expanduser().resolve()
    faults = faults_of_paths(files)
    if faults:
        raise BundleError(f"every file must stay inside the bundle, but: {'; '.join(faults)}; give relative paths")
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear(folder)  # what a killed run left; it may bring a bundle back
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not overwrite:
            raise OptionError(f"the destination must not be there yet, got {folder}; choose another or set overwrite")
        if not (folder / MANIFEST_FILE).is_file():
            raise OptionError(
                f"only a bundle can be overwritten, {folder} holds no {MANIFEST_FILE}; choose another one"
            )
    with staged_folder(folder) as staging:
        records = {path: _write_file(staging / path, source) for path, source in files.items()}
        known = (expected or {}).items()
        altered = [path for path, record in known if path != CARD_FILE and records[path] != record]
        if altered:
            raise BundleError(f"a bundle must not change while copied, these did: {', '.join(altered)}; open it again")
        manifest = replace(manifest, files=records)
        faults = manifest.faults()
        graphs = [path for tier in manifest.tiers for path in tier.graphs if path in records]
        external = [path for path in dict.fromkeys(graphs) if names_another_file((staging / path).read_bytes())]
        faults += [f"{path} must hold its weights itself, got external data" for path in external]
        if faults:
            raise BundleError(f"a bundle must be one that can be read, but {'; '.join(faults)}; nothing was written")
        _write_file(staging / MANIFEST_FILE, manifest.to_json().encode())
    return Bundle(folder=folder, manifest=manifest)


def copy_bundle(
    bundle: Bundle,
    destination: str | Path,
    *,
    policies: Policies,
    certificate: Certificate | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle's files again, with these policies as its defaults.

    `destination` and `overwrite`: as in `write_bundle`; it may be the bundle's own. `certificate`: about exactly these
    policies; if left out, the bundle's own stays as long as it is about them, and is dropped otherwise. The model card,
    where there is one, says the same. An `OptionError`: a policy is a function of your own or does not fit, or the
    certificate is about something else. A `BundleError`: a file was altered since the bundle was opened.
    """
    old = bundle.manifest
    policies.check(old.infos)
    new = replace(old, policies=policies)
    if old.profile is not None and policies != old.policies:
        new = replace(new, profile=old.profile.of_texts())
    note = old.figures.get("operating_point")
    if isinstance(note, Mapping) and note.get("policies") != policies.to_json():
        new = replace(new, figures={name: value for name, value in old.figures.items() if name != "operating_point"})
    if certificate is not None:
        new = replace(new, certificate=certificate)
        if new.doubts():
            raise OptionError(
                f"a certificate must be about the bundle that it is written into, but {'; '.join(new.doubts())}; "
                "calibrate again"
            )
    elif new.doubts():
        new = replace(new, certificate=None)
    files: dict[str, bytes | Path] = {path: bundle.path(path) for path in old.files}
    if CARD_FILE in files and (new.certificate is None or new.certificate != old.certificate):
        files[CARD_FILE] = _certified_card(bundle.path(CARD_FILE).read_bytes(), new)
    return write_bundle(destination, files, new, expected=old.files, overwrite=overwrite)


def _certified_card(card: bytes, manifest: Manifest) -> bytes:
    """A model card that says what the manifest's certificate says, at its end, and nothing of an older one."""
    before, begin, rest = card.partition(CARD_BEGIN)
    if manifest.certificate is None and not begin:
        return card
    kept = before.rstrip() + rest.partition(CARD_END)[2].rstrip() + b"\n"
    if manifest.certificate is None:
        return kept
    sentences = "\n".join(f"- {sentence}" for sentence in manifest.certificate.described())
    return kept + b"\n" + CARD_BEGIN + f"\n## Certificate\n\n{sentences}\n".encode() + CARD_END + b"\n"


def _write_file(target: Path, source: bytes | Path) -> FileRecord:
    target.parent.mkdir(parents=True, exist_ok=True)
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file, target.open("xb") as out:
        shutil.copyfileobj(file, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())
    return FileRecord(sha256_of(target), target.stat().st_size)
