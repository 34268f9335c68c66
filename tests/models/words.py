"""A vocabulary and a tokenizer that need no torch: what a child of a test imports is imported in milliseconds."""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

# fmt: off
WORDS = (
    "a", "an", "the", "film", "is", "was", "not", "very", "good", "bad", "dull", "bright", "plot", "actor", "scene",
    "and", "but", "it", "we", "they", "of", "in", "on", "to", "with", "who", "never", "always", "laugh", "cry", "long",
    "short", "warm", "cold", "story", "end", "begin",
)
# fmt: on
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = (*SPECIAL, *(chr(code) for code in range(33, 127)), *(f"##{chr(c)}" for c in range(97, 123)), *WORDS)
LETTERS = "abcdefghijklmnopqrstuvwxyzéשלוםمرحباпривет電影ქა"


def wordpiece(*, decoder: bool = True) -> tokenizers.Tokenizer:
    """Pieces of letters in several scripts, and the words."""
    vocabulary = dict.fromkeys((*VOCABULARY, *LETTERS, *(f"##{letter}" for letter in LETTERS)))
    ids = {token: number for number, token in enumerate(vocabulary)}
    made = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=50))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    made.add_special_tokens(list(SPECIAL))
    if decoder:
        made.decoder = decoders.WordPiece()
    return made
