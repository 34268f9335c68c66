"""Values that every floor above uses: rows of token ids, confidence, results, checks, files. Needs numpy only."""
