"""Builders of tiny random checkpoints, shared by the tests: no network, no files from elsewhere, seconds at most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    BertForSequenceClassification,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from cascade.training.models.config import name_labels
from cascade.training.models.families import family_of
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade.training.models.static import StaticConfig, StaticForSequenceClassification
from tests.models import words

Model = TypeVar("Model", bound=torch.nn.Module)
Config = TypeVar("Config", bound=PretrainedConfig)

UNTYPED = ("distilbert", "mpnet", "deberta-v2", "modernbert")  # without token types
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "albert", *UNTYPED)
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")  # whose position ids begin at 2
DISENTANGLED = {  # as in DeBERTa-v3
    "relative_attention": True,
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 16,
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
}
LABELS = ("negative", "positive")
TAGS = ("NOUN", "VERB", "X")
SINGLE = "single_label_classification"
WORDS, SPECIAL, VOCABULARY = words.WORDS, words.SPECIAL, words.VOCABULARY
TEXTS = (
    "good",
    "a very good film",
    "the plot is dull and the actor was not bright , but we laugh",
    "bad",
    "it was never warm",
    "they cry in the long scene with the cold story and the very very very short end of it",
    "not bad !",
    "a story to begin with",
)


def tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of some 160 tokens that covers ASCII."""
    ids = {token: i for i, token in enumerate(dict.fromkeys(VOCABULARY))}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=50))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    made.add_special_tokens(list(SPECIAL))
    return made


def config(family: str = "bert", *, layers: int = 3, width: int = 16) -> PretrainedConfig:
    """The configuration of a tiny backbone of this family; its positions reach 64 tokens."""
    vocab = tokenizer().get_vocab_size()
    common = {"vocab_size": vocab, "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": 2}
    common |= {"intermediate_size": 2 * width, "max_position_embeddings": 64}
    own: dict[str, dict[str, Any]] = {
        "electra": {"embedding_size": 8},
        "ernie": {"use_task_id": False},
        "albert": {"embedding_size": 8, "hidden_act": "gelu_new", "num_hidden_groups": 2},
        "distilbert": {"hidden_dim": 2 * width},
        "deberta-v2": DISENTANGLED,
        "modernbert": {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3},
        **{name: {"max_position_embeddings": 66, "pad_token_id": 1} for name in AFTER_PADDING},
    }
    types = {} if family in UNTYPED else {"type_vocab_size": 1 if family in AFTER_PADDING else 2}
    return AutoConfig.for_model(family, **(common | types | own.get(family, {})))


def save_tokenizer(folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json`, as a trainer leaves them."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],  # transformers 5 leaves types out
    ).save_pretrained(folder)


def tier2(
    folder: Path,
    family: str = "bert",
    *,
    labels: Sequence[str] = LABELS,
    layers: Sequence[int] | None = None,
    pooling: str | Sequence[str] = "mean",
    problem_type: str = SINGLE,
    depth: int = 3,
    width: int = 16,
    seed: int = 1,
) -> MultiExitModel:
    """A multi-exit classifier in `folder`."""
    torch.manual_seed(seed)
    made = named(config(family, layers=depth, width=width), labels, problem_type)
    return kept(MultiExitModel(encoder(made), layers=layers, pooling=pooling), folder)


def backbone(folder: Path, family: str = "bert") -> Path:
    """A pre-trained encoder in `folder`, without a head."""
    torch.manual_seed(4)
    kept(AutoModel.from_config(config(family)), folder)
    return folder


def tagger(
    folder: Path,
    family: str = "bert",
    *,
    labels: Sequence[str] = TAGS,
    layers: Sequence[int] | None = None,
    depth: int = 3,
    width: int = 16,
    seed: int = 1,
) -> MultiExitTagger:
    """A multi-exit tagger in `folder`."""
    torch.manual_seed(seed)
    made = named(config(family, layers=depth, width=width), labels, None)
    return kept(MultiExitTagger(encoder(made), layers=layers), folder)


def tier1_transformer(
    folder: Path, *, labels: Sequence[str] = LABELS, problem_type: str = SINGLE, width: int = 16, seed: int = 2
) -> BertForSequenceClassification:
    """An ordinary classifier of one layer in `folder`."""
    torch.manual_seed(seed)
    made = named(config("bert", layers=1, width=width), labels, problem_type)
    return kept(BertForSequenceClassification(made), folder)


def tier1_static(
    folder: Path, *, labels: Sequence[str] = LABELS, problem_type: str = SINGLE
) -> StaticForSequenceClassification:
    """A static first tier in `folder`."""
    torch.manual_seed(3)
    made = StaticConfig(vocab_size=tokenizer().get_vocab_size(), width=16, max_position_embeddings=64)
    return kept(StaticForSequenceClassification(named(made, labels, problem_type)), folder)


def named(made: Config, labels: Sequence[str], problem_type: str | None) -> Config:
    name_labels(made, labels)
    made.problem_type = problem_type
    return made


def encoder(made: PretrainedConfig) -> Any:
    return AutoModel.from_config(made, **family_of(made).options)


def kept(model: Model, folder: Path) -> Model:
    """A model in `folder`, with its tokenizer and weights large enough that answers differ."""
    spread(model)
    saved: Any = model.eval()
    saved.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def spread(model: torch.nn.Module) -> None:
    """Weights as drawn by transformers are so small that every text gets the same answer; these are not."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
