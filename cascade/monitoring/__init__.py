"""Watching a pipeline in use: a share of its answers is compared with full depth."""
