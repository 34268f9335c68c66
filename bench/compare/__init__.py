"""Before and after: how many times as fast install B is as install A, in turns, with intervals."""
