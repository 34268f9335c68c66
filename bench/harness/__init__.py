"""Regression check of `make bench`; it is no part of the tests.

check             ratios of works that take turns in one run, against the reference ratios
ratios            which works, and which of their ratios
plain             two works that know nothing of the engine, to compare with
reference_ratios  the file of ratios to hold, by bundle and kind of CPU
"""
