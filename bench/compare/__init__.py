"""Before and after: how many times as fast B is as A, paired by repeat, with intervals."""
