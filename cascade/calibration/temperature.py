"""One temperature per tier and exit, so that a confidence is the share of right answers it promises.

Temperature scaling (Guo et al., ICML 2017, section 4.2): logits are divided by the number with the smallest negative
log-likelihood on labelled examples that the models have not seen. It changes no answer of a model by itself, but it
makes exits comparable, and it changes what a `blend` says. Nothing runs here: logarithms of probabilities that were
computed at another temperature are logits up to a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from cascade.bundle.manifest import Manifest
from cascade.core.checks import check_temperature
from cascade.core.confidence import log_loss, probabilities
from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError

__all__ = ["Temperatures", "fit_temperature", "fit_temperatures", "logits_of", "rescale"]

LEAST, MOST = 0.05, 20.0
_SMALLEST = np.finfo(np.float32).tiny
_NEAREST = np.float32(2**-24)  # no float32 below 1 is nearer to it


@dataclass(frozen=True)
class Temperatures:
    """What logits are divided by.

    Attributes:
        tier1: of tier 1.
        exits: of every exit of tier 2, in order.
    """

    tier1: float
    exits: tuple[float, ...]

    def __post_init__(self) -> None:
        for value in (self.tier1, *self.exits):
            check_temperature(value)

    @classmethod
    def of(cls, manifest: Manifest) -> Temperatures:
        """Those of a bundle."""
        return cls(manifest.tier1.temperature, tuple(stage.temperature for stage in manifest.tier2.stages))

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {"tier1": self.tier1, "exits": list(self.exits)}


def logits_of(values: FloatArray, *, was: float = 1.0, multi_label: bool = False) -> FloatArray:
    """Logits from which these probabilities can have come.

    Args:
        values: probabilities. Shape `(..., labels)`.
        was: the temperature that they were computed with.
        multi_label: the labels are independent yes/no decisions. Of a single one the sigmoid is undone too; beyond 16
            its logit is lost, because float32 rounds the probability to 1.

    Returns:
        Float32, up to a constant per row. Same shape.
    """
    check_temperature(was)
    if multi_label or values.shape[-1] == 1:
        odds = np.log(np.maximum(values, _SMALLEST)) - np.log(np.maximum(1 - values, _NEAREST))
    else:
        odds = np.log(np.maximum(values, _SMALLEST))
    return np.asarray(np.float32(was) * odds, dtype=np.float32)


def rescale(values: FloatArray, *, was: float, now: float, multi_label: bool = False) -> FloatArray:
    """The same answers at another temperature.

    Args:
        values: probabilities. Shape `(..., labels)`.
        was: the temperature that they were computed with.
        now: the one that is wanted.
        multi_label: the labels are independent yes/no decisions.

    Returns:
        Probabilities of the same shape.
    """
    check_temperature(now)
    if was == now:
        return values
    return probabilities(logits_of(values, was=was, multi_label=multi_label), multi_label=multi_label, temperature=now)


def fit_temperature(values: FloatArray, truth: npt.ArrayLike, *, was: float = 1.0, multi_label: bool = False) -> float:
    """The temperature with the smallest negative log-likelihood, in [0.05, 20], to four digits.

    Args:
        values: probabilities of one head. Shape `(rows, labels)`.
        truth: numbers of the right labels, shape `(rows,)`; of yes/no labels zeros and ones, shape `(rows, labels)`.
        was: the temperature that the probabilities were computed with.
        multi_label: the labels are independent yes/no decisions.

    Returns:
        What logits are to be divided by in place of `was`, not on top of it.

    Raises:
        OptionError: no rows, or a truth of another shape.
    """
    binary = multi_label or values.shape[-1] == 1
    wanted, rows = np.asarray(truth), (len(values),)
    shapes = (values.shape, rows) if binary and values.shape[-1] == 1 else (values.shape,) if binary else (rows,)
    if not len(values) or wanted.shape not in shapes:
        raise OptionError(
            f"a temperature needs one or more rows and truth of shape {shapes[0]}, was: {wanted.shape} for "
            f"{len(values)} rows; give the right label of each row"
        )
    logits = logits_of(values, was=was, multi_label=multi_label)

    def loss(log_temperature: float) -> float:
        return log_loss(logits / np.float32(np.exp(log_temperature)), wanted, multi_label=multi_label)

    # The loss has one minimum in 1 / temperature; a thousandth is far below what any sample tells.
    found = minimize_scalar(loss, bounds=np.log([LEAST, MOST]), method="bounded", options={"xatol": 1e-3})
    return round(float(np.clip(np.exp(found.x), LEAST, MOST)), 4)


def fit_temperatures(
    tier1: FloatArray,
    tier2: FloatArray,
    truth: npt.ArrayLike,
    *,
    was: Temperatures,
    multi_label: bool = False,
) -> Temperatures:
    """`fit_temperature` for tier 1 and every exit.

    Args:
        tier1: probabilities of tier 1, with its own temperature. Shape `(rows, labels)`.
        tier2: probabilities at every exit, without tier 1's evidence. Shape `(rows, exits, labels)`.
        truth: as in `fit_temperature`. Rows may be words.
        was: the temperatures that these were computed with.
        multi_label: the labels are independent yes/no decisions.

    Raises:
        OptionError: no rows, arrays of other shapes, or temperatures for another number of exits.
    """
    if tier2.ndim != 3 or tier2.shape[1] != len(was.exits):
        raise OptionError(
            f"there must be a temperature for each exit, were: {len(was.exits)} for probabilities of shape "
            f"{tier2.shape}; give those of the bundle"
        )
    return Temperatures(
        fit_temperature(tier1, truth, was=was.tier1, multi_label=multi_label),
        tuple(
            fit_temperature(tier2[:, exit_], truth, was=temperature, multi_label=multi_label)
            for exit_, temperature in enumerate(was.exits)
        ),
    )
