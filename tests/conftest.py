"""Settings for all tests: hypothesis measures no time, because a loaded machine is no fault of the code."""

from hypothesis import settings

settings.register_profile("cascade", deadline=None, print_blob=True)
settings.load_profile("cascade")
