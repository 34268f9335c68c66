"""Simulations of what is promised, on recorded answers: `python -m tests.simulations.certificates`, `.shift`."""
