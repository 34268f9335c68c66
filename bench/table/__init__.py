"""The table: accuracy beside seconds of every system of a bundle, all measured in one interleaved run.

data         files of texts or sentences, and what is right about them
measuring    the run
conclusions  what the table says, in sentences
rendering    as text, Markdown and JSON
cli          `cascade-bench table`
"""
