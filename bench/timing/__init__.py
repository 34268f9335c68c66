"""Timing: what takes turns, what it ran on, how it is written. Medians of paired ratios are `cascade.core.statistics`.

interleaving   systems that take turns
machine        facts about the host
report_json    JSON files in pytest-benchmark's shape
console        tables, a progress bar, checks before minutes of work
"""
