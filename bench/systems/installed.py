"""What one install loads, with whichever `cascade` is on its path, by names that every version has.

Its text is given to an interpreter behind that of `systems.worker`, so it imports the standard library and `cascade`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class _Install:
    """A bundle as configured, or at full depth."""

    def __init__(self, job: dict[str, Any], *, full: bool) -> None:
        cascade: Any = importlib.import_module("cascade")
        self.said = f"cascade {cascade.__version__} in {Path(cascade.__file__).parent}"
        pipeline = cascade.Tagger if job["tagging"] else cascade.Classifier
        self.model = pipeline.from_pretrained(job["model"], threads=job["threads"])
        if full:
            policies: Any = importlib.import_module("cascade.policies")
            self.model = self.model.with_router(policies.defer_all).with_exit_policy(policies.never)

    def __call__(self, items: Sequence[Any], _batch_size: int) -> Sequence[Any]:
        made = self.model.predict(items)
        return list(made.tags if hasattr(made, "tags") else made.labels)


LOADERS = {"full": lambda job: _Install(job, full=True), "cascade": lambda job: _Install(job, full=False)}
"""By kind, from the fields of a job."""
