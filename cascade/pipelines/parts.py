"""From a folder or a Hub repository to what a pipeline is built of: a bundle, its tokenizer and its tiers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from cascade.bundle.manifest import MANIFEST_FILE, TAGGING, Manifest
from cascade.bundle.opening import Bundle
from cascade.bundle.tiers import SingleExitSpec, TierSpec
from cascade.core.rows import Units
from cascade.engine.inputs import Encoder
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.tier import Tier
from cascade.exceptions import BundleError, CertificateWarning, OptionError
from cascade.policies.batching import for_tier2
from cascade.policies.settings import Policies
from cascade.runtime.backend import OnnxBackend, lacks_vnni
from cascade.runtime.executor import Executor
from cascade.runtime.host import give_back_memory
from cascade.runtime.layers import StageBackend
from cascade.runtime.threads import available_cpus
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import WordEncoder, encode_words

_LOGGER = logging.getLogger(__name__)


def certified(bundle: Bundle, name: object) -> Bundle:
    """A bundle whose files that `parts_of` does not read are verified, without a certificate that is not about it.

    `bundle`: opened, not verified; `name`: what messages call it. A file that is missing or altered is a `BundleError`,
    a certificate about other models or policies a `CertificateWarning`.
    """
    manifest = bundle.manifest
    read = {path for tier in manifest.tiers for path in (*tier.graphs, tier.tokenizer)}
    bundle.verify([path for path in manifest.files if path not in read])
    doubts = manifest.doubts()
    if not doubts:
        return bundle
    warnings.warn(
        f"the certificate of a bundle must be about its own models and policies, but in {name} "
        f"{'; '.join(doubts)}; nothing is certified of it, calibrate it again",
        CertificateWarning,
        stacklevel=3,  # where from_pretrained was called
    )
    return replace(bundle, manifest=replace(manifest, certificate=None))


def slow_form(manifest: Manifest) -> str:
    """What is slow on this CPU and how a faster form is made, in words; nothing where nothing is."""
    tiers: Any = manifest.tiers  # of one graph, or of stages
    forms = {one.precision for tier in tiers for one in getattr(tier, "stages", (tier,))}
    if "int8" not in forms or not lacks_vnni():
        return ""
    return "weights of 8 bits, slow without VNNI: cascade-export --for avx2 makes faster ones"


def parts_of(bundle: Bundle, threads: int) -> tuple[Tokenizer, tuple[SingleExit | MultiExit, ...]]:
    """What a bundle holds, loaded for so many threads, all tiers together.

    The tokenizer of the last tier, for rows of its length, which serves every tier that has the same file; and the
    tiers, first to last, each graph made from the very bytes that were verified. They share one executor.
    A `BundleError` names all files that were altered, or one that cannot be read.
    """
    executor, manifest = Executor(threads), bundle.manifest
    if told := slow_form(manifest):
        _LOGGER.info("%s: %s", bundle.folder, told)
    # The tokenizer's own threads are one per CPU: they work only where that is no more than was asked for.
    pool = partial(executor.permits, executor.threads) if executor.threads >= available_cpus() else None
    made: dict[tuple[str, int], Tokenizer] = {}

    def tokenizer(tier: TierSpec) -> Tokenizer:
        key = manifest.files[tier.tokenizer].sha256, tier.max_length
        if key not in made:
            made[key] = Tokenizer.from_bytes(
                bundle.read(tier.tokenizer),
                name=str(bundle.path(tier.tokenizer)),
                max_length=tier.max_length,
                pool=pool,
                encode_special_tokens=manifest.encode_special_tokens,
            )
        return made[key]

    default = tokenizer(manifest.tiers[-1])
    try:
        tiers = [_tier(bundle, tier, executor, tokenizer) for tier in manifest.tiers]
        for number, tier in enumerate(tiers):
            _try(tier, default, f"tiers[{number}] of {bundle.path(MANIFEST_FILE)}")
    except BundleError:
        bundle.verify()
        raise
    give_back_memory()  # a file's bytes, twice, for each graph
    return default, tuple(tiers)


def _tier(bundle: Bundle, spec: TierSpec, executor: Executor, tokenizer: Any) -> SingleExit | MultiExit:
    manifest = bundle.manifest
    words, multi_label = manifest.task == TAGGING, manifest.infos[0].multi_label

    def graph(file: str, kind: type[OnnxBackend] = OnnxBackend) -> OnnxBackend:
        return kind(bundle.path(file), executor.threads, manifest.files[file].sha256)

    last = manifest.tiers[-1]
    same_file = manifest.files[spec.tokenizer] == manifest.files[last.tokenizer]
    # Rows that are longer than the tier takes are cut by tiers of words, and lose their middle in tiers of one graph.
    fits = words or isinstance(spec, SingleExitSpec) or spec.max_length == last.max_length
    encoder: Encoder | None = None
    if not (same_file and fits):
        encoder = WordEncoder(tokenizer(spec)) if words else tokenizer(spec)
    if isinstance(spec, SingleExitSpec):
        return SingleExit(
            backend=graph(spec.file),
            labels=len(manifest.labels),
            max_length=spec.max_length,
            per_unit=words,
            encoder=encoder,
            multi_label=multi_label,
            executor=executor,
        )
    return MultiExit(
        embed=graph(spec.embed),
        stages=[graph(stage.file, StageBackend) for stage in spec.stages],
        layers=spec.layers,
        labels=len(manifest.labels),
        heads=spec.heads,
        max_length=spec.max_length,
        encoder=encoder,
        batching=for_tier2(executor.threads),
        position_offset=spec.position_offset,
        multi_label=multi_label,
        executor=executor,
    )


def _try(tier: SingleExit | MultiExit, default: Tokenizer, name: str) -> None:
    """Run a row of one word and one of two through all graphs of a tier; of stages at the last positions.

    A `BundleError`: the graphs have other heads, positions or labels, inputs or outputs of another type or shape, than
    `name` says, or answer with something other than numbers.
    """
    own: Any = tier.encoder or default
    words = encode_words(getattr(own, "tokenizer", own), [["a"], ["a", "a"]])
    rows = words if tier.per_unit else Units.whole(words.rows)
    said = "labels and max_length"
    try:
        if isinstance(tier, MultiExit):
            said = "heads, width, position_offset and max_length"
            spare = max(tier.max_length - int(words.rows.lengths.max()), 0)
            found = replace(tier, encoder=None, position_offset=tier.position_offset + spare).all_exits(rows)
        else:
            found = replace(tier, encoder=None).score(rows).probabilities
        if not np.isfinite(found).all():
            raise BundleError("answers are no numbers")
    except Exception as error:  # noqa: BLE001  # arrays of any shape may come
        told = " ".join(str(error).split())
        raise BundleError(f"{said} of {name} must be those of its graphs, but: {told}; export again") from None


def set_policies(tiers: Sequence[Tier], policies: Policies) -> tuple[Tier, ...]:
    """The tiers with their exit policies and temperatures, as far as they have any."""
    return tuple(
        with_options(
            tier,
            {"exit_policy": exit_policy, "temperatures": given, "temperature": given[0], "reading": policies.reading},
        )
        for tier, exit_policy, given in zip(tiers, policies.exits, policies.temperatures, strict=True)
    )


def with_options(tier: Tier, options: Mapping[str, Any]) -> Tier:
    """A tier with these options, as far as it has them."""
    known: Any = tier
    own = {name: value for name, value in options.items() if hasattr(tier, name)}
    return replace(known, **own) if own else tier


def graphs_of(tiers: Sequence[Tier]) -> list[OnnxBackend]:
    """The graphs of all tiers; where a tier is a function, or runs one, an `OptionError`."""
    found: list[OnnxBackend] = []
    for tier in tiers:
        graphs: list[Any] = [tier]
        if isinstance(tier, SingleExit | MultiExit):
            graphs = [tier.backend] if isinstance(tier, SingleExit) else [tier.embed, *tier.stages]
        for graph in graphs:
            if not isinstance(graph, OnnxBackend):
                raise OptionError(
                    f"what is saved or pickled must run the graphs of its bundle, got a {type(graph).__name__}; "
                    "save the pipeline without it, and add it again after loading"
                )
            found.append(graph)
    return found
