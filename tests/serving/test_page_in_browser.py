"""The page in a headless Chromium, where playwright is installed: no errors, no overflow, answers, a slider.

With AXE=path/of/axe.min.js (npm's axe-core) its rules are checked too.
"""

from __future__ import annotations

import importlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cascade import Classifier, Tagger
from cascade.policies import Threshold
from cascade.serving.app import App
from cascade.serving.metrics import Metrics
from cascade.serving.served import Served

pytest.importorskip("playwright")
uvicorn = pytest.importorskip("uvicorn")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The address of an application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def url(clf: Classifier, tagger: Tagger) -> Iterator[str]:
    with running(App([Served("texts", clf.with_router(Threshold(0.9))), Served("words", tagger)])) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with importlib.import_module("playwright.sync_api").sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page(browser: Any, url: str, width: int, scheme: str) -> None:
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page, errors = context.new_page(), list[str]()
        page.on("console", lambda said: errors.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.get_by_label("One text per line").fill("good film\nbad\n\nwe laugh")
        page.get_by_role("button", name="Answer").click()
        page.get_by_text("3 texts answered.").wait_for()
        assert page.locator("#answers > li").count() == 3
        page.get_by_label("Tier 1 defers what it is less sure of than").fill("0")
        page.locator("#compare tr:nth-child(3) td:nth-child(3)", has_text="0 %").wait_for()
        sound(page)
        page.get_by_label("Model").select_option("words")
        page.get_by_label("One text per line").fill("we 😀 laugh")
        page.get_by_label("One text per line").press("Control+Enter")
        page.locator(".word", has_text="laugh").wait_for()
        assert page.locator("#answers").inner_text().startswith("we")
        sound(page)
        assert errors == []


def test_the_key_and_alarms(browser: Any, clf: Classifier) -> None:
    metrics = Metrics()
    with running(App([Served("texts", clf)], metrics=metrics, api_key="sécret")) as url:
        page = browser.new_page()
        page.goto(url)
        page.get_by_label("API key").fill("sécret")
        page.get_by_label("API key").press("Tab")
        page.get_by_text("No alarm.").wait_for()
        page.get_by_label("One text per line").fill("good film")
        page.get_by_role("button", name="Answer").click()
        page.get_by_text("1 text answered.").wait_for()
        metrics.refresh.clear()
        metrics._level.labels("texts").set(2)
        metrics._watched.labels("texts", "alarm").set(1)
        page.get_by_text("Alarm: texts differs from full depth more often than it may.").wait_for()
        page.get_by_text("texts answers at level 2").wait_for()
        sound(page)
        page.close()


def sound(page: Any) -> None:
    """Nothing is wider than the page, and axe finds nothing."""
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    if "AXE" in os.environ:
        page.evaluate(Path(os.environ["AXE"]).read_text(encoding="utf-8") + "; 0")
        assert page.evaluate("axe.run().then(({ violations }) => violations.map(({ id }) => id))") == []
