"""The command `cascade page`: one file of HTML with a bundle in it, which answers in the browser that opens it."""

from __future__ import annotations

import base64
import json
from importlib import resources
from itertools import islice
from pathlib import Path

import click

from cascade.bundle.opening import Bundle, open_bundle
from cascade.cli.show import size
from cascade.core.files import staged
from cascade.exceptions import BundleError, OptionError
from cascade.policies.exits import AtExit, Margin, MaxProbability, Never
from cascade.policies.routing import DeferAll, DeferNone, Threshold
from cascade.text.reading import read_examples

RUNTIME = {"runtime": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
"""By their ids in the page, files of onnxruntime-web."""
ROUTERS, EXITS = (Threshold, DeferAll, DeferNone), (MaxProbability, Margin, AtExit, Never)
EXAMPLES = 14


@click.command(short_help="Make a page that runs a bundle in a browser, without a server.")
@click.argument("bundle")
@click.option("--runtime", type=click.Path(path_type=Path), required=True, metavar="DIR",
              help="What `npm install onnxruntime-web` made: node_modules/onnxruntime-web.")  # fmt: skip
@click.option("--texts", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
              help="Texts that the page begins with.")  # fmt: skip
@click.option("--revision", metavar="NAME", help="Of a bundle on the Hub.")
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="A file .html.")
def page(bundle: str, runtime: Path, texts: Path | None, revision: str | None, output: Path) -> None:
    """Make a page that runs BUNDLE, a folder or a Hub id, in any browser that opens it: no server, nothing is sent.

    All is in the file: the graphs, the tokenizer, the policies and ONNX Runtime for the web. Tiers, exits and packing
    are those of `cascade predict`, and so are labels. For classifiers of single texts with BERT's WordPiece whose
    policies are thresholds; a text that is too long for a tier loses its end.

    \b
    Example:
      npm install onnxruntime-web
      cascade page models/intents --runtime node_modules/onnxruntime-web --output intents.html
    """
    opened = open_bundle(bundle, revision=revision)
    _check(opened)
    given = () if texts is None else islice(read_examples(texts, label_column=None), EXAMPLES)
    lines = [line for line in (" ".join(str(one.text).split()) for one in given) if line]
    parts = {
        "manifest": opened.manifest.to_json().encode(),
        "examples": json.dumps(lines).encode(),
        "engine": _own("cascade.mjs"),
        **{name: _runtime(runtime, file) for name, file in RUNTIME.items()},
        **{path: opened.read(path) for tier in opened.manifest.tiers for path in (*tier.graphs, tier.tokenizer)},
    }
    before, after = _own("page.html").decode().split("<!-- parts -->\n")
    with staged(output) as path, path.open("w", encoding="ascii") as file:
        file.write(before)
        for name, contents in parts.items():
            written = base64.b64encode(contents).decode("ascii")
            file.write(f'<script type="application/octet-stream" id="{name}">{written}</script>\n')
        file.write(after)
    click.echo(f"{output}: {size(output.stat().st_size)}; open it in a browser")


def _check(bundle: Bundle) -> None:
    """Refuse what the page's engine does not know; all of it at once."""
    manifest, faults = bundle.manifest, list[str]()
    if manifest.task != "text-classification":
        faults.append(f"the task must be text-classification, got {manifest.task}")
    if manifest.inputs == "pair":
        faults.append("it must classify single texts, got pairs")
    for names, kinds, found in (
        ("router", ROUTERS, manifest.policies.routers),
        ("exit policy", EXITS, manifest.policies.exits),
    ):
        known = ", ".join(kind.__name__ for kind in kinds)
        faults += [f"each {names} must be one of {known}, got {one!r}" for one in found if not isinstance(one, kinds)]
    for path in dict.fromkeys(tier.tokenizer for tier in manifest.tiers):
        told = json.loads(bundle.read(path))
        parts = [(told.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
        if parts != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]:
            faults.append(f"{path} must be BERT's WordPiece, got {parts[2]}")
    if faults:
        raise BundleError(f"a page cannot run {bundle.folder}: {'; '.join(faults)}; take another bundle")


def _own(name: str) -> bytes:
    return resources.files("cascade.cli.page").joinpath(name).read_bytes()


def _runtime(folder: Path, name: str) -> bytes:
    for place in (folder / "dist" / name, folder / name):
        if place.is_file():
            return place.read_bytes()
    told = f"got {folder}; npm install onnxruntime-web makes node_modules/onnxruntime-web"
    raise OptionError(f"--runtime must be a folder of onnxruntime-web with dist/{name}, {told}")
