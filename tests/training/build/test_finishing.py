from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cascade.training.build import finishing
from cascade.training.build.finishing import export
from cascade.training.build.looking import BuildOptions
from cascade.training.build.shares import Given
from cascade_export import ExportOptions


@pytest.mark.parametrize("tags", [False, True])
def test_int8_may_spend_a_quarter_of_the_bound_by_sentence(tags: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts as of sentences: however many words these have."""
    asked: list[ExportOptions] = []
    monkeypatch.setattr(finishing, "export_bundle", lambda *_, options, **__: asked.append(options))
    checkpoint: Any = SimpleNamespace(tags=tags, limit=64, encode_special_tokens=False)
    unread: Any = None
    options = BuildOptions(max_disagreement=0.02)
    given = Given(checkpoint, unread, options, unread, unread, each=0.1, output=Path("out"))
    export(given, Path("int8"), "model", None, [["a"] * 9])
    (found,) = asked
    assert found.agreement == pytest.approx(0.995)
    assert (found.by_sentence, found.int8) == (tags, True)
