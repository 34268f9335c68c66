"""Full depth of an fp32 bundle says of any text what transformers' own pipelines say, in every family with exits."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, pipeline

import cascade
from cascade.policies.exits import never
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade_export import ExportOptions, export_bundle
from tests.models import tiny

COUNT: Final = int(os.environ.get("CASCADE_TEXTS", "100"))  # of each family; `make differential` asks for more
TOKENS: Final = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
BERT_LIKE: Final = dict(zip(TOKENS, tiny.SPECIAL, strict=True))
ROBERTA: Final = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ROBERTA_LIKE: Final = dict(zip(TOKENS, (ROBERTA[number] for number in (1, 3, 0, 2, 4)), strict=True))
BYTES: Final = ("roberta", "modernbert")
UNIGRAM: Final = ("xlm-roberta", "camembert", "albert", "deberta-v2")
CASED: Final = ("distilbert", "xlm-roberta", "camembert")
LABELS: Final = ("sport", "news", "other")
TAGS: Final = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "NOUN", "X-Y")
# fmt: off
ODD: Final = (
    "unforgettable", "xylophones", "naïve", "Zürich", "straße", "İstanbul", "ﬁne", "can't", "12.5%", "a_b", "x" * 30,
    "😀", "👩‍👩‍👧", "🇫🇷", "❤️", "e\u0301", "a\u0308\u0323", "\u0301", "क्षि", "映画", "とても", "한국어", "好film",
    "!", "...", ",", "(", ")", "--", "’", "“", "GOOD", "Film", "THE", "\u00a0", "\t", "\n", "\r\n", "\u200b", "\u00ad",
    "שלום", "ไทย", "\ufeff", "\x07", "▁", "Ġ", "##s", "##",
)
# fmt: on
SHORT: Final = ("", " ", "  \n", ".", "a", "A", "好", "😀", "\u0301", "\u200b", "##", "good ", " good", "good\n")


def tokenizer(family: str) -> tokenizers.Tokenizer:
    """A tiny tokenizer of the kind that this family has: WordPiece, byte-level BPE, or Unigram over Metaspace."""
    after = family in tiny.AFTER_PADDING
    names = ROBERTA_LIKE if after else BERT_LIKE
    special = list(ROBERTA if after else tiny.SPECIAL)
    begin, end = ((names[name], special.index(names[name])) for name in ("cls_token", "sep_token"))
    if family in BYTES:
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        learned: dict[str, Any] = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, **learned)
        made.train_from_iterator([" ".join(tiny.WORDS), *tiny.TEXTS], trainer)
    elif family in UNIGRAM:
        pieces = [(token, 0.0) for token in special] + [(f"▁{word}", -5.0) for word in tiny.WORDS]
        pieces += [("▁", -3.0), ("映", -8.0), *((chr(code), -7.0) for code in range(33, 127))]
        made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=special.index(names["unk_token"])))
        lower = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        made.normalizer = normalizers.NFKC() if family in CASED else normalizers.Sequence(lower)
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    else:
        words = (*special, *tiny.VOCABULARY[len(tiny.SPECIAL) :])
        ids = {token: number for number, token in enumerate(dict.fromkeys(words))}
        made = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=names["unk_token"]))
        made.normalizer = normalizers.BertNormalizer(lowercase=family not in CASED)
        made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    if family == "roberta":
        made.post_processor = processors.RobertaProcessing(end, begin, add_prefix_space=False)
    else:
        single, last = f"{begin[0]} $A {end[0]}", end[0]
        pair = f"{single} {last} $B {last}" if after else f"{single} $B:1 {last}:1"
        made.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[begin, end])
    made.add_special_tokens([*special[:-1], AddedToken(special[-1], lstrip=after, special=True)])
    return made


def both(
    family: str,
    folder: Path,
    *,
    tagging: bool,
    types: bool = True,
    labels: Sequence[str] = (),
    problem: str | None = None,
) -> tuple[Any, Any]:
    """A fine-tuned checkpoint in transformers' pipeline, and full depth of a bundle made of it.

    `types`: its tokenizer gives token types, where the model reads them; `problem`: the kind, of one label per text if
    left out.
    """
    inner, own, exits, labels = (
        tokenizer(family),
        folder / "own",
        folder / "exits",
        labels or (TAGS if tagging else LABELS),
    )
    config: Any = tiny.named(tiny.config(family, layers=2), labels, problem)
    config.vocab_size = inner.get_vocab_size()
    config.max_position_embeddings = 128 + 2 * (family in tiny.AFTER_PADDING)
    torch.manual_seed(7)
    kind: Any = getattr(transformers, f"AutoModelFor{'Token' if tagging else 'Sequence'}Classification")
    tiny.kept(kind.from_config(config), own)
    names: dict[str, Any] = dict(ROBERTA_LIKE if family in tiny.AFTER_PADDING else BERT_LIKE)
    typed = [] if family in (*tiny.AFTER_PADDING, *tiny.UNTYPED) or not types else ["token_type_ids"]
    names["model_input_names"] = ["input_ids", "attention_mask", *typed]
    PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=128, **names).save_pretrained(own)
    task: Any = "token-classification" if tagging else "text-classification"
    multi_exit: Any = MultiExitTagger if tagging else MultiExitModel
    multi_exit.from_checkpoint(own, labels=labels).save_pretrained(exits)
    (exits / "tokenizer.json").write_text(load_tokenizer_text(own), encoding="utf-8")
    export_bundle(exits, None, folder / "bundle", options=ExportOptions(int8=False))
    bundle: Any = cascade.load(folder / "bundle", threads=1).with_exit_policy(never)
    return pipeline(task, model=str(own), device="cpu"), bundle


def texts(family: str, count: int) -> list[str]:
    """Short ones, and random words and odd strings with and without blanks between."""
    draw = random.Random(family)
    # A literal <pad> is left out where positions are counted from the padding's on: transformers gives it the
    # position of padding and moves those behind it, cascade counts every token.
    special = ROBERTA[:1] + ROBERTA[2:] if family in tiny.AFTER_PADDING else tiny.SPECIAL
    pools = (tiny.WORDS, tiny.WORDS, ODD, (*special, "<s>", "[SEP]"))
    made = list(SHORT)
    while len(made) < count:
        parts = [draw.choice(draw.choices(pools, (4, 4, 4, 1))[0]) for _ in range(draw.randint(1, 8))]
        made.append("".join(part + draw.choice((" ", " ", " ", "", "  ")) for part in parts))
    return made


def in_batches(theirs: Any, items: list[Any], **given: Any) -> tuple[list[Any], list[float]]:
    """Answers in the order of the items, and how close the two closest labels of each are.

    A batch holds rows of equal length: nothing is padded, so each row is computed as it is alone.
    """
    rows = [theirs.tokenizer(**item) if isinstance(item, dict) else theirs.tokenizer(item) for item in items]
    lengths = [len(row["input_ids"]) for row in rows]
    order = sorted(range(len(items)), key=lengths.__getitem__)
    answers: list[Any] = [None] * len(items)
    gaps: list[float] = [0.0] * len(items)
    seen: list[float] = []
    note: Any = lambda _, __, found: seen.extend(found.logits.sort().values.diff().flatten(1).amin(1).tolist())  # noqa: E731
    with theirs.model.register_forward_hook(note):
        for _, same_length in groupby(order, lengths.__getitem__):
            some = list(same_length)
            made = theirs([items[number] for number in some], batch_size=64, **given)
            for number, answer, gap in zip(some, made, seen, strict=True):
                answers[number], gaps[number] = answer, gap
            seen.clear()
    return answers, gaps


def decided(theirs: Any, family: str) -> list[str]:
    """Texts without labels so close that rounding says which is first, which few of them have."""
    drawn = texts(family, COUNT + COUNT // 20)
    _, gaps = in_batches(theirs, drawn)
    return [text for text, gap in zip(drawn, gaps, strict=True) if gap > 1e-4][:COUNT]


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]], case: Any) -> None:
    scores = np.array([answer.pop("score") for answer in wanted])
    others = np.array([answer.pop("score") for answer in found])
    assert found == wanted, case
    assert np.abs(others - scores).max(initial=0.0) <= 1e-4, case


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_texts_and_pairs(family: str, tmp_path: Path) -> None:
    theirs, ours = both(family, tmp_path, tagging=False)
    drawn = decided(theirs, family)
    # An empty second text is left out: the pipeline then reads a text alone, cascade a pair, as in training.
    pairs = [{"text": one, "text_pair": two} for one, two in zip(drawn, reversed(drawn), strict=True) if two]
    for items in (drawn, pairs[: 2 * COUNT // 5]):
        wanted, _ = in_batches(theirs, items, top_k=None)
        for item, one, two in zip(items, wanted, ours(items, top_k=None), strict=True):
            same(two, one, item)
    print(f"{family}: {len(drawn):,} texts and {len(pairs[: 2 * COUNT // 5])} pairs are equal")


def test_pairs_of_a_model_that_is_told_no_token_types(tmp_path: Path) -> None:
    theirs, ours = both("bert", tmp_path, tagging=False, types=False)
    drawn = decided(theirs, "bert")[:40]
    pairs = [{"text": one, "text_pair": two} for one, two in zip(drawn, reversed(drawn), strict=True) if two]
    wanted, _ = in_batches(theirs, pairs, top_k=None)
    for item, one, two in zip(pairs, wanted, ours(pairs, top_k=None), strict=True):
        same(two, one, item)
    again = AutoTokenizer.from_pretrained(tmp_path / "bundle")("good", "bad")
    assert not any(again["token_type_ids"])


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words:UserWarning")  # its rule is ours, too
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_entities(family: str, tmp_path: Path) -> None:
    theirs, ours = both(family, tmp_path, tagging=True)
    drawn = decided(theirs, family)
    for given in ({"aggregation_strategy": name} for name in ("none", "simple", "first", "average", "max")):
        wanted, _ = in_batches(theirs, drawn, **given)
        for text, one, two in zip(drawn, wanted, ours(drawn, **given), strict=True):
            same(two, one, (given, text))
    print(f"{family}: {len(drawn):,} texts are equal, in each way of aggregation")
