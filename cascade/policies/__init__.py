"""Policies: pure functions of a state that return a mask. All of them are frozen values with a repr.

routing      which units a tier defers                    exits       where units exit a tier
unit_exits   exits that see a word's sentence             windows     which words a tier reads around deferred ones
decoding     labels from probabilities                    batching    which rows run together
reading      after which rows of a long text its answer stands
settings     `Policies`: all of a bundle's in one value   registry    their written form; classes of your own; `Tunable`
"""

from cascade.policies.batching import TokenBudget
from cascade.policies.decoding import Crf, Viterbi, argmax
from cascade.policies.exits import AtExit, Entropy, Margin, MaxProbability, Never, Patience, Settled, any_of, never
from cascade.policies.reading import InOrder
from cascade.policies.registry import ModelInfo, Tunable
from cascade.policies.routing import Budget, Threshold, defer_all, defer_none
from cascade.policies.settings import Policies
from cascade.policies.unit_exits import SentenceExit, TokenExit
from cascade.policies.windows import Windows, whole_sentences

__all__ = [
    "AtExit", "Budget", "Crf", "Entropy", "InOrder", "Margin", "MaxProbability", "ModelInfo", "Never",
    "Patience", "Policies", "SentenceExit", "Settled", "Threshold", "TokenBudget", "TokenExit", "Tunable", "Viterbi",
    "Windows", "any_of", "argmax", "defer_all", "defer_none", "never", "whole_sentences",
]  # fmt: skip
