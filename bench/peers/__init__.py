"""The same checkpoint through other libraries: each in a process of its own, all taking turns.

running  processes that are converted for, loaded, given their best batch size, run in turns
single   one text at a time
table    accuracy, agreement, seconds and memory of each, and why the others have none
cli      `cascade-bench peers`
"""
