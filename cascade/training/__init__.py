"""Training: multi-exit second tiers and distilled first tiers. Needs the `train` extra.

models         the torch models of both tiers
recipes        what each command does
vocabulary     pruning a WordPiece vocabulary to what a task needs
data           labelled files to token ids
tag_data       files of tagged sentences
tag_encoding   words to token ids that know where each word begins
augmentation   more text for distillation
checkpoint     what a run leaves behind
loop           transformers' Trainer, configured once
split          holding out a share of a file
options        options that several commands share
cli, tag_cli   the command line; what it does for taggers
"""

from cascade.exceptions import MissingExtraError

try:
    import accelerate as accelerate
    import torch as torch
    import transformers as transformers
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise MissingExtraError(
        f'cascade.training needs the train extra, but {error.name} is missing; pip install "cascade-encoder[train]"'
    ) from error
