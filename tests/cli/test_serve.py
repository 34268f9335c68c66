from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cascade.cli.serve import serve
from cascade.core.limits import Limits
from cascade.exceptions import BundleNotFoundError, MissingExtraError, OptionError
from cascade.serving import workers
from cascade.serving.workers import Setup
from tests.models.toy import toy_bundle


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs the command up to where it would serve: what it would serve, and where."""
    toy_bundle(tmp_path / "toy")
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []
    monkeypatch.setattr(workers, "serve", lambda setup, **where: asked.append((setup, where)))

    def call(*arguments: str, env: dict[str, str] | None = None) -> tuple[Setup, dict[str, Any]]:
        asked.clear()
        done = CliRunner(env=env).invoke(serve, arguments, standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        found: tuple[Setup, dict[str, Any]] = asked[0]
        return found

    return call


def test_a_bundle_is_the_default_model_and_others_have_names(run: Any) -> None:
    setup, where = run("toy", "--model", "other=toy")
    assert setup.models == (("toy", "toy"), ("other", "toy"))
    assert setup.limits == Limits()
    assert where == {"hostname": "0.0.0.0", "port": 3000, "workers": 1}
    assert setup.origins == ("*",)
    assert run("toy", "--served-model-name", "mine")[0].models == (("mine", "toy"),)
    assert run("--model", "one=toy")[0].models == (("one", "toy"),)


def test_limits_are_options_and_teis_variables(run: Any) -> None:
    given = run("toy", "--max-client-batch-size", "7", "--auto-truncate", "false")[0].limits
    assert given == Limits(max_client_batch_size=7, auto_truncate=False)
    assert run("toy", "--auto-truncate", "--max-wait", "1")[0].limits == Limits(max_wait=1.0)
    env = {"MAX_CONCURRENT_REQUESTS": "9", "PAYLOAD_LIMIT": "1000", "API_KEY": "key", "PORT": "8080", "MODEL_ID": "toy"}
    setup, where = run(env=env)
    assert setup.limits == Limits(max_concurrent_requests=9, payload_limit=1000)
    assert (setup.api_key, where["port"], setup.models) == ("key", 8080, (("toy", "toy"),))


def test_workers_share_the_threads(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade.cli.serve.check_threads", lambda given: 8)
    assert run("toy", "--workers", "3")[0].threads == 2
    assert run("toy", "--workers", "30")[0].threads == 1
    assert run("toy", "--workers", "3", "--threads", "4")[0].threads == 4


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((), OptionError, "cascade serve must have a bundle, got none"),
        (("toy", "--model", "toy"), OptionError, "--model must be NAME=PATH, got toy"),
        (("nowhere",), BundleNotFoundError, "nowhere"),
        (("toy", "--max-batch-tokens", "0"), OptionError, "max_batch_tokens"),
    ],
)
def test_what_cannot_be_served_is_said_before(run: Any, arguments: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        run(*arguments)


def test_the_extra_is_asked_for(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cascade.serving", "cascade.serving.workers"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cascade-encoder\[serve\]"'):
        run("toy")
