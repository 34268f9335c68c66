"""Two tiers as one: score with the first, route, score what was deferred with the second, merge. A cascade nests."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from cascade.core.confidence import evidence
from cascade.core.results import Routes, Stats
from cascade.core.rows import BoolArray, FloatArray, IntArray, ranges, read_only
from cascade.engine.inputs import Inputs
from cascade.engine.long_rows import RowTier
from cascade.engine.tier import Progress, Readable, Scores, Tier, as_inputs
from cascade.exceptions import CascadeError
from cascade.policies import routing, windows
from cascade.policies.routing import DeferAll, DeferNone, Router, RoutingState
from cascade.policies.windows import WindowPolicy, WindowState


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a cascade says about the units of its inputs, in their order.

    Attributes:
        inputs: what was read.
        probabilities: shape `(units, labels)`.
        routes: one per unit.
        stats: of the whole call.
    """

    inputs: Inputs
    probabilities: FloatArray
    routes: Routes
    stats: Stats


@dataclass(frozen=True, eq=False)
class Look:
    """What is known before the second tier runs.

    Attributes:
        inputs: what was read.
        scores: of the first tier; `None` if it was not run because all units are deferred.
        rest: what the second tier reads, the deferred units being its targets; `None` if no unit is deferred.
        numbers: which unit of the inputs each unit of `rest` is; `None`: they are the same. Shape `(rest units,)`.
    """

    inputs: Inputs
    scores: Scores | None
    rest: Inputs | None = None
    numbers: IntArray | None = None

    def merged(self, second: Scores) -> Scores:
        """The second tier's answers for deferred units, the first one's for the others. `second`: of `rest`."""
        first, rest = self.scores, self.rest
        if first is None or rest is None or self.numbers is None:
            return second
        chosen = slice(None) if rest.targets is None else rest.targets
        places = self.numbers[chosen]
        columns = {name: column.copy() for name, column in vars(first).items()}
        for name, column in vars(second[chosen].over(first[places])).items():
            columns[name][places] = column
        return Scores(**columns)


@dataclass(frozen=True)
class Meter:
    """Seconds by part of a call.

    Attributes:
        seconds: `tier1`, `route`, `tier2`, `merge`, ...; filled by the call.
        below: how many tiers there are below the cascade that writes here.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    below: int = 0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin


@dataclass(frozen=True, eq=False)
class Cascade:
    """Two tiers and the router between them: a tier again.

    Attributes:
        first: the cheap tier. Not run if `router` is `defer_all`.
        second: the accurate tier, perhaps a cascade. Not run if no unit is deferred.
        router: which units the second tier answers.
        blend: how much the first tier's answer counts beside the second one's where both were asked
            (`confidence.evidence`); 0 ignores it.
        windows: which runs of words the second tier reads around deferred ones; `None` where units are texts. With
            `defer_all` it reads whole sentences.
        multi_label: the labels are independent yes/no decisions.
    """

    first: Tier
    second: Tier
    router: Router
    blend: float = field(default=0.0, kw_only=True)
    windows: WindowPolicy | None = field(default=None, kw_only=True)
    multi_label: bool = field(default=False, kw_only=True)

    @property
    def labels(self) -> int:
        """How many labels there are."""
        return self.second.labels

    @property
    def leaves(self) -> tuple[Tier, ...]:
        """The single tiers inside, first to last."""
        return *self.first.leaves, *self.second.leaves

    def run(self, inputs: Readable, *, seconds: Mapping[str, float] | None = None) -> Outcome:
        """Answer all units, with routes and statistics. `seconds`: what was spent on them before, by part.

        Raises:
            OptionError: a router, the windows or an exit policy returned something other than what they must.
        """
        meter, given = Meter(dict(seconds or {})), as_inputs(inputs)
        return self.outcome(given, _ask(self, given, meter), meter)

    def score(self, inputs: Readable, *, progress: Progress | None = None) -> Scores:
        """Scores of all units; see `Tier.score`. The prior counts in the first tier that is run."""
        given = as_inputs(inputs)
        scores = _ask(self, given, Meter())
        if progress is not None:
            progress(len(scores) if given.targets is None else int(given.targets.sum()))
        return scores

    def look(self, inputs: Inputs, *, meter: Meter | None = None) -> Look:
        """Run the first tier and ask the router."""
        meter, targets = meter or Meter(), inputs.targets
        if isinstance(self.router, DeferAll):
            return Look(inputs, None, inputs)
        scores = _ask(self.first, inputs, meter)
        # What the first tier could not answer is deferred, whatever the router says.
        look, deferred = Look(inputs, scores), scores.tier == 0
        if targets is not None:
            deferred &= targets
        if deferred.any() or not isinstance(self.router, DeferNone):
            with meter("route"):
                if not isinstance(self.router, DeferNone):
                    deferred |= self._deferred(inputs, scores)
                if deferred.any():
                    look = self._deferring(look, scores, deferred)
        return look

    def finish(self, looks: Sequence[Look], *, meter: Meter | None = None) -> list[Scores]:
        """Run the second tier on what was deferred, all together. The scores of each look's inputs."""
        rests = [look.rest for look in looks if look.rest is not None]
        if not rests:
            return [look.scores for look in looks if look.scores is not None]
        meter, before = meter or Meter(), len(self.first.leaves)
        second = _ask(self.second, Inputs.join(rests), Meter(meter.seconds, meter.below + before)).above(before)
        with meter("merge"):
            made, end = list[Scores](), 0
            for look in looks:
                if look.rest is not None:
                    begin, end = end, end + look.rest.n_units
                    own = second[begin:end]
                    lost = (own.tier == 0) & (True if look.rest.targets is None else look.rest.targets)
                    if look.scores is None and lost.any():  # the first tier was to be spared: it answers what is left
                        own = own.over(_ask(self.first, look.inputs.asking(lost, look.rest.prior), meter))
                    made.append(look.merged(own))
                elif look.scores is not None:
                    made.append(look.scores)
        return made

    def outcome(self, inputs: Inputs, scores: Scores, meter: Meter) -> Outcome:
        """Scores of all inputs with routes and statistics."""
        encoded = inputs.encode()
        if not scores.tier.all():
            raise CascadeError(
                f"every unit must have a tier that answers it, got none for {int((scores.tier == 0).sum())} of "
                f"{len(scores)}; see the warnings, and put a tier that cannot fail before those that can"
            )
        routes = Routes(scores.tier, scores.exit_layer, scores.confidence, scores.failed)
        later = scores.exit_layer[scores.tier > 1]
        stats = Stats(
            texts=encoded.n_items,
            units=len(scores),
            tokens=encoded.units.rows.tokens,
            deferred=len(later),
            truncated=len(self.lost(inputs)),
            empty=len(encoded.empty),
            failed=int(np.count_nonzero(scores.failed)),
            exits={layer: count for layer, count in enumerate(np.bincount(later).tolist()) if layer and count},
            seconds=meter.seconds,
        )
        return Outcome(inputs, scores.probabilities, routes, stats)

    def lost(self, inputs: Inputs) -> IntArray:
        """Numbers of the items that lost tokens: cut by the encoder, or in the tier that read them all; rising."""
        encoded = inputs.encode()
        lost, tier = encoded.truncated, self._reader
        if isinstance(tier, RowTier):
            own = inputs.encode(tier.encoder)
            cut = tier.lost(own)
            if own is not encoded or len(cut):
                lost = np.union1d(np.union1d(lost, own.truncated), cut)
        return lost

    def _deferred(self, inputs: Inputs, scores: Scores) -> BoolArray:
        """Which units the router defers; context it does not see. Shape `(units,)`."""
        asked = slice(None) if inputs.targets is None else inputs.targets
        state = RoutingState(
            read_only(scores.probabilities[asked]),
            read_only(scores.confidence[asked]),
            read_only(inputs.lengths[asked]),
            self.multi_label,
        )
        deferred = np.zeros(len(scores), dtype=np.bool_)
        deferred[asked] = routing.decide(self.router, state)
        return deferred

    def _deferring(self, look: Look, scores: Scores, deferred: BoolArray) -> Look:
        """The look with what the second tier reads."""
        inputs, targets, prior = look.inputs, None, None
        if self.windows is None:
            numbers = np.flatnonzero(deferred)
            rest = inputs.select(numbers)
        else:
            state = WindowState(read_only(deferred), read_only(inputs.offsets), read_only(inputs.lengths))
            spans = windows.decide(self.windows, state)
            numbers = ranges(spans.starts, spans.stops - spans.starts)
            rest, targets = inputs.spans(spans.rows, spans.starts, spans.stops), deferred[numbers]
        if self.blend:
            prior = evidence(scores.probabilities[numbers], weight=self.blend, multi_label=self.multi_label)
        return Look(inputs, scores, rest.asking(targets, prior), numbers)

    @property
    def _reader(self) -> Tier:
        """The single tier that reads all inputs."""
        tier = self.second if isinstance(self.router, DeferAll) else self.first
        return tier._reader if isinstance(tier, Cascade) else tier


def _ask(tier: Tier, inputs: Inputs, meter: Meter) -> Scores:
    """What a tier says, its time noted in `meter`."""
    if isinstance(tier, Cascade):
        [scores] = tier.finish([tier.look(inputs, meter=meter)], meter=meter)
        return scores
    with meter(f"tier{meter.below + 1}"):
        return tier.score(inputs)
