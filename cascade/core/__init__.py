"""Values for every floor above: rows of token ids, confidence, results, checks, files, medians. Needs numpy only."""
