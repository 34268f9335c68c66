"""`cascade predict`: rows of a file to lines of JSON, in order, in constant memory.

command  the options, the pipeline that they ask for, and what is said of shadow sampling
lines    what a line holds: labels, tags or entities; the writer that keeps rows, answers and counts together
"""
