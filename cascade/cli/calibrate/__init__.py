"""`cascade calibrate`: settings within an accuracy that is agreed to be lost, with a guarantee or without.

command    the options, and what goes together
run        load, read, certify or choose, write (needs the extra `calibrate`, as the next two)
show       an outcome for a terminal
data       the examples: read, checked against a bundle's labels, and doubts about them
"""
