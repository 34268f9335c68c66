"""Thresholds without a guarantee: they keep a bound on the examples that they were chosen on.

points              policies, and what they did; which of a tagger's to take
texts               a classifier's, replayed and chosen
words, tagger       a tagger's, replayed; the best of them run, by accuracy or f1
"""
