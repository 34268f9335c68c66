import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests import ONNX Runtime before `cascade.runtime.backend`, too

from cascade.core.console import QUIET

os.environ.update(QUIET)  # as each command does before it imports other libraries, which tests import before
