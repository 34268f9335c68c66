"""Tier 2 in packed form: a backbone's layers without padding, as torch modules, as ONNX graphs, and run on texts."""
