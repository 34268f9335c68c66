"""From files to token ids.

examples      texts with labels and sentences with tags, from files
encoding      token ids with label numbers, and how rows become a batch
vocabulary    which pieces of a vocabulary a task needs
augmentation  more text for distillation
"""
