"""`cascade page`: the file that it makes, what its engine reads and packs, and a browser that opens it."""

from __future__ import annotations

import base64
import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cascade import Classifier, load
from cascade.cli.main import cascade
from cascade.engine.packing import Packing
from cascade.policies import Budget, Patience
from tests.test_floors import ROOT

MODEL = ROOT / "models" / "intents"
NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
RUNTIME = ROOT / "node_modules" / "onnxruntime-web"
ENGINE = resources.files("cascade.cli.page").joinpath("cascade.mjs")
ODD = [
    *("", "  ", "naïve Ünïcode ÀÉ", "日本語 text", "a" * 150, "tab\tnew\nline\u200bzero\u00a0nbsp", "[SEP] hi [CLS]"),
    *("€5 = £3 + x^2 ~ `q` | <b>", "emoji 😀 ok", "İstanbul ß ﬁ", "e\u0301te", "\x00\ufffd?"),
    *("it's 3.50!", "Ⅷ ٣ ª", "[sep]"),
]  # fmt: skip


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """Files with the names of onnxruntime-web's."""
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / "dist").mkdir(exist_ok=True)
        (tmp_path / "dist" / name).write_bytes(name.encode())
    return tmp_path


def made(runtime: Path, model: Path, *more: str) -> tuple[int, str, Path]:
    """Status, what was said, and the file."""
    out = runtime / "page.html"
    given = ["page", str(model), "--runtime", str(runtime), "--output", str(out), *more]
    result = CliRunner().invoke(cascade, given, standalone_mode=False)
    return result.exit_code, str(result.exception) if result.exception else result.output, out


def test_the_file_has_all_that_the_page_reads(runtime: Path) -> None:
    (runtime / "lines.txt").write_text("book me a flight\n\nwhat is 2 < 3\n", encoding="utf-8")
    status, said, out = made(runtime, MODEL, "--texts", str(runtime / "lines.txt"))
    assert status == 0, said
    text = out.read_text("ascii")
    parts = dict(re.findall(r'<script type="application/octet-stream" id="([^"]+)">([^<]*)</script>', text))
    manifest = json.loads(base64.b64decode(parts["manifest"]))
    first, second = manifest["tiers"]
    graphs = [first["file"], second["embed"], *(stage["file"] for stage in second["stages"])]
    assert {*graphs, first["tokenizer"], "manifest", "examples", "engine", "runtime", "wasm"} == set(parts)
    assert base64.b64decode(parts[graphs[-1]]) == (MODEL / graphs[-1]).read_bytes()
    assert json.loads(base64.b64decode(parts["examples"])) == ["book me a flight", "what is 2 < 3"]
    assert text.rstrip().endswith("</html>")
    assert str(out) in said


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda own: own.with_router(Budget(0.2)), r"each router must be one of Threshold, .*, got Budget"),
        (
            lambda own: own.with_exit_policy(Patience(1)),
            r"each exit policy must be one of MaxProbability, .*, got Pa",
        ),
    ],
)
def test_policies_that_the_page_does_not_know(
    runtime: Path, change: Callable[[Classifier], Classifier], rule: str
) -> None:
    with Classifier.from_pretrained(MODEL, threads=1) as own:
        change(own).save_pretrained(runtime / "other")
    status, said, out = made(runtime, runtime / "other")
    assert status == 1
    assert re.search(rule, said)
    assert not out.exists()


def test_texts_that_are_no_utf_8(runtime: Path) -> None:
    (runtime / "lines.txt").write_bytes(b"good\n\xff bad\n")
    status, said, out = made(runtime, MODEL, "--texts", str(runtime / "lines.txt"))
    assert status == 1
    assert re.search(r"lines.txt, line 2: .*UTF-8", said)
    assert not out.exists()


def test_a_tagger_and_a_folder_without_the_runtime(runtime: Path) -> None:
    said = made(runtime, ROOT / "models" / "pos")[1]
    assert "the task must be text-classification, got token-classification" in said
    (runtime / "dist" / "ort-wasm-simd-threaded.wasm").unlink()
    assert (
        "--runtime must be a folder of onnxruntime-web with dist/ort-wasm-simd-threaded.wasm" in made(runtime, MODEL)[1]
    )


def in_node(program: str, given: Any) -> Any:
    """What a program of JavaScript that imports the engine prints as JSON; `given` is its `given`."""
    if NODE is None:
        pytest.skip("node is not installed")
    whole = f"const given = {json.dumps(given)};\n{program}"
    with resources.as_file(ENGINE) as path:
        whole = whole.replace("ENGINE", path.as_uri())
        done = subprocess.run(
            [NODE, "--input-type=module", "-"], input=whole, capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["intents", "sentiment"])
def test_its_tokenizer_reads_what_the_engine_reads(name: str) -> None:
    folder = ROOT / "models" / name
    lines = (ROOT / "cascade" / "cli" / "demo" / f"{name}.jsonl").read_text("utf-8").splitlines()
    texts = [*ODD, *(json.loads(line)["text"] for line in lines)]
    program = """
    import fs from "node:fs";
    import { WordPiece } from "ENGINE";
    const read = new WordPiece(JSON.parse(fs.readFileSync(given.file)));
    console.log(JSON.stringify(given.texts.map((one) => read.encode(one))));
    """
    found = in_node(program, {"file": str(folder / "tokenizer.json"), "texts": texts})
    with load(folder, threads=1) as own:
        rows = own.tokenizer.encode(texts).units.rows
    assert found == [rows.ids[begin:end].tolist() for begin, end in zip(rows.offsets, rows.offsets[1:], strict=False)]


def test_it_packs_as_the_engine_packs() -> None:
    lengths = [3, 1, 5, 2]
    program = """
    import { packed } from "ENGINE";
    const { feeds, positions } = packed(given, 2);
    const plain = (own) => [...own].map(Number);
    const said = Object.entries(feeds).map(([name, [, data, shape]]) => [name, { data: plain(data), shape }]);
    console.log(JSON.stringify({ ...Object.fromEntries(said), position_ids: { data: plain(positions), shape: [11] } }));
    """
    packing = Packing.of(np.array(lengths), heads=2)
    for name, told in in_node(program, lengths).items():
        wanted = packing.array(name)
        assert told["shape"] == list(wanted.shape)
        assert told["data"] == wanted.ravel().tolist()


@pytest.mark.skipif(not (RUNTIME.is_dir() and CHROMIUM), reason="needs npm install onnxruntime-web, and Chromium")
def test_a_browser_answers_as_python_does(tmp_path: Path) -> None:
    pytest.importorskip("playwright")
    result = CliRunner().invoke(
        cascade, ["page", str(MODEL), "--runtime", str(RUNTIME), "--output", str(tmp_path / "page.html")]
    )
    assert result.exit_code == 0
    texts = [text for text in ODD if text.strip()]
    with importlib.import_module("playwright.sync_api").sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page()
        view.goto((tmp_path / "page.html").as_uri())
        view.wait_for_selector("#answer:not([disabled])")
        found = view.evaluate("(texts) => classifier.predict(texts)", texts)
        browser.close()
    with Classifier.from_pretrained(MODEL, threads=1) as own:
        wanted = own.predict(texts)
    assert [one["label"] for one in found] == list(wanted.labels)
    assert [one["tier"] for one in found] == wanted.routes.tier.tolist()
    assert [one["exit_layer"] for one in found] == wanted.routes.exit_layer.tolist()
