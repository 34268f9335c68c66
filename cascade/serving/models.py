"""`Models`: the bundles that a process serves, by name, each with a batcher; reloading them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from cascade.core.limits import Limits
from cascade.exceptions import OptionError
from cascade.serving.batcher import Batcher
from cascade.serving.errors import Refused
from cascade.serving.load import Late
from cascade.serving.metrics import Metrics
from cascade.serving.served import Served

STOP_SECONDS: Final = 30.0


class Models:
    """What answers: a batcher for each bundle. The first is the default, for requests that name none.

    `served`: bundles of different names; `limits`: of each batcher; `metrics`: what all of them count in.
    """

    def __init__(self, served: Sequence[Served], limits: Limits, metrics: Metrics) -> None:
        names = [one.name for one in served]
        if not names or len(set(names)) < len(names):
            raise OptionError(f"models must have different names, got {', '.join(names) or 'none'}; give NAME=PATH")
        self.limits, self.metrics, self.default = limits, metrics, names[0]
        late = Late()
        self.batchers = {one.name: Batcher(one, limits, metrics, late) for one in served}

    @property
    def overloaded(self) -> bool:
        """Whether a request would wait for too long, whichever it asks: it is refused before it is read."""
        return all(batcher.overloaded for batcher in self.batchers.values())

    def of(self, name: str | None = None) -> Batcher:
        """The batcher of a bundle, of the default one without a name; a 404 where there is none."""
        batcher = self.batchers.get(name or self.default)
        if batcher is None:
            known = ", ".join(sorted(self.batchers))
            raise Refused(f"model must be one of {known}, got {str(name)[:100]!r}", 404, "Validation")
        return batcher

    @property
    def healthy(self) -> bool:
        """Whether all batchers answer."""
        return all(batcher.healthy for batcher in self.batchers.values())

    def start(self) -> None:
        """Start all batchers."""
        for batcher in self.batchers.values():
            batcher.start()

    async def stop(self) -> None:
        """Answer what was accepted, for half a minute at most, and end."""
        ends = (asyncio.to_thread(batcher.stop, seconds=STOP_SECONDS) for batcher in self.batchers.values())
        await asyncio.gather(*ends)

    async def reload(self) -> None:
        """Read all bundles again and swap them, all or, with a `BundleError`, none; what is under way has the old."""

        def swap() -> None:
            fresh = [batcher.served.reload() for batcher in self.batchers.values()]
            for batcher, served in zip(self.batchers.values(), fresh, strict=True):
                batcher.swap(served)

        await asyncio.to_thread(swap)
