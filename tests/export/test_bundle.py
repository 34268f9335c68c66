"""From two checkpoints to a bundle: what is in it, that it answers as torch, and that failures write nothing."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tokenizers
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer

from cascade.bundle.opening import open_bundle
from cascade.core.rows import Rows
from cascade.exceptions import BundleError, DataError, OptionError
from cascade.policies.exits import AtExit
from cascade.policies.routing import Budget
from cascade.text.tokenizer import Text, Tokenizer
from cascade_export import Calibration, CardOptions, ExportOptions, Int8, export_bundle, verify
from cascade_export import export as export_module
from cascade_export.cli import main
from cascade_export.packed.chain import padded_logits
from cascade_export.verify import check, torch_tier1, torch_tier2
from tests.models import tiny

MakeTierOne = Callable[..., Any]
LABELLED = Calibration(tiny.TEXTS, ["positive", "positive", "negative", "negative"] * 2, "some texts")


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with checkpoints `tier2`, `static` and `transformer`."""
    folder = tmp_path_factory.mktemp("tiers")
    tiny.tier2(folder / "tier2", depth=2)
    tiny.tier1_static(folder / "static")
    tiny.tier1_transformer(folder / "transformer")
    return folder


def encode(texts: tuple[str, ...] = tiny.TEXTS) -> Rows:
    return Tokenizer(tiny.tokenizer(), max_length=64).encode(texts).units.rows


@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_tier1_graphs_answer_as_torch(tmp_path: Path, kind: str) -> None:
    make: MakeTierOne = {"static": tiny.tier1_static, "transformer": tiny.tier1_transformer}[kind]
    model = make(tmp_path / "tier1")
    tiny.tier2(tmp_path / "tier2", depth=1)
    bundle = export_bundle(tmp_path / "tier2", tmp_path / "tier1", tmp_path / "out", calibration=LABELLED)
    expected = torch_tier1(model, encode(), max_length=64)
    fp32 = padded_logits(onnx.load(bundle.path("onnx/model.onnx")), encode(), max_length=64)
    int8 = padded_logits(onnx.load(bundle.path("onnx/model_quantized.onnx")), encode(), max_length=64)
    np.testing.assert_allclose(fp32, expected, atol=1e-5, rtol=0)
    assert 0 < np.abs(int8 - expected).max() < 0.2
    assert bundle.manifest.tier1.kind == kind
    assert bundle.manifest.tier1.file == "onnx/model_quantized.onnx"
    one_by_one = [
        padded_logits(onnx.load(bundle.path(bundle.manifest.tier1.file)), encode((text,)), max_length=64)
        for text in tiny.TEXTS
    ]
    np.testing.assert_allclose(np.concatenate(one_by_one), int8, atol=1e-5)


def test_what_is_in_a_bundle(tiers: Path, tmp_path: Path) -> None:
    options = ExportOptions(
        router=Budget(0.25),
        exit_policy=AtExit(1),
        max_length=48,
        card=CardOptions(name="Tiny", license="Apache-2.0", data="eight sentences"),
    )
    steps: list[str] = []
    export_bundle(
        tiers / "tier2",
        tiers / "static",
        tmp_path / "out",
        calibration=LABELLED,
        options=options,
        progress=steps.append,
    )
    assert steps == list(export_module.STEPS)
    bundle = open_bundle(tmp_path / "out")
    manifest = bundle.manifest
    assert manifest.labels == tiny.LABELS
    assert manifest.router == {"policy": "Budget", "max_deferred": 0.25} | dict(manifest.router)
    assert manifest.exit_policy["policy"] == "AtExit"
    assert [stage.layer for stage in manifest.tier2.stages] == [1, 2]
    assert {stage.precision for stage in manifest.tier2.stages} == {"int8"}
    assert manifest.tier2.max_length == manifest.tier1.max_length == 48
    assert (manifest.tier2.width, manifest.tier2.heads) == (16, 2)
    assert all(0.05 <= stage.temperature <= 20 for stage in manifest.tier2.stages)
    assert 1.0 not in {manifest.tier1.temperature, *(stage.temperature for stage in manifest.tier2.stages)}
    assert manifest.figures["calibration"] == {
        "source": "some texts",
        "sha256": None,
        "texts": 8,
        "labelled": True,
    }
    assert set(manifest.figures["tier1"]) > {"agreement", "accuracy", "accuracy_fp32", "max_difference"}
    assert set(manifest.files) == {
        "README.md",
        "config.json",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "tier2/embed.onnx",
        "tier2/stage_00.onnx",
        "tier2/stage_01.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = bundle.path("README.md").read_text(encoding="utf-8")
    for words in ("# Tiny", "license: apache-2.0", "eight sentences", "| tier 2, exit after layer 2 | int8 |"):
        assert words in card


def test_other_tools_read_configuration_and_tokenizer(tiers: Path, tmp_path: Path) -> None:
    padded = tiny.tokenizer()
    padded.enable_padding()
    padded.enable_truncation(5)
    padded.save(str(tiers / "tier2" / "tokenizer.json"))
    for kind in ("static", "transformer"):
        export_bundle(tiers / "tier2", tiers / kind, tmp_path / kind)
        config = AutoConfig.from_pretrained(tmp_path / kind)
        assert config.id2label == dict(enumerate(tiny.LABELS))
        assert config.problem_type == tiny.SINGLE
        assert AutoTokenizer.from_pretrained(tmp_path / kind)("a film")["input_ids"] == encode(("a film",)).ids.tolist()
        raw = tokenizers.Tokenizer.from_file(str(tmp_path / kind / "tokenizer.json"))
        assert raw.padding is raw.truncation is None


def test_without_labels_temperatures_stay_one(tiers: Path, tmp_path: Path) -> None:
    manifest = export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out").manifest
    assert [stage.temperature for stage in manifest.tier2.stages] == [1.0, 1.0]
    assert "accuracy" not in manifest.figures["tier1"]


def test_fp32_tier1_can_be_left_out(tiers: Path, tmp_path: Path) -> None:
    options = ExportOptions(fp32=False)
    manifest = export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out", options=options).manifest
    assert "onnx/model.onnx" not in manifest.files
    assert manifest.tier1.file in manifest.files


def test_without_int8_everything_is_fp32(tiers: Path, tmp_path: Path) -> None:
    options = ExportOptions(int8=Int8.NONE, fp32=False)
    manifest = export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out", options=options).manifest
    assert manifest.tier1.file == "onnx/model.onnx"
    assert {manifest.tier1.precision, *(stage.precision for stage in manifest.tier2.stages)} == {"fp32"}
    assert manifest.figures["tier2"][-1]["max_difference"] == 0


def test_dynamic_int8(tiers: Path, tmp_path: Path) -> None:
    options = ExportOptions(int8=Int8.DYNAMIC)
    bundle = export_bundle(tiers / "tier2", tiers / "transformer", tmp_path / "out", options=options)
    for file in (bundle.manifest.tier1.file, bundle.manifest.tier2.stages[0].file):
        operators = {node.op_type for node in onnx.load(bundle.path(file)).graph.node}
        assert "DynamicQuantizeMatMul" in operators
        assert "QuantizeLinear" not in operators


def test_multi_label_and_one_label(tmp_path: Path) -> None:
    names = ("kind", "long", "about money")
    multi = "multi_label_classification"
    tiny.tier2(tmp_path / "2", depth=2, labels=names, problem_type=multi)
    tiny.tier1_static(tmp_path / "1", labels=names, problem_type=multi)
    labels = [("kind",), (), ("kind", "long"), ("about money",)] * 2
    bundle = export_bundle(
        tmp_path / "2", tmp_path / "1", tmp_path / "out", calibration=Calibration(tiny.TEXTS, labels)
    )
    assert bundle.manifest.problem_type == multi
    assert bundle.manifest.tier2.stages[0].temperature != 1
    assert 0 <= bundle.manifest.figures["tier2"][0]["accuracy"] <= 1


def test_long_and_paired_texts_calibrate(tiers: Path, tmp_path: Path) -> None:
    texts: list[Text] = [("a good film", "the plot is dull"), "very " * 200 + "good", ""]
    calibration = Calibration(texts, ["negative", "positive", "negative"])
    manifest = export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out", calibration=calibration).manifest
    assert manifest.figures["calibration"]["texts"] == 3


# ------------------------------------------------------------------------------------------------ refusals


def refused(tmp_path: Path, error: type[Exception], match: str, tier2: Path, tier1: Path, **options: Any) -> None:
    with pytest.raises(error, match=match):
        export_bundle(tier2, tier1, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_labels_must_be_equal(tiers: Path, tmp_path: Path) -> None:
    tiny.tier1_static(tmp_path / "other", labels=("positive", "negative"))
    refused(
        tmp_path,
        BundleError,
        r"same labels in the same order, tier 2 has \[negative, positive\] \(2\), tier 1 \[positive, negative\] \(2\)",
        tiers / "tier2",
        tmp_path / "other",
    )


def test_problem_types_must_be_equal(tiers: Path, tmp_path: Path) -> None:
    tiny.tier1_static(tmp_path / "other", problem_type="multi_label_classification")
    refused(tmp_path, BundleError, "same problem_type, tier 2 has single", tiers / "tier2", tmp_path / "other")


def test_tokenizers_must_be_equal(tiers: Path, tmp_path: Path) -> None:
    tiny.tier1_static(tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    spec = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = spec["model"]["vocab"]
    vocabulary["film"], vocabulary["plot"] = vocabulary["plot"], vocabulary["film"]
    file.write_text(json.dumps(spec), encoding="utf-8")
    refused(tmp_path, BundleError, "same tokenizer, but the vocabularies", tiers / "tier2", tmp_path / "other")


def test_a_missing_tier1_is_named(tiers: Path, tmp_path: Path) -> None:
    refused(tmp_path, OptionError, "must be a checkpoint folder with a config.json", tiers / "tier2", tmp_path)


def test_a_broken_tier1_is_named(tiers: Path, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.json").write_text('{"model_type": "nonsense"}', encoding="utf-8")
    refused(tmp_path, OptionError, "must be a checkpoint that transformers reads", tiers / "tier2", tmp_path / "1")


def test_a_missing_tier2_is_named(tiers: Path, tmp_path: Path) -> None:
    refused(tmp_path, OptionError, "tier 2 must be", tmp_path / "nothing", tiers / "static")


def test_broken_weights_are_named(tiers: Path, tmp_path: Path) -> None:
    for tier in ("tier2", "static"):
        copy = tmp_path / tier
        shutil.copytree(tiers / tier, copy)
        (copy / "model.safetensors").write_bytes(b"flipped" * 10)
    match = "tier 2 must be a checkpoint of `cascade-train exits`, but Error while deserializing"
    refused(tmp_path, OptionError, match, tmp_path / "tier2", tiers / "static")
    match = "tier 1 must be a checkpoint that transformers reads, but Error while deserializing"
    refused(tmp_path, OptionError, match, tiers / "tier2", tmp_path / "static")


def test_tier2_needs_a_tokenizer(tiers: Path, tmp_path: Path) -> None:
    tiny.tier2(tmp_path / "2", depth=1)
    for file in tmp_path.glob("2/*token*"):
        file.unlink()
    refused(tmp_path, OptionError, "tier 2 must have a tokenizer.json", tmp_path / "2", tiers / "static")


@pytest.mark.parametrize("length", [0, 65])
def test_max_length_must_fit(tiers: Path, tmp_path: Path, length: int) -> None:
    options = ExportOptions(max_length=length)
    match = rf"max_length must be in \[1, 64\], the positions of tier 2, was: {length}"
    refused(tmp_path, OptionError, match, tiers / "tier2", tiers / "static", options=options)


@pytest.mark.parametrize(
    ("calibration", "match"),
    [
        (Calibration([]), "calibration must hold at least one text"),
        (Calibration(["a", "b"], ["negative"]), "one label per text, has 1 labels for 2 texts"),
        (Calibration(["a"], ["neutral"], "f.csv"), r"f.csv: the label of text 1 must be one of \[negative, positive\]"),
        (Calibration(["a"], [("negative", "positive")], "f.csv"), "f.csv: text 1 must have 1 label, has 2"),
    ],
)
def test_calibration_must_fit(tiers: Path, tmp_path: Path, calibration: Calibration, match: str) -> None:
    refused(tmp_path, (OptionError, DataError), match, tiers / "tier2", tiers / "static", calibration=calibration)  # type: ignore[arg-type]  # pytest takes several


def test_agreement_must_be_a_share() -> None:
    with pytest.raises(OptionError, match=r"agreement must be in \[0, 1\], was: 98"):
        ExportOptions(agreement=98)


def test_an_output_that_is_taken_is_refused_at_once(tiers: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(OptionError, match="must be a new or empty folder"):
        export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_graph_that_differs_from_torch_is_not_written(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "torch_tier2", lambda *given: torch_tier2(*given) + 0.01)
    refused(tmp_path, BundleError, "tier2/stage_00.onnx must answer as its", tiers / "tier2", tiers / "static")
    assert list(tmp_path.iterdir()) == []


def test_a_nan_is_a_difference() -> None:
    with pytest.raises(BundleError, match="largest difference was nan"):
        check("graph", np.full((2, 2), np.nan, np.float32), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("step", ["quantise_tier1", "model_card", "write_bundle"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_written_when_a_step_breaks(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    def broken(*given: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(export_module, step, broken)
    with pytest.raises(error):
        export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- command line


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_without_a_bar(tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def export(*given: object, progress: Callable[[str], None], **options: object) -> None:
        for step in export_module.STEPS:
            progress(step)
            shown.append(step)
        raise OptionError("far enough")

    monkeypatch.setattr("tqdm.tqdm", functools.partial(tqdm, disable=True))  # as the variable TQDM_DISABLE does
    monkeypatch.setattr(export_module, "export_bundle", export)
    assert run("--tier2", tiers / "tier2", "--tier1", tiers / "static", "--output", tmp_path / "out") == 2
    assert shown == list(export_module.STEPS)


def test_command_round_trip(tiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "calibration.jsonl"
    lines = [{"text": text, "label": tiny.LABELS[i % 2]} for i, text in enumerate(tiny.TEXTS)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = ["--tier2", tiers / "tier2", "--tier1", tiers / "static", "--output", tmp_path / "out"]
    more = ["--calibration", file, "--threshold", 0.8, "--exit-threshold", 0.7, "--no-fp32", "--max-length", 40]
    status = run(*arguments, *more)
    seen = capsys.readouterr()
    assert status == 0, seen.err
    assert "tier 2, layer 2: int8, agrees with fp32 on" in seen.out
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.router["threshold"] == 0.8
    assert manifest.exit_policy["threshold"] == 0.7
    known = manifest.figures["calibration"]
    assert {name: known[name] for name in ("source", "texts", "labelled")} == {
        "source": "calibration.jsonl",
        "texts": 8,
        "labelled": True,
    }
    assert known["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert run(*arguments) == 2
    assert "must be a new or empty folder" in capsys.readouterr().err
    assert run(*arguments, "--overwrite", "--int8", "none") == 0
    assert open_bundle(tmp_path / "out").manifest.tier1.precision == "fp32"


def test_command_reports_errors_on_one_line(tiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run("--tier2", tmp_path / "no", "--tier1", tiers / "static", "--output", tmp_path / "out")
    assert status == 2
    seen = capsys.readouterr().err
    assert seen.strip().splitlines()[-1].startswith("Error: tier 2 must be")
    assert "Traceback" not in seen


def test_command_can_be_interrupted(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "export_bundle", interrupted)
    status = run("--tier2", tiers / "tier2", "--tier1", tiers / "static", "--output", tmp_path / "out")
    assert status == 130
    assert capsys.readouterr().err.strip().splitlines()[-1] == "Interrupted."
    assert not (tmp_path / "out").exists()


def test_command_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "cascade-export --tier2 runs/sentiment-exits" in capsys.readouterr().out


def test_the_extra_is_named_where_it_is_missing() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name: None if name in ('torch', 'onnx') else real(name)\n"
        "from cascade_export.cli import main\n"
        "main(['--tier2', 'a', '--tier1', 'b', '--output', 'c'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "Error: cascade_export needs the export extra, but onnx, torch cannot be imported; "
        'pip install "cascade-encoder[export]"'
    )


def test_unknown_names_are_attribute_errors() -> None:
    import cascade_export

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cascade_export.nonsense  # noqa: B018  # asking is the test


def test_options_are_values() -> None:
    assert replace(ExportOptions(), int8=Int8.NONE).int8 is Int8.NONE
    assert ExportOptions() == ExportOptions()
