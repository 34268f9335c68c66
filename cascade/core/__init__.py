"""Values for every floor above: rows of ids, confidence, results, checks, limits, files, medians. Needs numpy only."""
