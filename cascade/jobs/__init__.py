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

from cascade.exceptions import need

need("cascade.jobs", "jobs", "pyarrow")

from cascade.jobs.running import predict_tables  # noqa: E402  # the room guards its door
from cascade.jobs.settings import Settings  # noqa: E402

__all__ = ["Settings", "predict_tables"]
