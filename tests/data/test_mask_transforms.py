"""Transforms of masks, as bitmaps and as polygons, and of semantic maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from vertebra.data import (
    CenterCropConfig,
    Objects,
    PolygonMask,
    RandomCropConfig,
    Record,
    ResizeConfig,
    ScaledCropConfig,
    build_transform,
)
from vertebra.ops import rasterize_polygon_masks
from vertebra.structures import IGNORE, Instances

HEIGHT, WIDTH = 60, 90
BOXES = np.array([[0, 0, 6, 8], [30, 20, 70, 50], [40, 25, 90, 60]], np.float32)
CROWD = np.array([[10, 30, 30, 60]], np.float32)


def masks_of(boxes: np.ndarray) -> np.ndarray:
    """Return bitmaps with the boxes filled."""
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def record(count: int = 3) -> Record:
    """Return an image that shows its masks: the first object is red, the second green, the third blue."""
    masks = masks_of(BOXES)
    image = np.ascontiguousarray(masks.transpose(1, 2, 0)) * 255
    objects = Objects(BOXES[:count], np.arange(count), CROWD, masks[:count])
    return Record(image, objects, image_id=7)


def polygon_record(polygon_masks: list[PolygonMask], boxes: np.ndarray = BOXES) -> Record:
    """Return the image of :func:`record` with polygons in place of bitmaps."""
    objects = Objects(boxes, np.arange(len(boxes)), CROWD, polygon_masks=tuple(polygon_masks))
    return Record(record().image, objects, image_id=7)


def rectangles(boxes: np.ndarray) -> list[PolygonMask]:
    """Return the boxes as polygons of four corners."""
    return [PolygonMask.of_polygons([box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)]) for box in boxes]


def semantic_record() -> Record:
    """Return an image of three grays that are the classes of its map."""
    classes = np.random.default_rng(0).integers(0, 3, (6, 9)).repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)
    return Record(np.stack([classes * 100] * 3, axis=2), semantic=classes, image_id=7)


CONFIGS = [
    ResizeConfig(short_sides=(60,), flip=1.0),
    ResizeConfig(short_sides=(180,), flip=0.5),
    ResizeConfig(short_sides=(45, 100)),
    ResizeConfig(short_sides=(90,), flip=0.5, crop=0.6),
    RandomCropConfig(size=64, scale=(0.4, 0.8)),
    ScaledCropConfig(size=(100, 120), scales=(0.6, 2.0)),
    ScaledCropConfig(size=(70, 110), scales=(0.6, 2.0), short_side=80),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("index", range(4))
def test_masks_follow_their_pixels(config, index):
    """Law: an object's color channel is bright exactly where its mask is, except at edges, where a resize mixes
    pixels."""
    sample = build_transform(config)(record(), 0, index)
    assert isinstance(sample.target, Instances)
    assert sample.target.masks.sum() > 100
    for mask, label in zip(sample.target.masks, sample.target.labels.tolist(), strict=True):
        channel = sample.image[label]
        assert torch.equal(mask[channel == 255], torch.ones_like(mask[channel == 255]))
        assert not mask[channel == 0].any()


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("index", range(4))
def test_semantic_maps_follow_their_pixels(config, index):
    """Law: the gray of a pixel is that of its class, except at edges, where a resize mixes pixels."""
    sample = build_transform(config)(semantic_record(), 0, index)
    assert sample.target.dtype == torch.int64
    assert sample.target.shape == sample.image.shape[1:]
    pure = torch.zeros_like(sample.target, dtype=torch.bool)
    for label in range(3):
        pure |= (sample.image[0] == label * 100) & (sample.target == label)
    mixed = ~torch.isin(sample.image[0], torch.tensor([0, 100, 200], dtype=torch.uint8))
    # A mix of 0 and 200 can be 100.
    assert (pure | mixed).float().mean() > 0.98


@pytest.mark.parametrize("short", [30, 44, 77, 120])
def test_masks_are_resized_as_nearest_exact(short):
    """Oracle: torch's nearest-exact interpolation.

    With a short side of 45, some pixels are equally near to two: versions of OpenCV differ there.
    """
    sample = build_transform(ResizeConfig(short_sides=(short,)))(record(), 0, 0)
    truth = torch.from_numpy(masks_of(BOXES))[None].float()
    expected = F.interpolate(truth, sample.image.shape[1:], mode="nearest-exact")[0] > 0
    assert torch.equal(sample.target.masks, expected)


def test_object_outside_a_crop_is_dropped_with_its_mask():
    """By hand: the middle 40 x 40 of 60 x 90 shows the second and third object, and only a part of the crowd."""
    sample = build_transform(CenterCropConfig(resize=60, size=40))(record(), 0, 0)
    assert sample.target.labels.tolist() == [1, 2]
    expected = torch.from_numpy(masks_of(BOXES)[1:, 10:50, 25:65]) > 0
    assert torch.equal(sample.target.masks, expected)
    torch.testing.assert_close(sample.target.ignored, torch.tensor([[0.0, 20.0, 5.0, 40.0]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_image_without_objects_has_an_empty_mask_tensor(config):
    """By hand: no masks, of the size of the transformed image."""
    sample = build_transform(config)(record(count=0), 0, 0)
    assert sample.target.masks.shape == (0, *sample.image.shape[1:])


def test_crop_larger_than_the_image_is_padded():
    """By hand: scale 1 fits 60 x 90 into 120 x 200 as 120 x 180; the rest has the mean color, 255 in a semantic map,
    and no objects."""
    config = ScaledCropConfig(size=(120, 200), scales=(1, 1), flip=0)
    sample = build_transform(config)(record(), 0, 0)
    assert sample.image.shape == (3, 120, 200)
    assert sample.image[:, :, 180:].flatten(1).unique(dim=1).flatten().tolist() == [124, 116, 104]
    torch.testing.assert_close(sample.target.boxes, torch.from_numpy(BOXES) * 2, atol=1e-3, rtol=0)
    assert torch.equal(sample.target.masks[:, :, 180:].any(), torch.tensor(False))
    assert sample.target.masks.flatten(1).sum(dim=1).tolist() == [4 * mask.sum() for mask in masks_of(BOXES)]
    semantic = build_transform(config)(semantic_record(), 0, 0).target
    assert (semantic[:, 180:] == IGNORE).all()
    assert not (semantic[:, :180] == IGNORE).any()


def test_scales_are_uniform_in_their_range():
    """By hand: with a short side of 60 at scale 1, the first box is 6 pixels wide, so its width shows the scale of a
    sample."""
    config = ScaledCropConfig(size=(300, 300), scales=(0.5, 2.0), short_side=60, flip=0)
    prepare, source = build_transform(config), record()
    widths = [prepare(source, 0, index).target.boxes[0, 2].item() / 6 for index in range(200)]
    assert min(widths) < 0.55 and max(widths) > 1.95
    assert np.mean(widths) == pytest.approx(1.25, abs=0.1)


def test_scales_in_the_wrong_order_are_refused():
    """By hand: ValidationError that says in which order they go."""
    with pytest.raises(ValidationError, match="scales must be"):
        ScaledCropConfig(scales=(2.0, 0.5))


POLYGON_CONFIGS = [
    *CONFIGS,
    CenterCropConfig(resize=41, size=41),
    ResizeConfig(short_sides=(37,), flip=0.5),  # 90 becomes 55.5, so rounding shifts points far from the corner
]


@pytest.mark.parametrize("config", POLYGON_CONFIGS)
@pytest.mark.parametrize("index", range(4))
def test_polygons_follow_their_boxes(config, index):
    """Oracle: albumentations' boxes: a rectangular polygon spans its box, to a thousandth of a pixel.
    albumentations' keypoints would be off by a pixel in a flip and by half a pixel in a resize."""
    sample = build_transform(config)(polygon_record(rectangles(BOXES)), 0, index)
    height, width = sample.image.shape[1:]
    assert len(sample.target.polygon_masks) == len(sample.target.boxes) > 0
    ends = sample.target.polygon_masks.edges.unflatten(2, (2, 2)).flatten(1, 2)
    spans = torch.cat([ends.amin(dim=1), ends.amax(dim=1)], dim=1).clamp(min=0)
    spans = torch.minimum(spans, torch.tensor([width, height] * 2))
    torch.testing.assert_close(spans, sample.target.boxes, atol=1e-3, rtol=0)


@pytest.mark.parametrize("config", [config for config in CONFIGS if not isinstance(config, RandomCropConfig)])
@pytest.mark.parametrize("index", range(4))
def test_polygons_and_bitmaps_are_transformed_alike(config, index):
    """Law: polygons around bitmaps, rasterized after the transform, equal the transformed bitmaps."""
    generator = np.random.default_rng(0)
    masks = generator.integers(0, 2, (2, 12, 18), dtype=np.uint8).repeat(5, axis=1).repeat(5, axis=2)
    boxes = np.array([[0, 0, WIDTH, HEIGHT]] * 2, np.float32)
    bitmaps = replace(record(), objects=Objects(boxes, np.arange(2), CROWD, masks))
    polygons = polygon_record([PolygonMask.of_bitmap(mask) for mask in masks], boxes)
    expected, target = (build_transform(config)(source, 0, index).target for source in (bitmaps, polygons))
    assert torch.equal(target.boxes, expected.boxes)
    height, width = expected.masks.shape[1:]
    shifts = [torch.tensor([x, y, x + width, y + height]) for x in (-0.01, 0.01) for y in (-0.01, 0.01)]
    drawn = torch.stack(
        [
            rasterize_polygon_masks(target.polygon_masks, torch.arange(2), box.expand(2, 4), (height, width))
            for box in shifts
        ]
    )
    clear = (drawn == drawn[0]).all(dim=0)  # the center of a pixel may lie on an edge
    assert clear.float().mean() > 0.9 and drawn.float().mean() > 0.2
    assert torch.equal(drawn[0][clear], expected.masks[clear])


def test_polygons_of_dropped_objects_are_dropped():
    """By hand: the middle 40 x 40 shows the second and third object; without objects there are no polygons."""
    crop = build_transform(CenterCropConfig(resize=60, size=40))
    target = crop(polygon_record(rectangles(BOXES)), 0, 0).target
    regions = torch.tensor([[0.0, 0.0, 40.0, 40.0]]).expand(2, 4)
    drawn = rasterize_polygon_masks(target.polygon_masks, torch.arange(2), regions, (40, 40))
    assert torch.equal(drawn, torch.from_numpy(masks_of(BOXES)[1:, 10:50, 25:65]) > 0)
    assert len(crop(polygon_record([], BOXES[:0]), 0, 0).target.polygon_masks) == 0
