"""Checkpoints in, a bundle out. Needs the `export` extra.

stages     a family's backbone as packed torch modules
graphs     torch modules as ONNX graphs
quantise   int8 forms of those graphs
chain      running a chain of packed graphs on texts, to calibrate and to verify
tier1      the first tier through optimum
verify     ONNX against torch
export     all of it, written whole or not at all
cli        `cascade-export`
"""

from cascade.exceptions import MissingExtraError

try:
    import onnx as onnx
    import optimum as optimum
    import scipy as scipy
    import torch as torch
    import transformers as transformers
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise MissingExtraError(
        f'cascade_export needs the export extra, but {error.name} is missing; pip install "cascade-encoder[export]"'
    ) from error
