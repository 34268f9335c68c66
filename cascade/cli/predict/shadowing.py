"""The options of `cascade predict` about shadow sampling, and what is said of it."""

from __future__ import annotations

import sys
from typing import Any, Final

from tqdm import tqdm

from cascade.core.rounding import percent_up
from cascade.exceptions import OptionError
from cascade.monitoring.monitor import Monitor
from cascade.monitoring.shift import MEANING
from cascade.monitoring.state import MonitorState
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger

SAFER: Final = "safer"
ON_ALARM: Final = ("warn", SAFER)


def watch(
    pipeline: Classifier | Tagger,
    share: float | None,
    *,
    bound: float | None,
    on_alarm: str | None,
    strategy: str | None,
) -> Monitor[Any] | None:
    """The monitor that `--shadow`, `--max-disagreement` and `--on-alarm` ask for; it warns once there is an alarm.

    Options that need or exclude each other (`--aggregation-strategy` too) are an `OptionError`.
    """
    if share is None:
        for name, other in (("--max-disagreement", bound), ("--on-alarm", on_alarm)):
            if other is not None:
                raise OptionError(f"{name} must be used with --shadow; add --shadow 0.01 or leave it out")
        return None
    if strategy is not None:
        raise OptionError(
            "--shadow and --aggregation-strategy exclude each other, both were given; words are compared, not entities"
        )

    def warn(monitor: Monitor[Any]) -> None:
        report = monitor.report()
        said = (
            f"alarm at answer {report.alarm_at}: more than {percent_up(report.bound or 0)} of all answers differ from "
            f"tier 2 at full depth ({report.disagreements} of the {report.shadowed} shadowed)"
        )
        if on_alarm == SAFER:
            said += "; a safer setting answers from here on" if monitor.safer() else "; nothing is safer"
        tqdm.write(f"Warning: {said}", file=sys.stderr)

    def say(monitor: Monitor[Any]) -> None:
        report = monitor.report()
        tqdm.write(
            f"Warning: from answer {report.shifted_at} on it is shown that texts are of another kind than those of the "
            f"bundle's profile, most of all by {MEANING[str(report.shift and report.shift.feature)]}; what was "
            "certified is about texts like those",
            file=sys.stderr,
        )

    monitor = Monitor(pipeline, share=share, bound=bound, on_alarm=warn, on_shift=say)
    if on_alarm is not None and monitor.report().bound is None:
        raise OptionError(
            "--on-alarm must have a bound, but the setting has no certificate; give --max-disagreement, or make one "
            "with cascade calibrate"
        )
    return monitor


def in_words(report: MonitorState) -> str:
    """What a monitor knows, in one line."""
    found = "shadowed nothing"
    if report.shadowed:
        lower, upper = report.interval
        found = (
            f"shadowed {report.shadowed}, {report.disagreements} "
            f"{'differs' if report.disagreements == 1 else 'differ'} from tier 2 at full depth; of all answers "
            f"{lower:.2%} to {upper:.2%} do"
        )
    if report.raised:
        found += f", since the setting was made safer {'once' if report.raised == 1 else f'{report.raised} times'}"
    if report.bound is None:
        return f"{found}; there is no bound to watch"
    alarm = "no alarm" if report.alarm_at is None else f"alarm at answer {report.alarm_at}"
    return f"{found}; {alarm} (bound {percent_up(report.bound)})"
