"""Exported files: what they contain, prediction and evaluation with them, and files that fail their verification.

Models are exported in new processes, since functions whose shapes are checked cannot be traced.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

import vertebra
from vertebra.data import build_dataset
from vertebra.engine import ExperimentConfig, train
from vertebra.heads import MaskBranchConfig
from vertebra.inference import ExportConfig, Predictor, compare_predictions, open_model
from vertebra.inference.export import BOUNDS
from vertebra.inference.export.sessions import require_package
from vertebra.structures import CheckpointError, UsageError
from vertebra.tools.cli import main

from ..helpers.exports import EagerSession, spread_model
from ..helpers.runs import read_scores
from ..helpers.tiny import tiny_config

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def squares(shapes, tmp_path_factory) -> Path:
    """Return the generated scenes with every image padded to 96 x 96 pixels."""
    folder = tmp_path_factory.mktemp("squares") / "coco"
    shutil.copytree(shapes, folder)
    for annotations in folder.glob("annotations/instances_*.json"):
        values = json.loads(annotations.read_text())
        for image in values["images"]:
            path = folder / annotations.stem.removeprefix("instances_") / image["file_name"]
            padded = Image.new("RGB", (96, 96))
            padded.paste(Image.open(path))
            padded.save(path)
            image["height"] = image["width"] = 96
        # Crowds have run lengths, which depend on the size of the image.
        values["annotations"] = [one for one in values["annotations"] if not one["iscrowd"]]
        annotations.write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def config(squares) -> ExperimentConfig:
    """Return the experiment of a small Mask R-CNN on photos of 96 x 96 pixels."""
    config = tiny_config(squares)
    masks = {"dataset": {"masks": True}}
    head = config.model.head.replace(mask=MaskBranchConfig(convolutions=(16,)))
    return config.replace(train=masks, val=masks, model={"head": head})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> Path:
    """Return a finished run of the detector."""
    output = tmp_path_factory.mktemp("export") / "run"
    train(config, output)
    return output


@pytest.fixture(scope="module")
def photos(config) -> list[np.ndarray]:
    """Return the validation images."""
    dataset = build_dataset(config.val.dataset)
    return [dataset.read(index).image for index in range(len(dataset))]


def export(run: Path, file: Path, *options: str) -> str:
    """Export a run in a new process, and return what is printed."""
    command = [sys.executable, "-m", "vertebra.tools.export", str(run), str(file), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def file(run, squares) -> Path:
    """Return an ONNX file that takes one photo of 96 x 96 pixels and resizes it."""
    path, annotations = run.with_name("model.onnx"), squares / "annotations" / "instances_val.json"
    options = ["--size", "96x96", "--batch", "1", "--resize", "--verify", str(squares / "val")]
    printed = export(run, path, *options, "--annotations", str(annotations))
    assert re.search(r"onnx, \d\.\d MB: largest differences from the model on 4 images: .* 0 of [1-9]", printed)
    scores = re.search(r"AP of the model and of the file: bbox (\S+) and (\S+), segm (\S+) and (\S+)", printed)
    assert scores is not None and scores[1] == scores[2] and scores[3] == scores[4]
    assert [one.name for one in path.parent.iterdir() if "part" in one.name] == []
    return path


def test_file_has_standard_operators_and_describes_itself(file, run):
    """By hand: no operators of any other domain; inputs, outputs, classes, preprocessing and provenance."""
    model = onnx.load(file)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""} and model.functions == []
    assert [value.name for value in model.graph.input] == ["images"]
    values = json.loads({entry.key: entry.value for entry in model.metadata_props}["vertebra"])
    outputs = ["boxes", "labels", "scores", "count", "mask", "masks"]
    assert values["outputs"] == outputs == [value.name for value in model.graph.output]
    assert values["classes"]["detection"]["names"][:3] == ["circle", "square", "triangle"]
    assert values["inference"]["preprocessing"]["short_side"] == 64
    assert values["origin"]["source"].startswith(str(run)) and torch.__version__.startswith(values["versions"]["torch"])


def test_predictor_predicts_with_a_file_what_the_run_predicts(file, run, photos):
    """Law: one photo and a list; a photo of another size is refused."""
    predictor = Predictor(file)
    for one, other in zip(Predictor(run, "cpu")(photos), predictor(photos), strict=True):
        assert compare_predictions(one, other, 0.06).violations(BOUNDS) == []
    assert len(predictor(photos[0])) > 0
    with pytest.raises(UsageError, match="takes images of 96x96 pixels, but an image has 40x96"):
        predictor(photos[0][:40])
    with pytest.raises(UsageError, match="an exported file cannot be optimized"):
        predictor.optimize()


def test_eval_and_predict_take_a_file(file, run, config, squares, tmp_path, capsys):
    """Law: the scores of the run; pictures and results of photos."""
    data = tmp_path / "data.json"
    data.write_text(config.model_dump_json())
    assert main(["eval", str(file), "--data", str(data), "--json", str(tmp_path / "scores.json")]) == 0
    found, expected = read_scores(tmp_path / "scores.json"), read_scores(run / "eval.json")
    assert found["bbox"] == pytest.approx(expected["bbox"]) and found["segm"] == pytest.approx(
        expected["segm"], abs=1e-3
    )
    assert main(["predict", str(file), str(squares / "val"), "--output", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 4 and (tmp_path / "out" / "results.json").exists()
    assert main(["eval", str(file)]) == 2
    assert "has no data of its own" in capsys.readouterr().err
    assert main(["eval", str(file), "--data", str(data), "--optimize", "fp32"]) == 2


def test_file_has_no_weights_to_train(file):
    """docs/faults.md row 197: a UsageError that names what to give instead."""
    with pytest.raises(UsageError, match="can only predict: give the run"):
        vertebra.load_model(file)


def test_example_of_the_page_runs_with_numpy_alone(file, photos, tmp_path):
    """Law: the page's program, with this file and photo, in a process without torch, finds the detections."""
    code = re.search(r"```python\n(import json.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code is not None and len(code[1].splitlines()) <= 12
    Image.fromarray(photos[0]).save(tmp_path / "photo.png")
    program = code[1].replace("model.onnx", str(file)).replace("photo.jpg", str(tmp_path / "photo.png"))
    program += "\nimport sys\nprint(len(boxes), masks.shape, 'torch' in sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", program.replace("> 0.5", "> 0.0")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count = len(Predictor(file)(photos[0]))
    assert done.stdout.splitlines()[-1] == f"{count} ({count}, 96, 96) False"
    assert done.stdout.split()[0] in open_model(file).classes["detection"].names


def test_file_that_fails_its_verification_is_not_left(tmp_path, monkeypatch, capsys):
    """docs/faults.md row 196: exit code 1, the differences in one line, and no file, also none that was there."""
    module = sys.modules["vertebra.inference.export.export"]
    model, damaged = spread_model(), spread_model()
    damaged.head.box.class_logits.bias.add_(torch.tensor([0.05, 0.0, 0.0, 0.0]))
    traced = SimpleNamespace(graph=SimpleNamespace(model=model, resize=None))
    written = []

    def write(traced, description, path):
        path.write_text("a file")
        written.append(path)

    monkeypatch.setattr(module, "trace", lambda *arguments: traced)
    monkeypatch.setattr(module, "describe", lambda *arguments: EagerSession(damaged).description)
    monkeypatch.setattr(module, "WRITERS", {"onnx": SimpleNamespace(suffix=".onnx", write=write)})
    monkeypatch.setattr(module, "open_session", lambda path: EagerSession(damaged))
    monkeypatch.setattr(module, "open_model", lambda source, like: SimpleNamespace(load=lambda: model, inference=None))
    monkeypatch.setattr(module, "_inference_of", lambda model, trained: None)
    assert main(["export", "run", str(tmp_path / "model.onnx")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: verification: ") and "scores: " in error and error.count("\n") == 1
    assert written and list(tmp_path.iterdir()) == []
    assert main(["export", "run", str(tmp_path / "model.onnx"), "--no-check"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_options_that_contradict_each_other_are_refused(tmp_path, run, capsys):
    """docs/faults.md row 198: exit code 2, before anything is exported."""
    target = str(tmp_path / "model.onnx")
    for options, message in (
        ((target, "--size", "64x64", "--dynamic"), "--size and --dynamic contradict each other"),
        ((target, "--batch", "none"), "is not a number of images"),
        ((target, "--annotations", "x.json"), "--annotations needs --verify"),
        ((target, "--verify", str(tmp_path)), "there are no images here"),
        ((str(tmp_path / "model.pt2"),), "not a name of a file in the format onnx"),
        ((str(tmp_path / "model.ts"), "--format", "torchscript"), "has fixed shapes: give size and batch"),
    ):
        assert main(["export", str(run), *options]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValidationError, match="half needs the format onnx"):
        ExportConfig(format="aoti", half=True)


def test_preprocessing_that_no_graph_can_contain_is_refused():
    """docs/faults.md row 198: a model from a config alone has no preprocessing."""
    with pytest.raises(UsageError, match="random, custom or unknown, so no graph can contain it"):
        vertebra.export(spread_model(), "model.onnx", ExportConfig(resize=True))


def test_missing_package_and_unreadable_files_are_reported(tmp_path):
    """docs/faults.md row 199: what to install; exit code 4 for a file that is damaged or not ours."""
    with pytest.raises(UsageError, match=r'pip install "vertebra\[export\]"'):
        require_package("no_such_package")
    for name in ("model.onnx", "model.pt2", "model.ts"):
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(CheckpointError, match="cannot be read"):
            open_model(tmp_path / name)
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "other", values[:1], values[1:]), ir_version=10)
    model.opset_import[0].version = 18
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match="has no description of its model"):
        open_model(tmp_path / "other.onnx")


PROGRAM = """
import sys, numpy, torch, torchvision
images = torch.from_numpy(numpy.load(sys.argv[2]))
program = torch.export.load(sys.argv[1]).module()
with torch.no_grad():
    outputs = program(images, torch.tensor([images.shape[2:]] * len(images)))
assert "vertebra" not in sys.modules
numpy.savez(sys.argv[3], **{name: value.numpy() for name, value in outputs.items()})
"""


@pytest.mark.slow
def test_program_of_torch_runs_without_this_package(run, photos, tmp_path):
    """Law: a torch.export file for any height, width and batch, loaded in a new process, predicts what the run does."""
    export(run, tmp_path / "model.pt2", "--format", "torch-export", "--no-resize")
    model = vertebra.load_model(run, "cpu")
    for count, size in ((1, (64, 64)), (4, (77, 130)), (2, (40, 90))):
        stack = np.stack([np.resize(photo, (*size, 3)) for photo in photos[:count]]).transpose(0, 3, 1, 2)
        np.save(tmp_path / "images.npy", stack)
        arguments = [str(tmp_path / name) for name in ("model.pt2", "images.npy", "outputs.npz")]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        outputs = np.load(tmp_path / "outputs.npz")
        images = vertebra.Images.from_list([torch.from_numpy(one.copy()) for one in stack], model.size_divisor)
        for index, expected in enumerate(model.predict(images)):
            assert outputs["count"][index] == len(expected)
            np.testing.assert_allclose(outputs["scores"][index, : len(expected)], expected.scores, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--no-resize",), ("--half",)])
def test_dynamic_file_takes_any_size_and_number(run, photos, tmp_path, options):
    """Law: batches of 1 and 4, tiny, odd and large photos; weights in float16 within their looser bounds."""
    printed = export(run, tmp_path / "model.onnx", *options)
    assert "0 of " in printed
    plain, found = Predictor(run, "cpu"), Predictor(tmp_path / "model.onnx", batch_size=4)
    images = [
        *photos,
        photos[0][:33, :51],
        photos[1][:1, :1],
        np.resize(photos[2], (211, 150, 3)),
        np.zeros_like(photos[0]),
    ]
    for one, other in zip(plain(images), found(images), strict=True):
        agreement = compare_predictions(one, other, 0.3)
        assert agreement.scores < (0.03 if options == ("--half",) else 1e-3) and agreement.missing <= 0.05


@pytest.mark.slow
def test_openvino_runs_the_file(file, photos):
    """Oracle: onnxruntime, with the same inputs."""
    openvino = pytest.importorskip("openvino")
    images = photos[0].transpose(2, 0, 1)[None]
    expected = runtime.InferenceSession(str(file)).run(None, {"images": images})
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = compiled([images])
    count = int(expected[3][0])
    np.testing.assert_allclose(found["scores"][0, :count], expected[2][0, :count], atol=1e-3)


@pytest.mark.slow
def test_torchscript_predicts_the_same(run, photos, tmp_path):
    """Law: a traced graph of fixed size."""
    path = tmp_path / "model.ts"
    export(run, path, "--format", "torchscript", "--size", "64x64", "--batch", "2")
    for one, other in zip(Predictor(run, "cpu")(photos), Predictor(path)(photos), strict=True):
        assert compare_predictions(one, other, 0.06).violations(BOUNDS) == []
