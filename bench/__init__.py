"""Benchmarks: what a bundle costs in seconds on this machine, beside what it is right about.

- `statistics`: medians of paired ratios with exact intervals
- `interleaving`: contenders that take turns
- `machine`: what they ran on
- `data`: labelled files for a bundle
- `contenders`: tier 2 whole, cut and with exits, tier 1, the cascade
- `peers`: `transformers.pipeline` on the same checkpoint (needs the `bench` extra)
- `peer_kinds`, `peer_files`, `peer_texts`: what a user would pick instead, on the same checkpoint
- `peer_process`, `peer_server`, `peer_turns`, `peers_table`, `peers_cli`: each in a process of its own, in turns
- `peer_single`, `peers_single`: the same, one text at a time
- `parts`, `profile`, `profile_cli`: milliseconds of each tier and stage over a grid of batches
- `operators`, `ceiling`: by operator, and beside what this host can do (`cascade_bench.cost_model`: fitted)
- `overhead`, `overhead_cli`: the share of `predict` during which no graph runs, by parts
- `endless`, `endless_cli`: a million texts through `stream`: seconds per text, memory, threads against one
- `precisions`, `precisions_export`, `precisions_cli`: tier 2 in fp32 and every int8 form: time, agreement, invariance
- `base`, `base_cli`: a model of BERT base's size with random weights, full depth beside optimum and ONNX Runtime
- `scenarios`, `scenarios_cli`: one by one, all at once, as a server
- `harness`: pytest-benchmark suites of the pieces
- `table`, `verdicts`, `render`: all of that in one run, as sentences, text, Markdown and JSON
- `startup`: import, first answer, memory, each in fresh processes
- `operating`: choosing a bundle's thresholds
- `tag_data`, `taggers`, `rivals`, `tag_peers`, `tag_operating`: the same for taggers, whose words leave one by one
- `cli`, `tag_cli`, `console`: `cascade-bench`

It uses the public names of `cascade` only.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in `cascade.runtime.backend`, for the peers' processes too

__all__: list[str] = []
