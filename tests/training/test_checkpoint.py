"""What is read of a checkpoint beside its weights: the tokenizer that transformers would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from cascade.exceptions import OptionError
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.data import tokenizer_of
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
    told = {"tokenizer_class": "NoSuchTokenizer", "model_input_names": ["input_ids", "token_type_ids"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    written = (tmp_path / "tokenizer.json").read_text()
    found, own = json.loads(load_tokenizer_text(tmp_path)), json.loads(written)
    assert (found["model"], found["post_processor"]) == (own["model"], own["post_processor"])


AROUND = {
    "a template": None,
    "two tokens": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "four tokens": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "bytes": processors.ByteLevel(),
    "two, bytes first": processors.Sequence([processors.ByteLevel(), tiny.tokenizer().post_processor]),
}


@pytest.mark.parametrize("names", [None, ["input_ids", "attention_mask"], ["input_ids", "token_type_ids"]])
@pytest.mark.parametrize("kind", AROUND)
def test_token_types_are_what_transformers_gives_a_model(kind: str, names: list[str] | None, tmp_path: Path) -> None:
    inner = tiny.tokenizer()
    inner.post_processor = AROUND[kind] or inner.post_processor
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    tiny.config().save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    told = {} if names is None else {"model_input_names": names}
    file.write_text(json.dumps({**json.loads(file.read_text()), **told}))
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), tokenizer_of(load_tokenizer_text(tmp_path), max_length=64)
    for item in (("a good film", "it was dull"), ("好", "not [SEP] bad"), ("a story",)):
        found, rows = theirs(*item), ours.encode([item if len(item) > 1 else item[0]]).units.rows
        assert rows.ids.tolist() == found["input_ids"]
        assert rows.types.tolist() == found.get("token_type_ids", [0] * len(rows.ids))


def test_transformers_5_gives_its_own_class_no_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise ValueError("Tokenizer class TokenizersBackend does not exist\nor is not imported.")

    tiny.config().save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    for _ in range(2):  # as installed, and as in transformers 4
        types = tokenizer_of(load_tokenizer_text(tmp_path), max_length=64).encode([("good", "bad")]).units.rows.types
        assert not types.any()
        monkeypatch.setattr(AutoTokenizer, "from_pretrained", unknown)
    said = "TokenizersBackend does not exist or is not imported; install the release that saved it"
    with pytest.raises(OptionError, match=said):
        load_tokenizer_text(tmp_path, known=True)
