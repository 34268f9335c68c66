"""Before and after: how many times as fast B is as A, paired by repeat, with intervals.

files     two JSON files of measurements
installs  two installs of this package, in turns
worker    the far end of one install
cli       `cascade-bench compare`
"""
