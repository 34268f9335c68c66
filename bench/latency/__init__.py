"""Latency that a warm process does not show.

startup   import, first answer, memory, each in fresh processes
cli       `cascade-bench startup`
"""
