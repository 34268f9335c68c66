"""Accuracy over speed: settings that were tried once, those on the front timed in turns beside fixed depths.

settings   which settings, the front, a handful of them
measuring  the run
rendering  as text and JSON
plot       as a picture (needs the `bench` extra)
cli        `cascade-bench curve`
"""
