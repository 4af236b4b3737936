"""``Predictor``: predictions for photos, what it needs, and what it does not import."""

import io
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vertebra.data import build_dataset
from vertebra.engine import ExperimentConfig, train
from vertebra.evaluation import to_coco_results
from vertebra.inference import Predictor, open_checkpoint, to_original
from vertebra.models import DetectionInference, SemanticInference
from vertebra.structures import CheckpointError, Classification, Detections, ShortSideResize, UsageError

from ..helpers.tiny import tiny_classifier, tiny_config


@pytest.fixture(scope="module")
def config(shapes) -> ExperimentConfig:
    """Return a detector's experiment with an evaluation batch size of two."""
    return tiny_config(shapes, evaluation={"batch_size": 2})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> Path:
    """Return a finished run of the detector."""
    output = tmp_path_factory.mktemp("predictor") / "run"
    train(config, output)
    return output


@pytest.fixture(scope="module")
def photos(config) -> list[np.ndarray]:
    """Return the validation images."""
    dataset = build_dataset(config.val.dataset)
    return [dataset.read(index).image for index in range(len(dataset))]


def test_predictions_equal_the_results_of_the_run(run, config, photos):
    """Law: the results file of the run, to the last digit, in its batches of two."""
    dataset, predictor = build_dataset(config.val.dataset), Predictor(run, "cpu")
    rows = []
    for image_id, detections in zip(dataset.image_ids, predictor(photos), strict=True):
        rows += to_coco_results(detections, image_id, dataset.category_ids)
    written = json.loads((run / "results.json").read_text())

    def key(row: dict) -> tuple:
        return row["image_id"], -row["score"], row["category_id"], row["bbox"]

    assert sorted(rows, key=key) == sorted(written, key=key) and len(rows) > 50


def test_augmented_evaluations_and_predictions_are_equal(shapes, tmp_path):
    """Law: a run that is evaluated with flips and scales stores them; its results file holds what ``Predictor``
    predicts, which differs from the plain predictions."""
    config = tiny_config(shapes, evaluation={"detection": {"scales": (1.0, 1.5), "flip": True}})
    train(config, tmp_path / "run")
    dataset, predictor = build_dataset(config.val.dataset), Predictor(tmp_path / "run", "cpu")
    rows = [
        row
        for index, image_id in enumerate(dataset.image_ids)
        for row in to_coco_results(predictor(dataset.read(index).image), image_id, dataset.category_ids)
    ]
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert sorted(row["score"] for row in rows) == sorted(row["score"] for row in written) and len(rows) > 50
    photo = dataset.read(0).image
    augmented = predictor(photo)
    predictor.use_views(DetectionInference())
    assert predictor(photo).scores.tolist() != augmented.scores.tolist()
    with pytest.raises(UsageError, match="SemanticInference is for semantic, but the model is for detection"):
        predictor.use_views(SemanticInference())


def test_one_photo_gives_one_prediction_and_a_list_gives_a_list(run, photos):
    """By hand: also a list of one photo and an empty list. The type in which a photo is given does not matter."""
    predictor = Predictor(run, "cpu")
    alone = predictor(photos[0])
    assert isinstance(alone, Detections) and predictor([]) == []
    buffer = io.BytesIO()
    Image.fromarray(photos[0]).save(buffer, "PNG")
    tensor = torch.from_numpy(photos[0]).permute(2, 0, 1)
    for photo in (Image.fromarray(photos[0]), buffer.getvalue(), tensor):
        (prediction,) = predictor([photo])
        for name in ("boxes", "labels", "scores"):
            torch.testing.assert_close(getattr(prediction, name), getattr(alone, name), rtol=0, atol=0)


def test_predictions_are_in_the_pixels_of_the_photo(run, photos):
    """Law: a photo of twice the size has boxes of twice the size, inside the photo."""
    predictor = Predictor(run, "cpu", batch_size=1)
    height, width = photos[0].shape[:2]
    large = photos[0].repeat(2, axis=0).repeat(2, axis=1)
    for detections, scale in zip(predictor([photos[0], large]), (1, 2), strict=True):
        limit = torch.tensor([width, height] * 2) * scale
        assert (detections.boxes <= limit).all() and detections.boxes.max() > 0.9 * scale * min(height, width)


def test_precision_and_deterministic_kernels_follow_the_run(tmp_path, monkeypatch):
    """By hand: torch's settings while the model predicts, for a run in bf16 with deterministic kernels."""
    config = tiny_classifier(recipe={"precision": "bf16", "deterministic": True})
    train(config, tmp_path / "run")
    predictor, settings = Predictor(tmp_path / "run", "cpu"), []
    predict = predictor.model.predict

    def record(images):
        settings.append((torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()))
        return predict(images)

    monkeypatch.setattr(predictor.model, "predict", record)
    before = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    assert isinstance(predictor(np.zeros((40, 50, 3), np.uint8)), Classification)
    assert settings == [("high", True)] and before == ("highest", False)
    assert (torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()) == before


def test_random_validation_transform_needs_preprocessing(shapes, tmp_path):
    """By hand: exit code 2, with what to give; a config value or a function is accepted."""
    train(tiny_config(shapes, val={"transform": {"short_sides": (64, 72)}}), tmp_path / "run")
    with pytest.raises(UsageError, match=r"is random .*: give Predictor\(preprocessing=...\), such as Short"):
        Predictor(tmp_path / "run")
    value = Predictor(tmp_path / "run", "cpu", preprocessing=ShortSideResize(short_side=64, long_side=96))
    function = Predictor(tmp_path / "run", "cpu", preprocessing=lambda image: image)
    photo = np.zeros((64, 80, 3), np.uint8)
    torch.testing.assert_close(value(photo).boxes, function(photo).boxes)


def test_batch_size_below_one_is_refused(run):
    """By hand: ValueError with the number."""
    with pytest.raises(ValueError, match="got batch_size=0"):
        Predictor(run, batch_size=0)


def test_predictor_converts_detections_with_its_classes(run, photos):
    """By hand: class names and category ids are those of the run; a classifier has no detections."""
    predictor = Predictor(run, "cpu")
    found, classes = predictor(photos[0]), predictor.classes
    labels = found.labels.tolist()
    assert predictor.to_dict(found)["names"] == [classes.names[label] for label in labels] and labels
    assert [row["category_id"] for row in predictor.to_coco(found, 3)] == [classes.ids[label] for label in labels]
    predictor.trained = SimpleNamespace(classes={}, source="run")
    with pytest.raises(UsageError, match="run: the model is for detection, so it has no detections"):
        predictor.to_dict(found)


@dataclass(frozen=True)
class Points:
    """A user's type of prediction."""

    xy: Tensor

    def to_original(self, size: tuple[int, int], original_size: tuple[int, int]) -> "Points":
        return Points(self.xy * torch.tensor([original_size[1] / size[1], original_size[0] / size[0]]))


def test_user_prediction_is_converted_by_to_original():
    """By hand: alone and among those of several heads; a value without the method is returned unchanged."""
    points = Points(torch.tensor([[10.0, 20.0]]))
    for converted in (
        to_original(points, (50, 100), (100, 400)),
        to_original({"points": points, "count": 3.0}, (50, 100), (100, 400))["points"],
    ):
        assert converted.xy.tolist() == [[40.0, 40.0]]
    assert to_original({"count": 3.0}, (50, 100), (100, 400)) == {"count": 3.0}


HEAVY = ("tensorboard", "hotcoco", "pycocotools", "albumentations", "rich", "timm.data", "torch.utils.tensorboard")
SCRIPT = """
import sys
import torch
before = set(sys.modules)
import numpy, vertebra
vertebra.load_model(sys.argv[1], "cpu")
detections = vertebra.Predictor(sys.argv[1], "cpu")(numpy.zeros((50, 70, 3), numpy.uint8))
print(type(detections).__name__, *sorted(set(sys.modules) - before))
"""


def test_prediction_imports_no_training_packages(run):
    """By hand, in a new process: no metrics, augmentation or training, and no module that only some systems have."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(run)], capture_output=True, text=True, check=True)
    name, *modules = done.stdout.split()
    assert name == "Detections"
    loaded = [module for module in (*HEAVY, "fcntl", "resource") if module in modules]
    loaded += [module for module in modules if module.startswith(("vertebra.data", "vertebra.engine", "vertebra.eval"))]
    assert loaded == []


def test_checkpoint_with_an_unregistered_part_is_refused(run, tmp_path):
    """By hand: exit code 4, naming the part; its other facts can be read."""
    checkpoint = open_checkpoint(run)
    values = json.loads(json.dumps(checkpoint.inference))
    values["model"]["head"]["name"] = "rcn"
    with pytest.raises(CheckpointError, match="there is no head named 'rcn'; did you mean 'rcnn'"):
        replace(checkpoint, inference=values).inference_config()
