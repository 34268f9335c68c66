"""What classifiers and taggers share: certificates, saving."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import cascade
from cascade import Tagger
from cascade.bundle.manifest import MANIFEST_FILE
from cascade.exceptions import CertificateWarning, OptionError
from cascade.policies import Threshold, defer_all, never, whole_sentences
from tests.models.batching import FixedSize
from tests.models.certificates import certificate_of
from tests.pipelines.conftest import Pipeline, answers, rewrite


@pytest.fixture
def certified(loaded: Pipeline, tmp_path: Path) -> Pipeline:
    safer = tuple(loaded.with_router(Threshold(share)).policies for share in (0.99, 0.95))
    certificate = certificate_of(loaded.bundle.manifest, safer=safer)
    loaded.save_pretrained(tmp_path / "certified", certificate=certificate)
    return cascade.load(tmp_path / "certified", threads=1)


def test_save_and_load_again(loaded: Pipeline, other: Pipeline, tmp_path: Path) -> None:
    other.save_pretrained(tmp_path / "new")
    again = cascade.load(tmp_path / "new", threads=1)
    assert again.policies == other.policies
    np.testing.assert_array_equal(answers(again), answers(other))
    with pytest.raises(OptionError, match="the destination must not be there yet"):
        loaded.save_pretrained(tmp_path / "new")
    loaded.save_pretrained(tmp_path / "new", overwrite=True)
    assert cascade.load(tmp_path / "new", threads=1).bundle.manifest == loaded.bundle.manifest


def test_own_functions_cannot_be_saved(loaded: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="only a registered router can be saved"):
        loaded.with_router(lambda state: state.lengths > 3).save_pretrained(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_is_about_the_very_policies_that_were_tested(loaded: Pipeline, certified: Pipeline) -> None:
    assert loaded.certificate is None
    certificate = certified.certificate
    assert certificate is not None
    assert certificate.policies == certified.policies == loaded.policies
    assert certified.with_batching(FixedSize(1)).certificate == certificate
    assert certified.with_router(Threshold(0.5)).with_router(Threshold(0.9)).certificate == certificate
    for changed in (
        certified.with_router(Threshold(0.5)),
        certified.with_exit_policy(never),
        certified.with_blend(0.5),
        certified.with_temperatures(1, [1, 1, 2]),
        certified.with_router(lambda state: state.lengths > 3),
        type(certified).from_pretrained(certified.bundle.folder, threads=1).with_router(defer_all),
        *([certified.with_windows(whole_sentences)] if isinstance(certified, Tagger) else ()),
    ):
        assert changed.certificate is None


def test_a_certificate_is_saved_as_long_as_it_is_about_the_copy(certified: Pipeline, tmp_path: Path) -> None:
    certified.save_pretrained(tmp_path / "same")
    assert cascade.load(tmp_path / "same", threads=1).certificate == certified.certificate
    certified.with_blend(0.5).save_pretrained(tmp_path / "other")
    assert cascade.load(tmp_path / "other", threads=1).bundle.manifest.certificate is None
    with pytest.raises(OptionError, match=r"must be about the bundle .* blend must be \(0.0,\) as certified"):
        certified.with_blend(0.5).save_pretrained(tmp_path / "third", certificate=certified.certificate)


def test_a_certificate_of_something_else_warns_and_is_dropped(certified: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / "altered"
    shutil.copytree(certified.bundle.folder, folder)
    rewrite(folder, "policies", temperatures=[[2.0], [1, 1, 1]])
    file = folder / MANIFEST_FILE
    embed = certified.bundle.manifest.certificate.models["tier2/embed.onnx"]  # type: ignore[union-attr]  # it is there
    text = file.read_text(encoding="utf-8")
    head, _, tail = text.partition('"certificate"')
    file.write_text(f'{head}"certificate"{tail.replace(embed, "0" * 64)}', encoding="utf-8")
    message = (
        r"about its own models and policies, but in .*altered temperatures must be \(\(1.0,\), .* got \(\(2.0,\), .*; "
        r"tier2/embed.onnx is another than the certified one; nothing is certified of it, calibrate it again"
    )
    for load in (cascade.load, type(certified).from_pretrained):
        with pytest.warns(CertificateWarning, match=message) as caught:
            changed = load(folder, threads=1)
        assert [warning.filename for warning in caught] == [__file__]
        assert changed.certificate is None
    changed.save_pretrained(tmp_path / "again")
    assert cascade.load(tmp_path / "again", threads=1).bundle.manifest.certificate is None


def test_safer_policies(loaded: Pipeline, certified: Pipeline) -> None:
    first = certified.safer()
    assert first is not None
    assert first.router == Threshold(0.95)
    second = first.safer()
    assert second is not None
    assert second.router == Threshold(0.99)
    for copy in (second, loaded, certified.with_blend(0.5), certified.with_router(lambda state: state.lengths > 3)):
        full = copy.safer()
        assert full is not None
        assert (full.router, full.exit_policy) == (defer_all, never)
        assert full.safer() is None
