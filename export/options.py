"""What can be chosen when a bundle is made. Plain values, without torch: `export` and `card` act on them."""

from __future__ import annotations

from dataclasses import dataclass

from cascade.core.checks import check_share
from cascade.policies.exits import ExitPolicy
from cascade.policies.routing import Router


@dataclass(frozen=True)
class ExportOptions:
    """How a bundle is made.

    Attributes:
        int8: whether linear layers and tables are quantised: one scale per activation, from calibration texts, so that
            an answer does not depend on its batch mates.
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
        name, license, data: for the model card: its title, the weights' licence (SPDX), what they were trained on.
    """

    int8: bool = True
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
