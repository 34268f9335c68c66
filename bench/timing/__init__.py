"""Timing: what takes turns, what it ran on, how it is written. Medians of ratios are `cascade.core.statistics`."""
