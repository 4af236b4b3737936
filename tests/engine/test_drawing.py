"""What is drawn for people: the same as on the whole picture, in little time, and of a size to look at."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from vertebra.data import Batch, Dataset, Objects, PolygonMask, Record, ResizeConfig, build_dataset
from vertebra.engine import ClassificationTask, Detection, draw_comparisons
from vertebra.engine.logging.comparisons import shrink_record
from vertebra.inference import blend_masks, draw_boxes
from vertebra.inference.drawing import class_color
from vertebra.models import Model, build_model
from vertebra.structures import IGNORE, Classes, Classification, Detections, Images, RoIMasks

from ..helpers.tiny import tiny_classifier

RNG = np.random.default_rng(0)


def blobs(count: int, shape: tuple[int, int]) -> list[np.ndarray]:
    """Ragged masks with holes, some over the edge of the picture, and an empty one."""
    masks = [np.zeros(shape, bool)]
    for top, left in RNG.integers(-10, 50, (count, 2)).tolist():
        mask = np.zeros(shape, bool)
        part = mask[max(0, top) : top + 25, max(0, left) : left + 30]
        part[:] = RNG.random(part.shape) < 0.9
        masks.append(mask)
    return masks


def test_masks_are_blended_as_on_the_whole_picture():
    """OpenCV's outlines and numpy's arithmetic on whole bitmaps, one mask after the other; the image stays."""
    image = RNG.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    before, expected = image.copy(), image.astype(int)
    pairs = [(mask, class_color(label)) for label, mask in enumerate(blobs(12, image.shape[:2]))]
    for mask, color in pairs:
        expected[mask] = (expected[mask] + color + 1) // 2
        polygon_masks, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for x, y in (point for polygon_mask in polygon_masks for point in polygon_mask[:, 0]):
            expected[y, x] = color
    np.testing.assert_array_equal(blend_masks(image, iter(pairs)), expected)
    np.testing.assert_array_equal(image, before)


def test_a_record_is_shrunk_with_all_that_is_known_of_it():
    """By hand: of 1280 x 960 pixels every second one stays; boxes, outlines, masks and maps are where they were."""
    image = np.zeros((960, 1280, 3), np.uint8)
    image[200:400, 600:1000] = 255
    mask = image[..., 0] // 255
    corners = np.array([[600, 200], [1000, 200], [1000, 400], [600, 400]], np.float32)
    box = np.array([[600, 200, 1000, 400]], np.float32)
    polygon_masks = (PolygonMask.of_polygons([corners]),)
    record = Record(image, Objects(box, np.array([3]), box, mask[None], polygon_masks), semantic=mask, image_id=7)
    small = shrink_record(record, 640)
    assert small.image.shape == (480, 640, 3) and small.image_id == 7
    expected = image[::2, ::2, 0] // 255
    np.testing.assert_array_equal(small.image[..., 0] // 255, expected)
    np.testing.assert_array_equal(small.semantic, expected)
    np.testing.assert_array_equal(small.objects.masks[0], expected)
    for boxes in (small.objects.boxes, small.objects.ignored):
        assert boxes.tolist() == [[300, 100, 500, 200]]
    assert small.objects.polygon_masks[0].edges[0].tolist() == [300, 100, 500, 100]
    assert shrink_record(record, 1280) is record


def test_a_sheet_of_large_photos_is_one_to_look_at(tmp_path):
    """By hand: two pairs of 12 megapixels, the first upright, fill a sheet of pictures of 640 pixels; what is found in
    the left half is drawn there."""

    class Photos(Dataset):
        ground_truth = None

        def __len__(self) -> int:
            return 2

        def read_image(self, index: int) -> Record:
            return Record(np.full((*[(4000, 3000), (3000, 4000)][index], 3), 128, np.uint8))

        def add_annotations(self, record: Record, index: int) -> Record:
            none = np.zeros((0, 4), np.float32)
            return replace(record, objects=Objects(none, np.zeros(0, np.int64), none))

    class Finder(Model):
        size_divisor, device = 1, torch.device("cpu")

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def predict(self, images: Images) -> list[Detections]:
            height, width = images.sizes[0].tolist()
            box = torch.tensor([[0.0, 0.0, width / 2, float(height)]])
            masks = RoIMasks(torch.ones(1, 28, 28), (height, width))
            return [Detections(box, torch.tensor([0]), torch.tensor([0.9]), masks)]

    task = Detection(Classes(("cat",), ids=(1,)))
    resize = ResizeConfig(short_sides=(64,))
    draw_comparisons(task, Finder(), Photos(), resize, tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
    assert sheet.shape == (18 + 640 + 6, 2 * (2 * 640 + 6), 3)
    half = (128 + np.array(class_color(0)) + 1) // 2
    first, second = sheet[18:658, :960], sheet[18:498, 1286 : 1286 + 1280]
    for pair, width in ((first, 480), (second, 640)):
        assert pair[300, width // 4].tolist() == pair[300, 3 * width // 4].tolist() == [128] * 3
        assert pair[300, width + width // 4].tolist() == half.tolist()
        assert pair[300, width + 3 * width // 4].tolist() == [128] * 3


def test_a_picture_that_fails_leaves_the_model_in_training(tmp_path):
    """By hand: a task that cannot predict."""

    class Broken(ClassificationTask):
        def predict(self, model: Model, batch: Batch) -> list[Classification]:
            raise RuntimeError("broken")

    config = tiny_classifier()
    data = build_dataset(config.val.dataset)
    model = build_model(config.model, data.class_names)
    with pytest.raises(RuntimeError, match="broken"):
        draw_comparisons(Broken(data.classes["classification"]), model, data, config.val.transform, tmp_path / "x.png")
    assert model.training


def test_every_label_has_a_colour_of_its_own():
    """A law: as many as a map of classes can hold; those of the first labels are far apart, and of the later ones none
    is so dark that black words on it cannot be read."""
    colors = np.array([class_color(label) for label in range(IGNORE)], int)
    assert len(np.unique(colors, axis=0)) == IGNORE
    few = np.abs(colors[:8, None] - colors[None, :8]).sum(axis=2)
    assert few[~np.eye(8, dtype=bool)].min() > 60
    assert colors.max(axis=1).min() >= 200


def test_two_classes_are_drawn_in_their_own_colours():
    """By hand: the grounds of the names of two boxes whose classes share a hue with others."""
    image = np.full((400, 600, 3), 128, np.uint8)
    boxes = torch.tensor([[10.0, 100.0, 200.0, 300.0], [300.0, 100.0, 500.0, 300.0]])
    drawn = draw_boxes(image, boxes, torch.tensor([0, 81]), [str(label) for label in range(90)])
    assert tuple(drawn[99, 10].tolist()) == class_color(0)
    assert tuple(drawn[99, 300].tolist()) == class_color(81)
    assert len({class_color(0), class_color(1), class_color(80), class_color(81)}) == 4
