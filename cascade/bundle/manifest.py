"""`cascade.json`: what a bundle says about itself, as frozen values; what is read has every fault named at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Final

from cascade.bundle.certificate import Certificate
from cascade.bundle.form import OPTIONAL, SOME, Rule, faults_of, made, one_of, parse, plain, shown
from cascade.bundle.profile import Profile
from cascade.bundle.tiers import TOKENIZER_FILE, FileRecord, MultiExitSpec, TierSpec
from cascade.exceptions import BundleError, OptionError
from cascade.policies.registry import ModelInfo
from cascade.policies.settings import Policies

FORMAT_VERSION: Final = 3
MANIFEST_FILE: Final = "cascade.json"
TAGGING: Final = "token-classification"
MULTI_LABEL: Final = "multi_label_classification"
REGRESSION: Final = "regression"
TASKS: Final = ("text-classification", TAGGING)
PROBLEM_TYPES: Final = ("single_label_classification", MULTI_LABEL, REGRESSION)


_INPUTS: Final[Rule] = ("text, pair or null", lambda value: value is None or value in ("text", "pair"))
_CONTROL: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")  # line breaks are none
_LABELS: Final[Rule] = (
    "distinct names and at least one, without control characters",
    lambda value: (
        SOME[1](value)
        and all(isinstance(one, str) and not _CONTROL.search(one) for one in value)
        and len(set(value)) == len(value)
    ),
)


@dataclass(frozen=True)
class Manifest:
    """A whole `cascade.json`.

    Attributes:
        task: `text-classification` or `token-classification`.
        problem_type: `single_label_classification`, `multi_label_classification` (a sigmoid for each label, as a single
            one has too) or `regression` (one number).
        labels: names of the labels, in the order of every tier's logits.
        tiers: first to last.
        policies: how the tiers are used, unless the caller sets others.
        library_version: that wrote it.
        files: every file of the bundle but the manifest itself, by path inside the bundle.
        figures: what the exporter measured (free form, shown by `cascade inspect` and in the model card).
        certificate: what is certified; whether that is about these models and policies, `doubts` says.
        truncation: of a text that is too long the first tokens alone are read, in the place of windows.
        encode_special_tokens: special tokens that stand in a text are read as its characters, see `Tokenizer`.
        profile: what texts looked like in the calibration, for a monitor.
        inputs: what the models were trained on: `text`, `pair`, or `None` where that is not known or both.
        format_version: of the file.
    """

    task: Annotated[str, one_of(*TASKS)]
    problem_type: Annotated[str, one_of(*PROBLEM_TYPES)]
    labels: Annotated[tuple[str, ...], _LABELS]
    tiers: Annotated[tuple[TierSpec, ...], SOME]
    policies: Policies
    library_version: str
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    certificate: Annotated[Certificate | None, OPTIONAL] = None
    truncation: bool = False
    encode_special_tokens: bool = False
    profile: Annotated[Profile | None, OPTIONAL] = None
    inputs: Annotated[str | None, _INPUTS] = None
    format_version: int = field(default=FORMAT_VERSION, compare=False)

    @cached_property
    def infos(self) -> tuple[ModelInfo, ...]:
        """What policies can know of each tier."""
        words, single = self.task == TAGGING, len(self.labels) == 1
        several = self.problem_type == MULTI_LABEL or (single and not words and self.problem_type != REGRESSION)
        return tuple(ModelInfo(self.labels, tier.layers, words, several) for tier in self.tiers)

    @property
    def tier1(self) -> Any:  # of a kind that the bundle decides
        """The first tier."""
        return self.tiers[0]

    @property
    def tier2(self) -> Any:
        """The second tier, of a bundle of two."""
        return self.tiers[1]

    def to_json(self) -> str:
        """The text of `cascade.json`, in format 3.

        A policy that is a function of your own has no written form and is an `OptionError`; a figure that is no number
        that JSON has is a `BundleError`.
        """
        try:
            return json.dumps(self._raw(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except OptionError:
            raise
        except (ValueError, TypeError) as error:
            raise BundleError(f"figures must be JSON, but {error}; write null or a string") from None

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read and check the text of a `cascade.json`; a `BundleError` names all faults at once."""
        raw = parse(text, MANIFEST_FILE)
        if (version := raw.get("format_version")) != FORMAT_VERSION:
            raise BundleError(
                f"the bundle's format_version must be {FORMAT_VERSION}, got {shown(version)}; "
                "export it again with this release, or install the one that wrote it"
            )
        _refuse(faults_of(raw, cls))
        manifest = made(raw, cls)
        _refuse(manifest._contradictions())
        return manifest

    def faults(self) -> list[str]:
        """Why this could not be read again, all of it; empty if it could."""
        return faults_of(self._raw(), Manifest) or self._contradictions()

    def models(self) -> dict[str, str]:
        """Hashes by path of what decides the probabilities: graphs, tokenizers, and what stands here about them.

        Names of labels, longest rows and the order of the stages are in no other file; `cascade.json` has the hash of
        these, without temperatures and policies.
        """
        said: list[object] = [self.task, self.problem_type, self.labels, *(["truncation"] * self.truncation)]
        for tier in self.tiers:
            said += tier.identity(self.labels)
            said += [tier.tokenizer] if tier.tokenizer != TOKENIZER_FILE else []
        said += ["encode_special_tokens"] if self.encode_special_tokens else []
        paths = [path for tier in self.tiers for path in (*tier.graphs, tier.tokenizer)]
        known = {path: self.files[path].sha256 for path in paths if path in self.files}
        return {**known, MANIFEST_FILE: hashlib.sha256(json.dumps(said).encode()).hexdigest()}

    def doubts(self) -> list[str]:
        """Why the certificate is not about these models and policies, in words; empty if it is or if there is none."""
        return [] if self.certificate is None else self.certificate.differences(self.policies, self.models())

    def _raw(self) -> dict[str, Any]:
        # Older releases know no such fields.
        optional = ("truncation", "encode_special_tokens", "profile", "inputs")
        return {name: own for name, own in plain(self).items() if own or name not in optional}

    def _contradictions(self) -> list[str]:
        """Where fields that are possible by themselves do not fit each other."""
        found = []
        if self.task == TAGGING and self.problem_type != PROBLEM_TYPES[0]:
            found.append(f"problem_type of {TAGGING} must be {PROBLEM_TYPES[0]}, got {self.problem_type}")
        elif self.problem_type == REGRESSION and len(self.labels) > 1:
            found.append(f"labels of a {REGRESSION} must be one name, got {len(self.labels)}")
        for number, tier in enumerate(self.tiers):
            if list(tier.layers) != sorted(set(tier.layers)):
                found.append(f"stages of tiers[{number}] must be in the order of their layers, got {tier.layers}")
            if isinstance(tier, MultiExitSpec) and tier.width % tier.heads:
                found.append(f"heads of tiers[{number}] must divide the width, {tier.width}, got {tier.heads}")
            used = (*tier.graphs, tier.tokenizer)
            found += [f"{path} is used but not listed under files" for path in used if path not in self.files]
        try:
            self.policies.check(self.infos)
        except OptionError as error:
            found.append(str(error))
        found += [] if self.certificate is None else self.certificate.contradictions()
        return list(dict.fromkeys(found))


def _refuse(found: list[str]) -> None:
    if found:
        raise BundleError(f"{MANIFEST_FILE} must be as cascade wrote it, but {'; '.join(found)}; export it again")
