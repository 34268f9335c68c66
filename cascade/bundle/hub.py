"""The Hugging Face Hub, through `huggingface_hub` and nothing else: repositories down; `hf upload` puts folders up.

The library is imported when a call needs it, so a local bundle never pays for it.
"""

from __future__ import annotations

import re
from pathlib import Path

from cascade.exceptions import BundleNotFoundError, OptionError

# owner/name or name, as huggingface_hub validates them: no leading or trailing dot or dash, nothing doubled.
ID = re.compile(r"(?!.*(--|\.\.))(\w[\w.-]{0,95}/)?\w[\w.-]{0,95}(?<![.-])", re.ASCII)


def can_be_id(name: str) -> bool:
    """Whether a string can be a repository's id; anything else can only be a path.

    `folder/name` where `folder` is here is a path, so a mistyped one is missed at once, without asking the Hub.
    """
    return ID.fullmatch(name) is not None and not ("/" in name and Path(name).parent.is_dir())


def check_checkpoint(checkpoint: str | Path) -> None:
    """An `OptionError` where it is no folder and cannot be on the Hub, which is not asked."""
    name, there = str(checkpoint), Path(checkpoint).exists()
    if Path(name).is_dir() or (not there and not isinstance(checkpoint, Path) and can_be_id(name)):
        return
    found = f"{name!r} is a file; give its folder" if there else f"there is no folder {name!r}; check the path"
    raise OptionError(f"a checkpoint must be a folder or a Hub id (owner/name), but {found}")


def download(
    repo_id: str, *, revision: str | None, cache_dir: str | Path | None, token: str | None, local_files_only: bool
) -> Path:
    """The folder of a repository in the Hub's cache, downloaded if need be; its files may be links.

    A `BundleNotFoundError`: there is none, it is closed to this token, or the Hub cannot be reached.
    """
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            repo_id, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
    except Exception as error:  # errors of the library's and of httpx's, which it lets through
        where = repo_id if revision is None else f"{repo_id} at revision {revision}"
        remedy = (
            "allow the download, or give a folder"
            if local_files_only
            else "check the name, your network and your token, or give a folder"
        )
        raise BundleNotFoundError(
            f"a bundle must be a folder or a Hub id, but there is no folder {repo_id!r} and the Hub gave no {where} "
            f"({' '.join(str(error).split()) or type(error).__name__}); {remedy}"
        ) from error
    return Path(folder)
