"""`load`: any bundle, opened and verified once, becomes the pipeline of its task."""

from __future__ import annotations

from pathlib import Path

from cascade.bundle.opening import open_bundle
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.parts import certified
from cascade.pipelines.tagger import Tagger
from cascade.policies.batching import BatchingPolicy
from cascade.policies.settings import Policies
from cascade.runtime.threads import check_threads


def load(
    path_or_id: str | Path,
    *,
    threads: int | None = None,
    policies: Policies | None = None,
    batching: BatchingPolicy | None = None,
    tuned: bool = True,
    truncation: bool | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Classifier | Tagger:
    """Load a bundle as what it is for. Its files are verified first and nothing in it is ever unpickled.

    Args:
        path_or_id: a folder, or a repository on the Hugging Face Hub (`owner/name`).
        threads: of all tiers together; this and the others as in `Classifier.from_pretrained`.
        policies: of all tiers, instead of the bundle's.
        batching: for all tiers.
        tuned: whether these take the token budgets of `cascade tune --write`.
        truncation: whether of texts that are too long the first tokens alone are read; as the bundle says if left out.
        revision: branch, tag or commit on the Hub.
        cache_dir: where downloads are kept.
        token: for closed repositories.
        local_files_only: download nothing.

    Raises:
        BundleError, OptionError: as in `Classifier.from_pretrained`; policies that do not fit the bundle too.
    """
    budget = check_threads(threads)
    bundle = open_bundle(
        path_or_id, verify=False, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
    )
    kind: type[Classifier | Tagger] = Tagger if bundle.manifest.task == Tagger.task else Classifier
    given = certified(bundle, path_or_id)
    return kind.of(given, budget, policies=policies, batching=batching, tuned=tuned, truncation=truncation)
