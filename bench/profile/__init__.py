"""Where the time goes: milliseconds of each tier and stage over a grid of batches, by operator, beside the host's peak.

parts      the graphs of a bundle by themselves, and the grid
operators  ONNX Runtime's own profiler
peak       bare matrix products: what the host can do (needs the `bench` extra)
measuring  the run
cli        `cascade-bench profile`
"""
