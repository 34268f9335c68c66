"""Training: multi-exit second tiers and distilled first tiers. Needs the `train` extra.

task          what a model is for: classification or tagging, as one value
data          from files to rows of token ids with labels, and to batches
augmentation  more rows that no one labelled
models        the torch models of both tiers
recipes       what each command does
run           one training from a checkpoint to a folder
loop          its steps, epochs and checkpoints
units         what the loop and the recipes read of a batch: logits and answers by unit, be it a text or a word
checkpoint    a checkpoint's tokenizer, and one with fewer pieces
options       options that several commands share
cli           the command line
"""

from cascade.exceptions import need

need("cascade.training", "train", "torch", "transformers")
