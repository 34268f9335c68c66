"""Thresholds without a guarantee: they keep a bound on the examples that they were chosen on.

points              policies, and what they did; which of a tagger's to take
words               a tagger's, replayed
choosing            the cheapest of a classifier's; of a tagger's the best are run, by accuracy or f1
"""
