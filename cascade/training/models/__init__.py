"""The torch models of both tiers, and how a first tier begins from its teacher.

backbone       what both second tiers share: an encoder, its exits, tokens that stop early, checkpoints
config         what a checkpoint's `config.json` says
multi_exit     a second tier for classification: a head on a pooled vector at every exit
tagging        a second tier for tagging: a linear head over every token at every exit
adapting       adapters while a model is trained
families       where each family of encoders keeps its parts
teacher        what a first tier can be distilled from
whole          a fine-tuned model of transformers as it is
rows           embeddings of some tokens only
static         the cheapest first tiers: embeddings of tokens and their neighbours, and a small MLP
students       the kinds of first tier
crf            transitions of a linear-chain CRF over frozen answers
"""
