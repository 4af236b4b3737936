"""The picture of a run's predictions: ground truth beside prediction, at a size for the screen."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch

from vertebra.data import Dataset, Objects, PolygonMask, Record, ResizeConfig, build_dataset
from vertebra.engine import DetectionTask, draw_comparisons, pick_task
from vertebra.engine.logging.comparisons import _fill_rows, resize_record
from vertebra.inference import class_color, render_text
from vertebra.models import Model, build_model
from vertebra.structures import Classes, Detections, Images, RoIMasks

from ..helpers.tiny import tiny_classifier


def test_image_is_resized_with_its_annotations():
    """By hand: 1280 x 960 pixels at half the size; boxes, polygons, masks and semantic maps are scaled with them."""
    image = np.zeros((960, 1280, 3), np.uint8)
    image[200:400, 600:1000] = 255
    mask = image[..., 0] // 255
    corners = np.array([[600, 200], [1000, 200], [1000, 400], [600, 400]], np.float32)
    box = np.array([[600, 200, 1000, 400]], np.float32)
    polygon_masks = (PolygonMask.of_polygons([corners]),)
    record = Record(image, Objects(box, np.array([3]), box, mask[None], polygon_masks), semantic=mask, image_id=7)
    small = resize_record(record, 480)
    assert small.image.shape == (480, 640, 3) and small.image_id == 7
    expected = image[::2, ::2, 0] // 255
    np.testing.assert_array_equal(small.image[..., 0] // 255, expected)
    np.testing.assert_array_equal(small.semantic, expected)
    np.testing.assert_array_equal(small.objects.masks[0], expected)
    for boxes in (small.objects.boxes, small.objects.ignored):
        assert boxes.tolist() == [[300, 100, 500, 200]]
    assert small.objects.polygon_masks[0].edges[0].tolist() == [300, 100, 500, 100]
    assert resize_record(record, 960) is record


class Photos(Dataset):
    """Two gray photos of 12 megapixels without objects, the first of them upright."""

    ground_truth = None

    def __len__(self) -> int:
        return 2

    def read_image(self, index: int) -> Record:
        return Record(np.full((*[(4000, 3000), (3000, 4000)][index], 3), 128, np.uint8))

    def add_annotations(self, record: Record, index: int) -> Record:
        none = np.zeros((0, 4), np.float32)
        return replace(record, objects=Objects(none, np.zeros(0, np.int64), none))


class LeftHalf(Model):
    """A model that detects one object, the left half of the image."""

    size_divisor, device, head = 1, torch.device("cpu"), SimpleNamespace(task="detection")
    class_names: ClassVar = {}

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def predict(self, images: Images) -> list[Detections]:
        height, width = images.sizes[0].tolist()
        box = torch.tensor([[0.0, 0.0, width / 2, float(height)]])
        masks = RoIMasks(torch.ones(1, 28, 28), (height, width))
        return [Detections(box, torch.tensor([0]), torch.tensor([0.9]), masks)]


def test_large_photos_are_drawn_in_rows(tmp_path):
    """By hand: an upright and a wide photo in one row of 360 pixels; the prediction is drawn in the left half of the
    right picture of a pair."""
    task = DetectionTask(Classes(("cat",), ids=(1,)))
    draw_comparisons(task, LeftHalf(), Photos(), ResizeConfig(short_sides=(64,)), tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
    caption = len(render_text("truth", 13)) + 2
    assert sheet.shape == (caption + 360 + 6, 2 * 270 + 6 + 2 * 480 + 6, 3)
    blended = (128 + np.array(class_color(0)) + 1) // 2
    first, second = sheet[caption:-6, :540], sheet[caption:-6, 546:-6]
    for pair, width in ((first, 270), (second, 480)):
        assert pair[200, width // 4].tolist() == pair[200, 3 * width // 4].tolist() == [128] * 3
        assert pair[200, width + width // 4].tolist() == blended.tolist()
        assert pair[200, width + 3 * width // 4].tolist() == [128] * 3


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_unequal_photos_are_filled(seed):
    """Symptom: a sheet of unequal photos was mostly white. Law: every row but the last is filled, with no more images
    than needed, every image is in one row, and none is enlarged more than four times."""
    sizes = [(row[0], row[1]) for row in np.random.default_rng(seed).integers(30, 3000, (8, 2)).tolist()]
    rows = list(_fill_rows(sizes))
    assert [index for row, _ in rows for index in row] == list(range(8))
    for number, (row, height) in enumerate(rows):
        width = sum(2 * round(sizes[index][1] * height / sizes[index][0]) + 6 for index in row)
        enlarged = max(sizes[index][0] for index in row) * 4
        assert height <= min(360, enlarged) and width <= 1920 + 2 * len(row)
        without_last = sum(2 * sizes[index][1] / sizes[index][0] for index in row[:-1])
        assert len(row) == 1 or 1920 / without_last > 360
        if number < len(rows) - 1 and height < enlarged:
            assert width > 0.95 * 1920


def test_failed_drawing_restores_training_mode(tmp_path: Path, monkeypatch):
    """By hand: a model that raises an error when it predicts."""
    config = tiny_classifier()
    data = build_dataset(config.val.dataset)
    model = build_model(config.model, data.class_names)

    def fail(images: Images) -> list:
        raise RuntimeError("broken")

    monkeypatch.setattr(model, "predict", fail)
    with pytest.raises(RuntimeError, match="broken"):
        draw_comparisons(pick_task(model.head, data.classes), model, data, config.val.transform, tmp_path / "x.png")
    assert model.training
