"""Thresholds without a guarantee: they keep a bound on the examples that they were chosen on.

points              policies, and what they did
texts               a classifier's, replayed and chosen
words, leaving      a tagger's, replayed; choosing: the best of them run
plain               a share to defer, or a latency
"""
