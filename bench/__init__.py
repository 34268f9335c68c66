"""Benchmarks: what a bundle costs in seconds on this machine, beside what it is right about.

timing/    what takes turns, what it ran on, how it is written
systems/   systems under test: a bundle under several policies, external baselines in processes
table/     accuracy beside seconds of every way to run a bundle; reading labelled files
curve      accuracy over speed: settings of the front, timed
peers/     the same checkpoint through other libraries, in bulk and one text at a time
serve/     requests a second that a server answers in time, beside FastAPI servers
compare    two installs of this package, as ratios with intervals (`make bench`)
cli        the group `cascade-bench`; options: what its commands share
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in `cascade.runtime.backend`, for peers' processes too
