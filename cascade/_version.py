"""The version, for packaging and for what is written into bundles."""

__version__ = "0.1.0"
