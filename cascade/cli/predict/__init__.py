"""`cascade predict`: rows of a file to lines of JSON, or of tables to tables, in order, in constant memory.

command  the options, the pipeline that they ask for, and what is said of shadow sampling
tables   which inputs and outputs make a job, and what is asked of `cascade.jobs`
lines    what a line holds: labels, tags or entities; a buffer of them answered and written together
"""
