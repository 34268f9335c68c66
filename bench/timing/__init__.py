"""Timing: medians of paired ratios, what takes turns, what it ran on, how it is written.

statistics     medians of paired ratios with exact intervals
interleaving   systems that take turns
machine        facts about the host
report_json    JSON files in pytest-benchmark's shape
console        tables, a progress bar, checks before minutes of work
"""
