"""Latency that a warm process does not show: `startup`, its measurement and its command."""
