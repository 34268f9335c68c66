"""Accuracy over speed: settings that were tried once, those on the front timed in turns beside fixed depths."""
