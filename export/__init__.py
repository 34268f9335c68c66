"""Checkpoints in, a bundle out. Needs the `export` extra.

options      what can be chosen
checkpoints  what is read, and what both tiers must have in common
texts        calibration texts, or sentences to tag, as token ids
packed/      tiers with exits: layers without padding, as torch modules, as graphs, run on texts, and against torch
tiers        one tier in its final form; without exits any model of transformers, or a static one
int8/        int8 forms of graphs; temperatures, agreement with fp32, which stages stay fp32
card         the model card
export, cli  all of it, written whole or not at all; `cascade-export`
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cascade.exceptions import MissingExtraError

if TYPE_CHECKING:
    from cascade_export.export import export_bundle
    from cascade_export.options import ExportOptions
    from cascade_export.texts import Calibration

__all__ = ["Calibration", "ExportOptions", "export_bundle", "require_extra"]

_HOMES = {"Calibration": "texts", "ExportOptions": "options", "export_bundle": "export"}
_NEEDED = ("onnx", "safetensors", "scipy", "torch", "transformers")


def require_extra() -> None:
    """Make sure that everything the exporter imports is installed.

    Raises:
        MissingExtraError: naming what is missing and the command that installs it.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"cascade_export needs the export extra, but {', '.join(missing)} cannot be imported; "
            'pip install "cascade-encoder[export]"'
        )


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `cascade-export --help` must not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_extra()
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
