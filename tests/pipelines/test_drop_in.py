"""`cascade.pipeline` beside transformers' own: the cases of its two test files, and the ways in which it is called."""

from __future__ import annotations

import inspect
import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import transformers
from transformers.pipelines import AggregationStrategy as TheirStrategy
from transformers.pipelines.pt_utils import KeyDataset

import cascade
from cascade import Classifier, Tagger
from cascade.exceptions import CascadeWarning, InputError, OptionError, TaskError
from cascade.pipelines.drop_in import DropIn
from cascade.text.entities import AggregationStrategy
from tests.models.toy import toy_bundle
from tests.models.toy_tags import tag_bundle
from tests.pipelines.test_as_transformers import LABELS, both

TEXTS: Final = ("this is great !", "a very good film", "bad film , it is not for us")
SENTENCES: Final = (
    "We laugh with Sarah in New York, she lives in Berlin.",
    "Consuelo Araújo Noguera, ministra de cultura del presidente Andrés Pastrana (1998.2002) fue asesinada",
    "Enzo works at the UN",
    "Groenlinks praat over Schiphol.",
    "  2 tokens and  blanks ",
    "bad",
    "good film " * 20,
)
PAIR: Final = {"text": "a good film", "text_pair": "it was bad"}
LONG: Final = "the film was not very good " * 40
STRATEGIES: Final = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class Case:
    """An input with arguments, `made` with the pipeline or given to the `call`. `maker`: makes the input anew."""

    name: str
    maker: Callable[[], Any]
    call: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)


def case(name: str, given: Any, made: Any = None, **call: Any) -> Case:
    return Case(name, given if callable(given) else lambda: given, call, made or {})


def texts_of(texts: tuple[str, ...]) -> Iterator[str]:
    yield from texts


def key_dataset(texts: tuple[str, ...]) -> Any:
    return KeyDataset([{"text": text} for text in texts], "text")


def of_classifiers() -> list[Case]:
    found: list[Case] = []
    inputs: dict[str, Any] = {"one": TEXTS[0], "list": list(TEXTS), "pair": PAIR, "pairs": [PAIR, {"text": "bad"}]}
    options: list[dict[str, Any]] = [
        {}, {"top_k": None}, {"top_k": 1}, {"top_k": 2}, {"top_k": 99}, {"return_all_scores": True},
        {"return_all_scores": False}, {"truncation": True}, {"padding": True, "truncation": True, "max_length": 8},
        {"truncation": True, "max_length": 512}, {"batch_size": 2},
    ]  # fmt: skip
    for (name, given), some in product(inputs.items(), options):
        found.append(case(f"{name} {some}", given, **some))
    for name, some in product(("one", "list"), options[1:]):
        found.append(case(f"made {some} {name}", inputs[name], made=some))
    for one in ("softmax", "sigmoid", "none", "SIGMOID", "strange"):
        found.append(case(f"function {one}", TEXTS[0], function_to_apply=one, top_k=None))
    for some in ({"device": "cpu"}, {"device": -1}, {"framework": "pt"}, {"torch_dtype": torch.float32}):
        found.append(case(f"made {some}", TEXTS[0], made=some))
    return [
        *found,
        case("made top_k None, call 1", TEXTS[0], made={"top_k": None}, top_k=1),
        case("generator", lambda: texts_of(TEXTS)),
        case("generator top_k", lambda: texts_of(TEXTS), top_k=None),
        case("key dataset", lambda: key_dataset(TEXTS)),
        case("key dataset batch", lambda: key_dataset(TEXTS), batch_size=2, truncation=True),
        case("former pair", [[["a good film", "it was bad"]]]),
        case("list in list", [["a good film", "it was bad"]]),
        case("empty", ""),
        case("blank", " "),
        case("no texts", []),
        case("long", LONG),
        case("long, cut", LONG, truncation=True),
        case("long, cut short", [LONG, "bad"], truncation=True, max_length=16),
        case("long, length alone", LONG, max_length=16),
        case("long pair, cut", {"text": LONG, "text_pair": LONG}, truncation=True, max_length=20),
        case("None", None),
        case("bytes", b"good"),
        case("number", 3),
        case("list with None", ["good", None]),
        case("wrong key", {"txt": "good"}),
        case("top_k by name", TEXTS[0], top_k="all"),
        case("top_k 0", TEXTS[0], top_k=0),
        case("argument that nobody knows", TEXTS[0], no_such_argument=1),
        case("truncation by an unknown name", TEXTS[0], truncation="sometimes"),
    ]


def of_taggers() -> list[Case]:
    found: list[Case] = []
    for strategy, (number, text) in product(STRATEGIES, enumerate(SENTENCES)):
        found.append(case(f"{strategy} {number}", text, aggregation_strategy=strategy))
    words = [text.split() for text in SENTENCES[:3]]
    for strategy in STRATEGIES:
        some: dict[str, Any] = {"aggregation_strategy": strategy}
        found += [
            case(f"{strategy} list", list(SENTENCES), **some),
            case(f"{strategy} upper case", SENTENCES[0], aggregation_strategy=strategy.upper()),
            case(f"{strategy} their own", SENTENCES[0], aggregation_strategy=TheirStrategy(strategy)),
            case(f"{strategy} made", list(SENTENCES), made=some),
            case(f"{strategy} made, call none", SENTENCES[0], made=some, aggregation_strategy="none"),
            case(f"{strategy} nothing ignored", SENTENCES[0], ignore_labels=[], **some),
            case(f"{strategy} ignored", list(SENTENCES), ignore_labels=["O", "NOUN", "PER", "B-LOC"], **some),
            case(f"{strategy} ignored made", SENTENCES[0], made={**some, "ignore_labels": []}),
            case(f"{strategy} words", words[0], is_split_into_words=True, **some),
            case(f"{strategy} lists of words", words, is_split_into_words=True, **some),
            case(f"{strategy} delimiter", words, is_split_into_words=True, delimiter=" ", **some),
            case(f"{strategy} generator", lambda: texts_of(SENTENCES), **some),
            case(f"{strategy} key dataset", lambda: key_dataset(SENTENCES), batch_size=2, **some),
            case(f"{strategy} stride", list(SENTENCES[:4]), stride=4, **some),
        ]
    for grouped, by_word in product((None, True, False), (None, True, False)):
        some = {"grouped_entities": grouped, "ignore_subwords": by_word}
        found.append(case(f"{some}", SENTENCES[0], **some))
    return [
        *found,
        case("empty", ""),
        case("no texts of a tagger", []),
        case("tuple", SENTENCES[:2]),
        case("strategy None", SENTENCES[0], aggregation_strategy=None),
        case("unknown strategy", SENTENCES[0], aggregation_strategy="sometimes"),
        case("stride without a strategy", SENTENCES[0], stride=4),
        case("stride too long", SENTENCES[0], stride=4096, aggregation_strategy="simple"),
        case("other delimiter", words[0], is_split_into_words=True, delimiter="-"),
        case("text as words", SENTENCES[0], is_split_into_words=True),
        case("None", None),
        case("number", 3),
        case("list with None", ["good", None]),
        *([] if NEW else [case("list of lists", [["good", "film"]])]),  # old ones read it, or not, by their tokenizer
        case("batch", list(SENTENCES), batch_size=4),
        case("unknown argument", SENTENCES[0], top_k=2),
        case("long pieces", LONG, aggregation_strategy="simple"),
        case("long, stride", LONG, aggregation_strategy="simple", stride=16),
    ]


def outcome(make: Callable[..., Any], one: Case) -> Any:
    """The answer, or the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = make(**one.made)(one.maker(), **one.call)
            return list(found) if not isinstance(found, list | dict) else found
        except Exception as error:  # noqa: BLE001  # of any kind
            return error


def alike(ours: Any, theirs: Any) -> bool:
    """Nesting, keys in their order, values; scores to 1e-4."""
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(alike, ours, theirs))
    if isinstance(theirs, dict) and isinstance(ours, dict):
        same = [*ours] == [*theirs] and all(ours[key] == value for key, value in theirs.items() if key != "score")
        return same and bool(abs(ours["score"] - theirs["score"]) <= 1e-4)
    return False


MODELS: Final[dict[str, tuple[str, bool, dict[str, Any]]]] = {
    "classifier": ("bert", False, {}),
    "multi-label": ("bert", False, {"labels": (*LABELS, "odd"), "problem": "multi_label_classification"}),
    "regression": ("bert", False, {"labels": ("score",), "problem": "regression"}),
    "roberta": ("roberta", False, {}),
    "unigram": ("albert", False, {}),
    "tagger": ("bert", True, {}),
    "odd tags": ("electra", True, {"labels": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "NOUN", "X-Y-Z", "B-O", "I-O")}),
    "roberta tagger": ("roberta", True, {}),
    "unigram tagger": ("albert", True, {}),
}
FUNCTIONS: Final[dict[Any, str]] = {"multi_label_classification": "sigmoid", "regression": "none"}
# What docs/python.md lists: answered where transformers raises or cuts, otherwise answered, refused.
BETTER = {"long", "long pieces", "no texts of a tagger", "tuple"}
OTHERWISE: Final = {"long, stride"}
REFUSED = {"top_k by name", "top_k 0", "other delimiter"}
FIVE: Final = int(transformers.__version__.partition(".")[0]) >= 5
KNOWN: Final = inspect.signature(transformers.TokenClassificationPipeline._sanitize_parameters).parameters
GONE: Final = {"return_all_scores", "grouped_entities", "ignore_subwords"} if FIVE else set[str]()
"""What transformers 5 takes no more, or ignores; a bundle obeys it with either."""
NEW: Final = {"is_split_into_words", "delimiter"}.difference(KNOWN)
"""What the oldest releases do not take yet."""
if FIVE:  # it breaks on an empty list of texts, and passes over arguments that it does not know
    BETTER, REFUSED = BETTER | {"no texts"}, REFUSED | {"argument that nobody knows"}


def expected(one: Case, *, family: str, function: str) -> str:
    """What becomes of a case: `same`, an answer or a refusal on both sides, unless it is listed."""
    applied = one.call.get("function_to_apply")
    if applied not in (None, "strange") and applied.lower() != function:
        return "refused"
    if (
        family in ("roberta", "albert")
        and one.call.get("is_split_into_words")
        and one.name.split(" ", 1)[0] in STRATEGIES
    ):
        return "otherwise"  # the joined text is read, in which a piece may begin with the blank
    kinds = {"better": BETTER, "otherwise": OTHERWISE, "refused": REFUSED}
    return next((kind for kind, names in kinds.items() if one.name in names), "same")


@pytest.mark.parametrize("name", MODELS)
def test_as_transformers(name: str, tmp_path: Path) -> None:
    family, tagging, options = MODELS[name]
    theirs, ours = both(family, tmp_path, tagging=tagging, **options)

    def make(**made: Any) -> Any:
        return transformers.pipeline(theirs.task, model=theirs.model, tokenizer=theirs.tokenizer, **made)

    cases, kinds, wrong = of_taggers() if tagging else of_classifiers(), Counter[str](), []
    cases = [one for one in cases if not (GONE | NEW) & {*one.call, *one.made}]
    for one in cases:
        wanted = outcome(make, one)
        found = outcome(lambda **made: cascade.pipeline(theirs.task, model=ours, **made), one)
        refused, refuses = isinstance(wanted, Exception), isinstance(found, Exception)
        kind = "refused by both" if refused and refuses else "refused" if refuses else "equal"
        if kind == "equal" and (refused or not alike(found, wanted)):
            kind = "better" if refused or one.name in BETTER else "otherwise"
        kinds[kind] += 1
        said = expected(one, family=family, function=FUNCTIONS.get(options.get("problem"), "softmax"))
        if kind not in (("equal", "refused by both") if said == "same" else (said,)):
            wrong.append((one.name, kind, found, wanted))
    print(f"{name}: {len(cases)} cases, {dict(kinds)}")
    assert wrong == []


@pytest.fixture(scope="module")
def clf(tmp_path_factory: pytest.TempPathFactory) -> DropIn:
    return cascade.pipeline(
        "sentiment-analysis", toy_bundle(tmp_path_factory.mktemp("texts") / "toy").folder, threads=1
    )


@pytest.fixture(scope="module")
def ner(tmp_path_factory: pytest.TempPathFactory) -> DropIn:
    return cascade.pipeline("ner", tag_bundle(tmp_path_factory.mktemp("words") / "toy").folder, threads=1)


def test_a_bundle_says_what_it_is_for(clf: DropIn, ner: DropIn) -> None:
    assert isinstance(clf.model, Classifier)
    assert isinstance(ner.model, Tagger)
    assert cascade.pipeline(model=ner.model.bundle.folder).task == ner.task == "token-classification"
    assert cascade.pipeline(model=clf.model).model is clf.model
    with pytest.raises(TaskError, match="must be a bundle for token-classification, got one for text-classification; "):
        cascade.pipeline("ner", clf.model)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "summarization"}, "task must be one of text-classification, .*, got 'summarization'; bundles are"),
        ({"model": None}, "model must be a bundle, got None; give a folder"),
        ({"stride": 3}, "stride must not be given to a bundle for text-classification, got 3; leave it out"),
        ({"max_length": 0}, "max_length must be a whole number of at least 1, got 0"),
        ({"truncation": "some"}, "truncation must be true, false or 'longest_first', got 'some'; use True"),
        ({"function_to_apply": "none"}, "function_to_apply must be 'softmax', .* got 'none'; leave it out"),
    ],
)
def test_what_is_refused(clf: DropIn, given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        cascade.pipeline(**{"model": clf.model, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"top_k": 2}, "top_k must not be given to a bundle for token-classification, got 2; leave it out"),
        ({"stride": 64}, r"stride must be below 24, the tokens of a row, got 64; lower it"),
        ({"stride": 2, "aggregation_strategy": "none"}, "must not be 'none' where a stride is given, got both; use"),
        ({"is_split_into_words": True, "delimiter": "-"}, "delimiter must be a blank, got '-'; leave it out"),
    ],
)
def test_what_is_refused_of_a_tagger(ner: DropIn, given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ner("good", **given)


def test_rows_must_have_room_for_a_text(clf: DropIn) -> None:
    with pytest.raises(OptionError, match="max_length must be at least 5"):
        clf("good", max_length=3)
    assert clf("good bad film", max_length=512) == clf("good bad film")


@pytest.mark.parametrize(
    "given",
    [
        {"device": 0}, {"device": "cuda:1"}, {"device_map": {"": 0}}, {"torch_dtype": torch.float16},
        {"dtype": "bfloat16"}, {"framework": "tf"}, {"tokenizer": "other/tokenizer"}, {"config": "other"},
        {"model_kwargs": {"attn_implementation": "sdpa"}},
    ],
)  # fmt: skip
def test_what_is_not_obeyed_is_said(clf: DropIn, given: dict[str, Any]) -> None:
    with pytest.warns(CascadeWarning, match=f"{next(iter(given))} must be what a bundle has of its own, on CPUs"):
        cascade.pipeline(model=clf.model, **given)


def test_what_changes_nothing_is_silent(clf: DropIn) -> None:
    folder = str(clf.model.bundle.folder)
    cascade.pipeline(
        "text-classification", folder, tokenizer=folder, framework="pt", device=-1, device_map="auto", use_fast=False,
        torch_dtype=torch.float32, dtype="auto", trust_remote_code=True, batch_size=8, num_workers=2, padding=True,
    )("good", batch_size=8, num_workers=1)  # fmt: skip


def test_an_iterator_is_read_as_its_answers_are_asked_for(clf: DropIn, ner: DropIn) -> None:
    read: list[int] = []

    def endless() -> Iterator[str]:
        while True:
            read.append(1)
            yield "good film"

    for pipe in (clf, ner):
        found = pipe(endless())
        alone = pipe("good film")
        assert next(found) == (alone[0] if pipe is clf else alone)
        found.close()
    assert len(read) < 100_000
    with pytest.raises(InputError, match="got int as text 1"):
        list(clf(text for text in ("good", 3)))


def test_pickles_keep_what_was_asked(ner: DropIn) -> None:
    made = cascade.pipeline(model=ner.model, aggregation_strategy=AggregationStrategy.SIMPLE)
    assert pickle.loads(pickle.dumps(made))("we laugh") == made("we laugh") != ner("we laugh")
