"""`cascade demo`: the project's own sentences through the bundles that come with it.

The sentences (`*.jsonl` in this folder) were written for this project and are in no training set.
"""
