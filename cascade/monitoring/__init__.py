"""Watching a pipeline in use: a share of its answers is compared with full depth.

monitor     `Monitor`: the answers of a pipeline, and what is known of how often they differ
state       what was counted, the interval and the alarm; which answers are compared
shift       whether texts are of another kind than those of the calibration
sequential  bounds on a rate that hold at all times at once
"""
