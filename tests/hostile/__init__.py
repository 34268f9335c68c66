"""Hostile texts, files and bundles thrown at the package, and its commands killed: `python -m tests.hostile --help`."""
