"""Regression check of `make bench`; it is no part of the tests."""
