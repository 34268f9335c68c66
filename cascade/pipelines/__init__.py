"""Texts in, labels or tags out: what users load and call."""
