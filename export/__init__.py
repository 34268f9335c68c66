"""Checkpoints in, a bundle out. Needs the `export` extra.

checkpoints  what is read, and what both tiers must have in common
texts        calibration texts, or sentences to tag, as token ids
packed/      tiers with exits: layers without padding, as torch modules, as graphs, and run on texts
tiers        one tier in its final form; without exits any model of transformers, or a static one
int8/        int8 forms of graphs; temperatures, agreement with fp32, which stages stay fp32
verify       ONNX against torch
export, cli  all of it, written whole or not at all; `cascade-export`
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cascade.core.checks import check_share
from cascade.exceptions import OptionError, need
from cascade.policies.exits import ExitPolicy
from cascade.policies.routing import Router

if TYPE_CHECKING:
    from cascade_export.export import export_bundle
    from cascade_export.texts import Calibration

__all__ = ["Calibration", "ExportOptions", "export_bundle", "require_extra"]

_HOMES = {"Calibration": "texts", "export_bundle": "export"}


@dataclass(frozen=True)
class ExportOptions:
    """How a bundle is made.

    Attributes:
        int8: whether linear layers and tables are quantised: one scale per activation, from calibration texts, so that
            an answer does not depend on its batch mates.
        weight_bits: of int8 weights, 8 or 7; 8 also where 7 miss the agreement. On x86 without VNNI the fast
            instructions would cut sums of 8 bits, so ONNX Runtime multiplies these by slower ones; 7 are further from
            fp32.
        optimum: optimum-onnx (the extra `optimum`) makes the graphs of tiers without exits, not torch's own tracer.
        agreement: share of calibration texts (of a tagger: words) on which an int8 tier must answer as fp32 (tier 2: at
            full depth; a first tier: 0.98 at most). Where it is missed, int8 is smoothed (of layers that narrow, large
            channels stay fp32); where that does not help, tables and then stages, or a tier without exits, stay fp32.
        by_sentence: of a tagger's last tier the agreement is of sentences, all of whose words must be tagged alike.
        max_length: tokens of a row at most; what tier 2 has positions for, at most 512, if not given.
        truncation: whether the bundle reads the first tokens alone of a text that is too long, as transformers does; in
            windows if not.
        fp32: whether tier 1's fp32 graph is kept beside the int8 one, for other tools.
        router: the bundle's default; `Threshold(0.9)`, of a regression `defer_all`, if not given.
        exit_policy: the bundle's default; `MaxProbability(0.9)`, of a tagger `TokenExit(0.05)`, of a regression
            `never`, if not given.
        encode_special_tokens: whether special tokens that stand in a text are read as its characters. Your model reads
            them as tokens unless its tokenizer has `split_special_tokens`.
        temper_full_depth: whether labels give full depth a temperature too. Without, its scores stay the checkpoint's.
        name: title of the model card; the folder's name if not given.
        license: of the weights, for the model card (SPDX).
        data: what the tiers were trained on, for the model card.
    """

    int8: bool = True
    weight_bits: int = 8
    optimum: bool = False
    agreement: float = 0.98
    by_sentence: bool = False
    max_length: int | None = None
    truncation: bool = False
    fp32: bool = True
    router: Router | None = None
    exit_policy: ExitPolicy | None = None
    encode_special_tokens: bool = False
    temper_full_depth: bool = False
    name: str | None = None
    license: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        check_share("agreement", self.agreement, "give a share such as 0.98")
        if self.weight_bits not in (7, 8):
            raise OptionError(f"weight_bits must be 7 or 8, got {self.weight_bits}; 7 are for x86 without VNNI")


def require_extra() -> None:
    """Make sure that everything the exporter imports is installed.

    A `MissingExtraError`: naming what is missing and the command that installs it.
    """
    need("cascade_export", "export", "onnx", "safetensors", "scipy", "torch", "transformers")


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `cascade-export --help` must not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_extra()
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
