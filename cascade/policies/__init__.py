"""Policies: pure functions of a state that return a mask. All of them are frozen values with a repr.

routing      which units tier 1 defers                 exits        where units leave a tier
word_exits   exits that see a word's sentence          windows      which words tier 2 reads around deferred ones
decoding     labels from probabilities                 batching     which rows run together
"""

from cascade.policies.batching import TokenBudget
from cascade.policies.decoding import Crf, MeanField, Viterbi, argmax
from cascade.policies.exits import AtExit, Entropy, Margin, MaxProbability, Never, Patience, all_of, any_of, never
from cascade.policies.learned_routing import Learned
from cascade.policies.routing import Budget, Threshold, defer_all, defer_none
from cascade.policies.windows import Windows, whole_sentences
from cascade.policies.word_exits import SentenceExit, TokenExit

__all__ = [
    "AtExit",
    "Budget",
    "Crf",
    "Entropy",
    "Learned",
    "Margin",
    "MaxProbability",
    "MeanField",
    "Never",
    "Patience",
    "SentenceExit",
    "Threshold",
    "TokenBudget",
    "TokenExit",
    "Viterbi",
    "Windows",
    "all_of",
    "any_of",
    "argmax",
    "defer_all",
    "defer_none",
    "never",
    "whole_sentences",
]
