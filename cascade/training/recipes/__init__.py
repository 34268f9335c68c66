"""What each command of `cascade-train` does.

exits        `cascade-train exits`
first_tier   `cascade-train first-tier`
self_sample  `cascade-train self-sample`
crf          `cascade-train crf`
recorded     heads on a frozen backbone, whose states are recorded once
objectives   what the exits are trained on: joint, two-stage, detached, distilled
"""
