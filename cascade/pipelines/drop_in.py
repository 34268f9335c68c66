"""`pipeline`: for bundles what transformers' function of that name is for checkpoints; one import is all that changes.

It takes the arguments that transformers takes for these two tasks, and gives what it gives: nesting, keys and order.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from cascade.core.checks import check_whole
from cascade.engine.streaming import StreamOptions, buffers
from cascade.exceptions import CascadeWarning, OptionError, TaskError
from cascade.pipelines.classifier import LEFT_OUT, Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.parts import with_options
from cascade.pipelines.tagger import Tagger
from cascade.text.entities import IGNORED, AggregationStrategy, strategy_of
from cascade.text.texts import check_texts
from cascade.text.word_encoding import check_words

Given: TypeAlias = Mapping[str, Any]

TASKS: Final[Mapping[str, type[Classifier | Tagger]]] = {
    "text-classification": Classifier,
    "sentiment-analysis": Classifier,
    "token-classification": Tagger,
    "ner": Tagger,
}
_OF_TEXTS: Final = ("top_k", "return_all_scores", "function_to_apply")
_OF_TAGS: Final = (
    "aggregation_strategy", "ignore_labels", "stride", "grouped_entities", "ignore_subwords", "is_split_into_words",
    "delimiter",
)  # fmt: skip
_OF_BOTH: Final = ("truncation", "max_length", "padding")
_CUTS: Final = {True: True, "longest_first": True, "only_first": True, False: False, "do_not_truncate": False}


@dataclass(frozen=True, eq=False)
class DropIn:
    """A bundle, `model`, that is called as a pipeline of transformers is. Make one with `cascade.pipeline`.

    `task`: `text-classification` or `token-classification`; `asked`: arguments for calls that do not say otherwise.
    """

    model: Classifier | Tagger
    task: str
    asked: Given

    # fmt: off
    def __call__(
        self, inputs: Any, *,
        top_k: Any = LEFT_OUT, return_all_scores: bool | None = None, function_to_apply: Any = None,
        truncation: bool | str | None = None, max_length: int | None = None, padding: bool | str | None = None,
        aggregation_strategy: AggregationStrategy | str | None = None, ignore_labels: Sequence[str] | None = None,
        stride: int | None = None, grouped_entities: bool | None = None, ignore_subwords: bool | None = None,
        is_split_into_words: bool | None = None, delimiter: str | None = None,
        batch_size: int | None = None, num_workers: int | None = None,
    ) -> Any:  # a dict, lists of dicts, or an iterator of these: no union of them is of use to a caller
        # fmt: on
        """Answer as transformers does; the arguments are those of `pipeline`, for this call.

        `inputs`: a text, of a classifier a pair `{"text": ..., "text_pair": ...}` too, or a list or column of these. Of
        an iterator, or a data set such as `KeyDataset`, the answers are an iterator, in constant memory. A text that
        cannot be read is an `InputError` with its position, an argument that is not obeyed, or is of the other task, an
        `OptionError`.
        """
        said = _said(locals(), self.model)
        asked, tags = {**self.asked, **said}, isinstance(self.model, Tagger)
        answer = partial(_entities if tags else _labels, _reader(self.model, asked), asked)
        one = isinstance(inputs, list | str) and not all(isinstance(words, list) for words in inputs)
        if asked.get("is_split_into_words") and one:
            inputs = [inputs]
        if isinstance(inputs, str | Mapping):
            [found] = answer([inputs])
            return [found] if isinstance(inputs, str) and not tags and "top_k" not in said else found
        if hasattr(inputs, "__getitem__") and not hasattr(inputs, "__iter__"):
            inputs = iter(inputs)
        texts = check_texts(inputs, pairs=not tags)
        if isinstance(texts, Sequence):
            return answer(texts)
        return (one for some in buffers(texts, options=StreamOptions()) for one in answer(some))


def _said(given: Given, model: Classifier | Tagger) -> dict[str, Any]:
    """The arguments that say something; an `OptionError` for what a bundle of this kind has not, or does not obey."""
    names = (*_OF_TEXTS, *_OF_TAGS, *_OF_BOTH)
    said = {name: given[name] for name in names if given[name] is not (LEFT_OUT if name == "top_k" else None)}
    for name in set(said) & set(_OF_TEXTS if isinstance(model, Tagger) else _OF_TAGS):
        raise OptionError(f"{name} must not be given to a bundle for {model.task}, got {said[name]!r}; leave it out")
    for name in {"max_length", "stride"} & set(said):
        check_whole(name, said[name], "leave it out", least=int(name == "max_length"))
    if said.get("stride", 0) >= (most := model.tokenizer.max_length):
        raise OptionError(f"stride must be below {most}, the tokens of a row, got {said['stride']}; lower it")
    own = "none" if model.regression else "sigmoid" if model.multi_label else "softmax"
    asked = given["function_to_apply"]
    applied = own if asked is None else str(getattr(asked, "value", asked)).lower()
    if applied != own:
        raise OptionError(
            f"function_to_apply must be {own!r}, which makes the bundle's answers, got {applied!r}; leave it out: "
            "several tiers answer in probabilities, logits are not kept"
        )
    if said.get("truncation") not in (None, *_CUTS):
        raise OptionError(f"truncation must be true, false or 'longest_first', got {said['truncation']!r}; use True")
    if "stride" in said and "aggregation_strategy" in said and _strategy(said) is AggregationStrategy.NONE:
        raise OptionError("aggregation_strategy must not be 'none' where a stride is given, got both; use 'simple'")
    if said.get("delimiter", " ") != " ":
        raise OptionError(f"delimiter must be a blank, got {said['delimiter']!r}; leave it out")
    return said


def _strategy(asked: Given) -> AggregationStrategy:
    """By its former names, which go first, or by its own."""
    grouped, by_word = asked.get("grouped_entities"), asked.get("ignore_subwords")
    if grouped is None and by_word is None:
        return strategy_of(asked.get("aggregation_strategy", "none"))
    return strategy_of(("first" if by_word else "simple") if grouped else "none")


def _reader(model: Any, asked: Given) -> Any:
    """A copy of a model that reads long texts as was asked; a length alone cuts them, as in transformers."""
    length = asked.get("max_length")
    cut = _CUTS[asked["truncation"]] if "truncation" in asked else True if length and not asked.get("padding") else None
    model = model if cut is None else model.with_truncation(cut)
    if cut and length:
        model = model.with_tokenizers(lambda own: own.with_max_length(length))
    if "stride" in asked:
        tiers = tuple(with_options(tier, {"overlap": asked["stride"]}) for tier in model.tiers)
        model = replace(model, tiers=tiers)
    return model


def _labels(model: Any, asked: Given, texts: Iterable[Any]) -> list[Any]:
    # A pair in a list in a list, transformers' former way.
    old = [isinstance(text, list) and [*map(type, text)] == [list] and len(text[0]) == 2 for text in texts]
    given = [tuple(text[0]) if pair else text for text, pair in zip(texts, old, strict=True)]
    every = asked.get("return_all_scores") and "top_k" not in asked
    found: list[Any] = model(given, top_k=None if every else asked.get("top_k", LEFT_OUT))
    order = {label: number for number, label in enumerate(model.labels)}
    return [sorted(row, key=lambda one: order[one["label"]]) for row in found] if every else found


def _entities(model: Any, asked: Given, texts: Iterable[Any]) -> list[Any]:
    given = list(texts)
    if asked.get("is_split_into_words"):
        check_words(given)
        given = [" ".join(words) for words in given]
    ignored = asked.get("ignore_labels", (IGNORED,))
    found: list[Any] = model(given, aggregation_strategy=_strategy(asked), ignore_labels=ignored)
    return found


# fmt: off
def pipeline(
    task: str | None = None, model: str | Path | Classifier | Tagger | None = None, *,
    config: object = None, tokenizer: object = None, framework: str | None = None, revision: str | None = None,
    use_fast: bool = True, token: str | bool | None = None, device: object = None, device_map: object = None,
    dtype: object = None, torch_dtype: object = None, trust_remote_code: bool | None = None,
    model_kwargs: Given | None = None, threads: int | None = None,
    top_k: Any = LEFT_OUT, return_all_scores: bool | None = None, function_to_apply: Any = None,
    truncation: bool | str | None = None, max_length: int | None = None, padding: bool | str | None = None,
    aggregation_strategy: AggregationStrategy | str | None = None, ignore_labels: Sequence[str] | None = None,
    stride: int | None = None, grouped_entities: bool | None = None, ignore_subwords: bool | None = None,
    is_split_into_words: bool | None = None, delimiter: str | None = None,
    batch_size: int | None = None, num_workers: int | None = None,
) -> DropIn:
    # fmt: on
    """What `transformers.pipeline` is for checkpoints, for bundles.

    `task`: `text-classification` (`sentiment-analysis`) or `token-classification` (`ner`); the bundle's if left out.
    `model`: a bundle's folder or Hub id, or a pipeline that is loaded; `revision`, `token`: on the Hub; `threads`: of
    all tiers together. Of both tasks: `truncation`, `max_length`: cut long texts, which are read in windows otherwise.
    Of a classifier: `top_k`, `return_all_scores`; `function_to_apply`, which must be the bundle's own. Of a tagger:
    `aggregation_strategy`, `ignore_labels`, `is_split_into_words`; `stride`: tokens that two windows share at most, of
    which answers are averaged; the former `grouped_entities`, `ignore_subwords`. All others change nothing; where they
    would in transformers (`config`, `tokenizer`, `framework`, `device`, `dtype`, `model_kwargs`) a warning says so.
    Errors are those of `cascade.load`; another task, no model, or an argument that is not obeyed is an `OptionError`.
    """
    given = locals()
    if task is not None and task not in TASKS:
        raise OptionError(f"task must be one of {', '.join(TASKS)}, got {task!r}; bundles are for no other")
    if model is None:
        raise OptionError("model must be a bundle, got None; give a folder or a Hub id, cascade build makes one")
    own = str(getattr(tokenizer, "name_or_path", tokenizer)) in ("None", str(model))
    single = {str(dtype).removeprefix("torch."), str(torch_dtype).removeprefix("torch.")} <= {"None", "auto", "float32"}
    here = str(device) in ("None", "-1", "cpu") and device_map in (None, "auto", "cpu")
    if not (own and single and here and framework in (None, "pt") and config is None and not model_kwargs):
        names = ("config", "tokenizer", "framework", "device", "device_map", "dtype", "torch_dtype", "model_kwargs")
        warnings.warn(
            f"{', '.join(name for name in names if given[name] is not None)} must be what a bundle has of its own, on "
            "CPUs, but something else was given, which changes nothing; leave it out",
            CascadeWarning,
            stacklevel=2,
        )
    made = model
    if not isinstance(made, Classifier | Tagger):
        made = load(made, threads=threads, revision=revision, token=token if isinstance(token, str) else None)
    if task is not None and not isinstance(made, TASKS[task]):
        raise TaskError(f"model must be a bundle for {TASKS[task].task}, got one for {made.task}; leave task out")
    return DropIn(made, made.task, _said(given, made))
