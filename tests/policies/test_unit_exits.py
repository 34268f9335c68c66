from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.confidence import certainty
from cascade.exceptions import OptionError
from cascade.policies import exits
from cascade.policies.exits import AtExit, ExitPolicy, ExitState, MaxProbability, any_of
from cascade.policies.registry import ModelInfo
from cascade.policies.unit_exits import SentenceExit, TokenExit, UnitState

MODEL = ModelInfo(layers=(2, 4, 6), words=True)


def p_of(unsure: float) -> list[float]:
    """Probabilities of two labels whose entropy by log(2) is `unsure`."""
    low, high = 0.5, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        certain = float(certainty(np.array([[middle, 1 - middle]], dtype=np.float64))[0])
        low, high = (middle, high) if 1 - certain > unsure else (low, middle)
    return [high, 1 - high]


def state(*sentences: list[float | None], exit_: int = 0) -> UnitState:
    """Sentences of words, each with its uncertainty; `None`: the word has left."""
    flat = [word for sentence in sentences for word in sentence]
    places = [place for place, word in enumerate(flat) if word is not None]
    p = np.array([p_of(word) for word in flat if word is not None], dtype=np.float32).reshape(-1, 2)
    return UnitState(
        exit_index=exit_,
        exit_layer=MODEL.layers[exit_],
        last=False,
        probabilities=p,
        history=np.repeat(p[:, None], exit_ + 1, axis=1),
        sentences=np.repeat(np.arange(len(sentences)), [len(sentence) for sentence in sentences]),
        places=np.array(places, dtype=np.int64),
        ids=np.zeros(len(places), dtype=np.int64),
    )


@pytest.mark.parametrize("policy", [TokenExit(0), TokenExit(0, window=3), SentenceExit(0)])
def test_score_is_certainty_and_what_exited_is_sure(policy: TokenExit) -> None:
    now = state([0.1, None], [None, 0.9])
    np.testing.assert_allclose(policy.score(now), [0.9, 0.1], atol=1e-5)


def test_token_exit_tokee() -> None:
    # TOKEE, ACL 2021, section 3.3: word j leaves if the largest u in the window around it is below the threshold.
    now = state([0.01, 0.02, 0.50, 0.03, 0.04])
    np.testing.assert_array_equal(TokenExit(0.1)(now), [True, True, False, True, True])
    np.testing.assert_array_equal(TokenExit(0.1, window=3)(now), [True, False, False, False, True])
    np.testing.assert_array_equal(TokenExit(0.1, window=5)(now), [False] * 5)
    np.testing.assert_array_equal(TokenExit(0.6, window=5)(now), [True] * 5)


UNSURE = st.one_of(st.none(), st.sampled_from([0.0, 0.05, 0.2, 0.4, 0.6, 0.9, 1.0]))
SENTENCES = st.lists(
    st.lists(UNSURE, min_size=1, max_size=8).filter(lambda row: any(word is not None for word in row)), max_size=5
)


@given(SENTENCES, st.sampled_from([1, 3, 5, 7, 15, 99]), st.sampled_from([0.0, 0.1, 0.5, 0.95]))
def test_token_exit_equals_a_loop(sentences: list[list[float | None]], window: int, threshold: float) -> None:
    expected = []
    for words in sentences:
        for place, word in enumerate(words):
            if word is not None:
                around = words[max(place - window // 2, 0) : place + window // 2 + 1]
                expected.append(max(other or 0.0 for other in around) <= threshold)
    assert TokenExit(threshold, window=window)(state(*sentences)).tolist() == expected


@given(SENTENCES, st.sampled_from([0.0, 0.1, 0.5, 0.95]))
def test_sentence_exit_equals_a_loop(sentences: list[list[float | None]], threshold: float) -> None:
    expected = []
    for words in sentences:
        of_sentence = max(word or 0.0 for word in words)
        expected += [of_sentence <= threshold] * sum(word is not None for word in words)
    assert SentenceExit(threshold)(state(*sentences)).tolist() == expected


def test_sentence_exit_sentee() -> None:
    # SENTEE, ACL 2021, section 3.2: the sentence leaves if its largest uncertainty is below the threshold.
    now = state([0.01, 0.30], [0.02, 0.03, 0.04], [0.90])
    np.testing.assert_array_equal(SentenceExit(0.2)(now), [False, False, True, True, True, False])


def test_thresholds_per_exit_and_combinations() -> None:
    policy = TokenExit((0.1, 0.4))
    assert policy(state([0.3])).tolist() == [False]
    assert policy(state([0.3], exit_=1)).tolist() == [True]
    both = any_of(policy, MaxProbability(0.99), AtExit(4))
    assert exits.decide(both, state([0.3, 0.01])).tolist() == [False, True]
    assert exits.decide(both, state([0.9, 0.01], exit_=1)).tolist() == [True, True]


@pytest.mark.parametrize("policy", [TokenExit(0.5), TokenExit(0.5, window=3), SentenceExit(0.5)])
def test_texts_are_no_words(policy: ExitPolicy) -> None:
    p = np.ones((2, 1), dtype=np.float32)
    now = ExitState(exit_index=0, exit_layer=2, last=False, probabilities=p, history=p[:, None])
    message = r"Exit\w* must be asked about words, got whole texts; use it in a Tagger"
    with pytest.raises(OptionError, match=message):
        policy(now)
    for one in (policy, any_of(policy)):  # and when it is set
        with pytest.raises(OptionError, match=message):
            exits.check(one, ModelInfo(layers=(2, 4, 6)))
