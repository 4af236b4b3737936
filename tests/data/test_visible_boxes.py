"""Boxes that a crop fits to the visible part of masks, as bitmaps and as polygons."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from vertebra.data import (
    CenterCropConfig,
    Objects,
    PolygonMask,
    RandomCropConfig,
    Record,
    ResizeConfig,
    ScaledCropConfig,
    Window,
    build_transform,
    pad_polygon_masks,
)
from vertebra.data.mixing.pieces import cut
from vertebra.data.polygons import boxes_from_polygon_masks
from vertebra.ops import rasterize_polygon_masks

HEIGHT, WIDTH = 80, 120
BAR = np.array([[5, 0], [120, 72], [115, 80], [0, 8]], np.float32)
RECTANGLE = np.array([[30, 10], [90, 10], [90, 70], [30, 70]], np.float32)
ANGLE = np.array([[0, 0], [120, 0], [120, 4], [4, 4], [4, 80], [0, 80]], np.float32)
CROWD = np.array([[10, 30, 30, 60]], np.float32)
JITTER = ScaledCropConfig(size=(40, 60), scales=(0.8, 3.0), boxes_from_masks=True)
CROPS = {
    "random part": ResizeConfig(short_sides=(60,), crop=0.4),
    "random crop": RandomCropConfig(size=60),
    "scaled crop": ScaledCropConfig(size=(40, 60), scales=(1.0, 3.0)),
    "center crop": CenterCropConfig(resize=50, size=30),
}


def draw(polygon: np.ndarray) -> np.ndarray:
    """Return the bitmap of a polygon."""
    region = torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]])
    polygon_masks = pad_polygon_masks([PolygonMask.of_polygons([polygon])])
    return (
        rasterize_polygon_masks(polygon_masks, torch.tensor([0]), region, (HEIGHT, WIDTH))[0].numpy().astype(np.uint8)
    )


def record(*polygons: np.ndarray, form: str) -> Record:
    """Return an image with an object for each polygon, in its box; ``form`` is the format of the masks."""
    boxes = [[*polygon.min(axis=0), *polygon.max(axis=0)] for polygon in polygons]
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    objects = Objects(boxes, np.arange(len(boxes)), CROWD)
    if form == "polygons":
        objects = objects.replace(polygon_masks=tuple(PolygonMask.of_polygons([polygon]) for polygon in polygons))
    else:
        bitmaps = np.array([draw(polygon) for polygon in polygons], np.uint8)
        objects = objects.replace(masks=bitmaps.reshape(-1, HEIGHT, WIDTH))
    return Record(np.zeros((HEIGHT, WIDTH, 3), np.uint8), objects)


@pytest.mark.parametrize("name", CROPS)
def test_boxes_of_a_crop_fit_the_visible_pixels(name):
    """Oracle: torchvision's masks_to_boxes, plus 1 for the last pixel, which it does not include. No remaining mask
    is empty."""
    fitting, clipping = (build_transform(CROPS[name].replace(boxes_from_masks=fit)) for fit in (True, False))
    source = record(BAR, RECTANGLE, ANGLE, form="bitmaps")
    dropped = 0
    for index in range(100):
        fitted, clipped = fitting(source, 0, index).target, clipping(source, 0, index).target
        assert fitted.masks.flatten(1).any(dim=1).all()
        torch.testing.assert_close(fitted.boxes, masks_to_boxes(fitted.masks) + torch.tensor([0.0, 0.0, 1.0, 1.0]))
        kept = clipped.masks.flatten(1).any(dim=1)
        assert fitted.labels.tolist() == clipped.labels[kept].tolist()
        assert torch.equal(fitted.masks, clipped.masks[kept]) and torch.equal(fitted.ignored, clipped.ignored)
        dropped += int((~kept).sum())
    assert dropped > 3


def test_polygons_and_bitmaps_of_a_crop_have_the_same_boxes():
    """Law: the boxes of both mask formats differ at most by the size of a pixel, to which bitmaps round."""
    prepare = build_transform(JITTER)
    sources = [record(BAR, RECTANGLE, form=form) for form in ("bitmaps", "polygons")]
    compared = 0
    for index in range(100):
        bitmaps, polygons = (prepare(source, 0, index).target for source in sources)
        boxes = dict(zip(polygons.labels.tolist(), polygons.boxes, strict=True))
        assert len(polygons.polygon_masks) == len(polygons.boxes)
        for label, box in zip(bitmaps.labels.tolist(), bitmaps.boxes, strict=True):
            # The bitmap is of the original size: three times as large, its steps along the slant are wide.
            torch.testing.assert_close(boxes[label], box, atol=4.0, rtol=0)
            compared += 1
    assert compared > 100


SQUARE = np.array([[20, 20], [40, 20], [40, 40], [20, 40]], np.float32)
FOOT = np.array([[5, -10], [30, -10], [30, 0], [10, 0], [10, 8], [5, 8]], np.float32)
# name: (polygon, (height, width) of an image, the polygon's box in it)
VISIBLE_BOXES = {
    "all": (SQUARE, (50, 50), [20, 20, 40, 40]),
    "a corner": (SQUARE, (30, 25), [20, 20, 25, 30]),
    "nothing": (SQUARE, (10, 50), [0, 0, 0, 0]),
    "no more than its edge": (SQUARE, (20, 50), [0, 0, 0, 0]),
    "just as large": (SQUARE - 20, (20, 20), [0, 0, 20, 20]),
    "a leg, and a foot on the other side of the border": (FOOT, (50, 50), [5, 0, 10, 8]),
    "around the image": (SQUARE * 3 - 62, (30, 50), [0, 0, 50, 30]),
    "the lower end of a slant": (np.array([[-10, 0], [10, 20], [-10, 40]], np.float32), (50, 50), [0, 10, 10, 30]),
    "a slant past the corner": (np.array([[-30, 5], [5, -30], [-30, -30]], np.float32), (50, 50), [0, 0, 0, 0]),
}


@pytest.mark.parametrize("name", VISIBLE_BOXES)
def test_box_fits_the_visible_part_of_a_polygon(name):
    """By hand: nine polygons; a box without area if nothing is visible."""
    polygon, size, box = VISIBLE_BOXES[name]
    assert boxes_from_polygon_masks([PolygonMask.of_polygons([polygon])], size)[0].tolist() == pytest.approx(box)


def test_box_covers_all_polygons_of_an_object():
    """By hand: one polygon encloses the image, the other is inside it."""
    polygon_mask = PolygonMask.of_polygons([SQUARE * 3 - 62, SQUARE])
    assert boxes_from_polygon_masks([polygon_mask], (50, 50))[0].tolist() == [0, 0, 50, 50]


@pytest.mark.parametrize("form", ["bitmaps", "polygons"])
def test_image_without_objects_has_no_boxes(form):
    """By hand: tensors of the right shape without rows."""
    target = build_transform(JITTER)(record(form=form), 0, 0).target
    assert target.boxes.shape == (0, 4) and len(target.labels) == 0


def test_boxes_of_objects_without_masks_are_clipped():
    """Law: without masks to fit, the boxes are those of a transform with ``boxes_from_masks=False``."""
    source = record(BAR, RECTANGLE, form="bitmaps")
    source = replace(source, objects=source.objects.replace(masks=None))
    clipping = build_transform(JITTER.replace(boxes_from_masks=False))
    for index in range(5):
        sample, expected = build_transform(JITTER)(source, 0, index), clipping(source, 0, index)
        assert torch.equal(sample.target.boxes, expected.target.boxes)


@pytest.mark.parametrize("form", ["bitmaps", "polygons"])
def test_object_with_empty_mask_keeps_its_clipped_box(form):
    """docs/faults.md row 58. Law: its box is clipped as without masks, in a crop and in a mosaic."""
    source = record(BAR, RECTANGLE, form=form)
    objects = source.objects
    if form == "polygons":
        empty = PolygonMask.of_bitmap(np.zeros((HEIGHT, WIDTH), np.uint8))
        objects = objects.replace(polygon_masks=(empty, objects.polygon_masks[1]))
    else:
        objects.masks[0] = 0
    source = replace(source, objects=objects)
    plain = replace(source, objects=objects.replace(masks=None, polygon_masks=None))
    prepare, kept = build_transform(JITTER), 0
    for index in range(40):
        target, expected = prepare(source, 0, index).target, prepare(plain, 0, index).target
        assert torch.equal(target.boxes[target.labels == 0], expected.boxes[expected.labels == 0])
        kept += int((target.labels == 0).sum())
    assert kept > 0
    left = cut(source, Window(30, 20, 60, 40)).objects
    assert left.labels.tolist() == [0, 1] and left.boxes[0].tolist() == [0, 0, 60, 40]


@pytest.mark.parametrize("name", CROPS)
def test_box_that_ends_at_a_crops_border_is_dropped(name):
    """By hand: boxes are on whole pixels, so many end exactly where a crop begins; a visible side is a good part of
    a pixel. Every other object has a mask that fills the image, which shows that objects keep their masks."""
    prepare, labels = build_transform(CROPS[name]), np.arange(48)
    masks = np.broadcast_to(labels[:, None, None] % 2, (48, HEIGHT, WIDTH)).astype(np.uint8)
    for index in range(125):
        generator = np.random.default_rng(index)
        corners = generator.integers(0, [WIDTH - 40, HEIGHT - 40], (48, 2))
        boxes = np.concatenate([corners, corners + generator.integers(1, 40, (48, 2))], axis=1).astype(np.float32)
        source = Record(np.zeros((HEIGHT, WIDTH, 3), np.uint8), Objects(boxes, labels, boxes, masks))
        target = prepare(source, 0, index).target
        assert all((boxes[:, 2:] - boxes[:, :2] > 1e-3).all() for boxes in (target.boxes, target.ignored))
        assert torch.equal(target.masks.flatten(1).any(dim=1), target.labels % 2 == 1)
