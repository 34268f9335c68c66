"""Graphs and threads: the only room that touches ONNX Runtime."""
