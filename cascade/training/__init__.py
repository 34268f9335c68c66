"""Training: multi-exit second tiers and distilled first tiers. Needs the `train` extra.

multi_exit   the model: a Hugging Face backbone with a head at every exit
static       the cheapest first tier: a weighted mean of token embeddings and a small MLP
objectives   what the exits are trained on: joint, two-stage, detached, distilled
vocabulary   pruning a WordPiece vocabulary to what a task needs
data         labelled files to token ids
augmentation more text for distillation
loop         transformers' Trainer, configured once
exits        `cascade-train exits`
first_tier   `cascade-train first-tier`
crf          transitions of a linear-chain CRF over frozen answers
tag_crf      `cascade-train crf`
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
