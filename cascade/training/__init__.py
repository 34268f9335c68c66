"""Training: multi-exit second tiers and distilled first tiers. Needs the `train` extra.

backbone       what both second tiers share: an encoder, its exits, tokens that stop early, checkpoints
multi_exit     a second tier for classification: a head on a pooled vector at every exit
tagging        a second tier for tagging: a linear head over every token at every exit
static         the cheapest first tier: a weighted mean of token embeddings and a small MLP
static_tagger  the cheapest first tier for tagging: an MLP on each piece and its neighbours
imitation      what distilling a first tier is: options, loss, the teacher's answers
students       the kinds of first tier, and how each begins from its teacher
objectives     what the exits are trained on: joint, two-stage, detached, distilled
vocabulary     pruning a WordPiece vocabulary to what a task needs
data           labelled files to token ids
tag_data       files of tagged sentences
tag_encoding   words to token ids that know where each word begins
augmentation   more text for distillation
checkpoint     what a run leaves behind
loop           transformers' Trainer, configured once
word_pass      one pass of a trained tagger over every word
sampling       which words of a training batch stop after which layer
crf            transitions of a linear-chain CRF over frozen answers
split          holding out a share of a file
options        options that several commands share
cli, tag_cli   the command line; what it does for taggers

exits, tag_exits             `cascade-train exits`
first_tier, tag_first_tier   `cascade-train first-tier`
self_sample                  `cascade-train self-sample`
tag_crf                      `cascade-train crf`
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
