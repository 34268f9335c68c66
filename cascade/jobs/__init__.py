"""Tables in, tables out: jobs that go on where they were. Needs the `jobs` extra.

inputs     files, folders and patterns; the columns of each file, checked before anything runs
cutting    which rows of which files make a part
rows       the rows of a part, in blocks for the model
answers    what a block is answered with, as columns
parts      blocks as they are answered, whole parts, and one file of all parts
leases     who works on a part
job        what a job is made of, written beside its parts and compared when it goes on
running    one process or several that work on the parts
ray        workers on a cluster; a step of a Ray Dataset (needs the extra ray)
"""

from cascade.exceptions import MissingExtraError

try:
    import pyarrow as pyarrow  # noqa: ICN001  # nobody uses it here
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise MissingExtraError(
        'cascade.jobs needs the jobs extra, but pyarrow is missing; pip install "cascade-encoder[jobs]"'
    ) from error

from cascade.jobs.running import predict_tables
from cascade.jobs.settings import Settings

__all__ = ["Settings", "predict_tables"]
