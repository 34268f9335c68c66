"""Cascaded, early-exiting text classification on CPUs."""

__version__ = "0.1.0"
