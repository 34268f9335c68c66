"""`cascade.json`: what a bundle says about itself, as frozen values.

Reading names every fault at once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cascade.bundle import certificate_form
from cascade.bundle.certificate import Certificate, Settings
from cascade.core.checks import is_number, is_whole
from cascade.exceptions import BundleError

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_FILE",
    "TAGGING",
    "TOKENIZER_FILE",
    "FileRecord",
    "Manifest",
    "StageSpec",
    "TierOneSpec",
    "TierTwoSpec",
]

FORMAT_VERSION = 2
MANIFEST_FILE = "cascade.json"
TOKENIZER_FILE = "tokenizer.json"
TAGGING = "token-classification"
TASKS = ("text-classification", TAGGING)
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification")


@dataclass(frozen=True)
class FileRecord:
    """A file of the bundle: its hash and size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class TierOneSpec:
    """The first tier: one padded ONNX graph (`input_ids`, `attention_mask`[, `token_type_ids`] -> `logits`).

    Attributes:
        file: path inside the bundle.
        kind: what was trained, `static` or `transformer`; information only.
        labels: the names of its outputs, in order; must equal the manifest's.
        temperature: logits are divided by it before the softmax (or sigmoid).
        max_length: tokens of a row at most, special tokens included.
        precision: `int8` or `fp32`; information only.
    """

    file: str
    kind: str
    labels: tuple[str, ...]
    max_length: int
    temperature: float = 1.0
    precision: str = "fp32"


@dataclass(frozen=True)
class StageSpec:
    """A stage of the second tier: the layers between two exits and the head at their end.

    Attributes:
        file: path inside the bundle.
        layer: number of the last layer in it, counted from 1; exits are named by it.
        temperature: of the head at its end.
        precision: `int8` or `fp32`; information only.
    """

    file: str
    layer: int
    temperature: float = 1.0
    precision: str = "fp32"


@dataclass(frozen=True)
class TierTwoSpec:
    """The second tier: `embed` and a chain of packed stages (see ARCHITECTURE.md for their inputs).

    Attributes:
        embed: path of the embedding graph inside the bundle.
        stages: in the order in which they run; the last is full depth.
        labels: the names of its outputs, in order; must equal the manifest's.
        width: size of a hidden state.
        heads: of attention, in every layer.
        max_length: tokens of a row at most, special tokens included.
        position_offset: position id of a row's first token (RoBERTa: 2).
    """

    embed: str
    stages: tuple[StageSpec, ...]
    labels: tuple[str, ...]
    width: int
    heads: int
    max_length: int
    position_offset: int = 0


@dataclass(frozen=True)
class Manifest:
    """A whole `cascade.json`.

    Attributes:
        labels: names of the labels, in the order of the logits.
        router, exit_policy: the defaults, in the form that `routing.to_json` and `exits.to_json` write.
        windows, decoding: of a tagger, in the form that `windows.to_json` and `decoding.to_json` write; `None`: the
            defaults of `Tagger`. Classifiers have neither.
        blend: how much tier 1's answer counts beside tier 2's where both were asked, in [0, 1] (`engine.Cascade`).
        files: every file of the bundle but the manifest itself, by path inside the bundle.
        figures: what the exporter measured (free form, shown by `cascade inspect` and in the model card).
        certificate: what is certified, in the form that `Certificate.to_json` writes; whether that is about these
            models and policies, `doubts` says.
    """

    task: str
    problem_type: str
    labels: tuple[str, ...]
    tier1: TierOneSpec
    tier2: TierTwoSpec
    router: Mapping[str, Any]
    exit_policy: Mapping[str, Any]
    library_version: str
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    certificate: Mapping[str, Any] | None = None
    windows: Mapping[str, Any] | None = None
    decoding: Mapping[str, Any] | None = None
    blend: float = 0.0
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The text of `cascade.json`."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read and check the text of a `cascade.json`.

        Raises:
            BundleError: naming all faults at once.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise BundleError(f"{MANIFEST_FILE} must be JSON, but {error}; export the bundle again") from None
        if not isinstance(raw, dict):
            raise BundleError(f"{MANIFEST_FILE} must be a JSON object, was: {type(raw).__name__}; export again")
        version = raw.get("format_version")
        if version != FORMAT_VERSION:
            raise BundleError(
                f"the bundle's format_version must be {FORMAT_VERSION}, was: {version}; "
                "export it again with this release, or install the one that wrote it"
            )
        try:
            tier1, tier2 = dict(raw.pop("tier1")), dict(raw.pop("tier2"))
            stages = tuple(StageSpec(**stage) for stage in tier2.pop("stages"))
            manifest = cls(
                tier1=TierOneSpec(**{**tier1, "labels": tuple(tier1["labels"])}),
                tier2=TierTwoSpec(**{**tier2, "labels": tuple(tier2["labels"]), "stages": stages}),
                labels=tuple(raw.pop("labels")),
                files={path: FileRecord(**record) for path, record in raw.pop("files").items()},
                **raw,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{MANIFEST_FILE} lacks or misnames a field: {error}; export the bundle again") from None
        faults = manifest.faults()
        if faults:
            raise BundleError(f"{MANIFEST_FILE} contradicts itself: {'; '.join(faults)}; export the bundle again")
        return manifest

    def settings(self) -> Settings:
        """What a certificate is about, beside the models. What a tagger's bundle leaves to the defaults is `None`."""
        tagging = {"windows": self.windows, "decoding": self.decoding} if self.task == TAGGING else {}
        temperatures = [self.tier1.temperature, [stage.temperature for stage in self.tier2.stages]]
        policies = {"router": self.router, "exit_policy": self.exit_policy}
        return {**policies, "blend": self.blend, "temperatures": temperatures, **tagging}

    def models(self) -> dict[str, str]:
        """Hashes by path of what decides the probabilities: graphs, tokenizer, and what stands here about them.

        Names of labels, longest rows and the order of the stages are in no other file; `cascade.json` has the hash of
        these, without temperatures and policies.
        """
        one, two = self.tier1, self.tier2
        layers = [[stage.file, stage.layer] for stage in two.stages]
        said = [self.task, self.problem_type, self.labels, one.file, one.labels, one.max_length, two.embed, layers]
        said += [two.labels, two.width, two.heads, two.max_length, two.position_offset]
        paths = (*_graphs(self), TOKENIZER_FILE)
        hashes = {path: self.files[path].sha256 for path in paths if path in self.files}
        return {**hashes, MANIFEST_FILE: hashlib.sha256(json.dumps(said).encode()).hexdigest()}

    def doubts(self) -> list[str]:
        """Why the certificate is not about these models and policies, in words; empty if it is or if there is none."""
        if self.certificate is None:
            return []
        return Certificate.from_json(self.certificate).differences(self.settings(), self.models())

    def faults(self) -> list[str]:
        """What contradicts itself, all of it."""
        found = []
        if self.task not in TASKS:
            found.append(f"task must be one of {', '.join(TASKS)}, was: {self.task}")
        if self.problem_type not in PROBLEM_TYPES:
            found.append(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, was: {self.problem_type}")
        found += self._faults_of_tagging()
        names: tuple[object, ...] = self.labels  # as they stand in the file
        if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            found.append(f"labels must be distinct names and at least one, were: {list(self.labels)}")
        for tier, labels in (("tier 1", self.tier1.labels), ("tier 2", self.tier2.labels)):
            if labels != self.labels:
                found.append(f"labels of {tier} must be {list(self.labels)}, were: {list(labels)}")
        found += self._faults_of_numbers() + self._faults_of_information()
        if not self.tier2.stages:
            found.append("tier 2 must have at least one stage")
        layers = [stage.layer for stage in self.tier2.stages]
        if all(map(is_whole, layers)) and layers != sorted(set(layers)):
            found.append(f"stages must be in the order of their layers, were: {layers}")
        for path in _graphs(self):
            if str(path) not in self.files:
                found.append(f"{path} is used but not listed under files")
        return found

    def _faults_of_numbers(self) -> list[str]:
        first, second = self.tier1, self.tier2
        blend: object = self.blend  # as it stands in the file, and so below
        temperatures: list[object] = [first.temperature, *(stage.temperature for stage in second.stages)]
        whole: list[tuple[str, object, int]] = [
            ("max_length", first.max_length, 1),
            ("max_length", second.max_length, 1),
            ("width", second.width, 1),
            ("heads", second.heads, 1),
            ("position_offset", second.position_offset, 0),
            *(("layer", stage.layer, 1) for stage in second.stages),
        ]
        found = [] if is_number(blend) and 0 <= blend <= 1 else [f"blend must be in [0, 1], was: {blend!r}"]
        found += [
            f"temperature must be above 0 and finite, was: {value!r}"
            for value in temperatures
            if not is_number(value) or not 0 < value < math.inf
        ]
        found += [
            f"{name} must be a whole number of at least {least}, was: {value!r}"
            for name, value, least in whole
            if not is_whole(value) or value < least
        ]
        if is_whole(second.width) and is_whole(second.heads) and second.heads > 0 and second.width % second.heads:
            found.append(f"heads must divide the width, {second.width}, was: {second.heads}")
        return found

    def _faults_of_information(self) -> list[str]:
        first, stages = self.tier1, self.tier2.stages
        texts: list[tuple[str, object]] = [
            ("kind", first.kind),
            ("precision", first.precision),
            *(("precision", stage.precision) for stage in stages),
            ("library_version", self.library_version),
        ]
        figures: object = self.figures
        found = [f"{name} must be a string, was: {value!r}" for name, value in texts if not isinstance(value, str)]
        found += [] if isinstance(figures, Mapping) else [f"figures must be an object, was: {figures!r}"]
        return found + ([] if self.certificate is None else certificate_form.faults(self.certificate))

    def _faults_of_tagging(self) -> list[str]:
        found = []
        if self.task == TAGGING and self.problem_type == "multi_label_classification":
            found.append(f"problem_type of {TAGGING} must be single_label_classification, was: {self.problem_type}")
        policies: dict[str, Any] = {"windows": self.windows, "decoding": self.decoding}
        for name, policy in policies.items():
            if policy is not None and self.task != TAGGING:
                found.append(f"{name} must be left out of {self.task}, was: {policy}")
            elif policy is not None and not isinstance(policy, Mapping):
                found.append(f"{name} must be an object, was: {policy!r}")
        return found


def _graphs(manifest: Manifest) -> tuple[str, ...]:
    return (manifest.tier1.file, manifest.tier2.embed, *(stage.file for stage in manifest.tier2.stages))
