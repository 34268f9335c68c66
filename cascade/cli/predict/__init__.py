"""`cascade predict`: rows of a file to lines of JSON, in order, in constant memory.

command    the options, and the pipeline that they ask for
lines      what a line holds: labels, tags or entities; the writer that keeps rows, answers and counts together
shadowing  the options about shadow sampling, and what is said of it
"""
