"""What is read of a checkpoint beside its weights: the tokenizer that transformers would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertTokenizerFast

from cascade.training.checkpoint import load_tokenizer_text
from tests.models import tiny

TEXT = "The FILM was dúll 好 [MORE]"


@pytest.mark.parametrize(
    "told",
    [
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"additional_special_tokens": ["[MORE]"]},
    ],
)
def test_the_configuration_has_the_last_word(told: dict[str, Any], tmp_path: Path) -> None:
    tiny.config().save_pretrained(tmp_path)
    BertTokenizerFast(tokenizer_object=tiny.tokenizer()).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    before = load_tokenizer_text(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    text = load_tokenizer_text(tmp_path)
    assert text != before
    assert Tokenizer.from_str(text).encode(TEXT).ids == AutoTokenizer.from_pretrained(tmp_path)(TEXT)["input_ids"]
    config = tmp_path / "config.json"  # of a checkpoint with exits the file is what it was trained with
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cascade_exits": {"layers": [1]}}))
    assert load_tokenizer_text(tmp_path) == (tmp_path / "tokenizer.json").read_text()


def test_a_tokenizer_of_a_class_that_transformers_lacks(tmp_path: Path) -> None:
    tiny.config().save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "NoSuchTokenizer"}')
    written = (tmp_path / "tokenizer.json").read_text()
    found, own = json.loads(load_tokenizer_text(tmp_path)), json.loads(written)
    assert (found["model"], found["post_processor"]) == (own["model"], own["post_processor"])
