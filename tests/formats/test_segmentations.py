"""Checking the polygons of many objects at once: like each segmentation alone, and like COCO's rasterizer."""

import numpy as np
import pytest

from vertebra.formats.rle import encode_segmentations, mask_areas
from vertebra.formats.segmentations import (
    FlatPolygons,
    is_near_image,
    is_well_formed,
    segmentation_problem,
    surely_covers_pixels,
)

SIZES = np.array([[64, 96], [1, 1], [7, 300]])


def random_objects(rng: np.random.Generator, count: int, spread: float) -> tuple[list, np.ndarray]:
    """Return objects of one to three polygons, near their images, and the (height, width) of the images.

    Points are often on a line, at the same place or on borders of pixels, so that many polygons cover no pixel.
    """
    sizes = SIZES[rng.integers(len(SIZES), size=count)]
    objects = []
    for height, width in sizes.tolist():
        polygons = []
        for _ in range(rng.integers(1, 4)):
            points = rng.uniform(-spread, 1 + spread, (rng.integers(3, 9), 2)) * (width, height)
            points[:, rng.integers(2)] *= rng.choice([1, 1, 0.02, 0])
            points += rng.choice([0, 10, 0.5])
            points = [points, points.round(), points.round(1)][rng.integers(3)]
            if rng.random() < 0.2:
                points = np.concatenate([points, points[::-1]])
            polygons.append(points.flatten().tolist())
        objects.append(polygons)
    return objects, sizes


@pytest.mark.parametrize("spread", [0.2, 1.2])
def test_far_points_are_found_as_in_single_checks(spread):
    """Oracle: the check of a single segmentation."""
    objects, sizes = random_objects(np.random.default_rng(0), 500, spread)
    expected = [
        segmentation_problem(polygons, (height, width)) is None
        for polygons, (height, width) in zip(objects, sizes.tolist(), strict=True)
    ]
    near = is_near_image(FlatPolygons.of(objects), sizes)
    assert near.tolist() == expected
    assert 0 < near.sum() < len(near) or spread < 1


def test_malformed_polygons_are_found_as_in_single_checks():
    """Oracle: the check of a single segmentation: no polygons, too few numbers, an odd number."""
    good = [0.0, 0.0, 9.0, 0.0, 9.0, 9.0]
    objects = [[good], [], [good, good[:4]], [good[:5]], [[]], [[*good, 1.0]], [good, good], [[*good, 1.0, 2.0]]]
    expected = [segmentation_problem(polygons, (64, 96)) is None for polygons in objects]
    assert is_well_formed(objects).tolist() == expected == [True, False, False, False, False, False, True, True]
    assert is_well_formed([]).tolist() == []


@pytest.mark.parametrize("seed", range(4))
def test_polygons_reported_to_cover_a_pixel_do(seed):
    """Oracle: hotcoco's rasterizer: every polygon that is reported to cover a pixel does, and few of the others do."""
    objects, sizes = random_objects(np.random.default_rng(seed), 1500, 0.3)
    areas = mask_areas(encode_segmentations(objects, [tuple(size) for size in sizes.tolist()]))
    sure = surely_covers_pixels(FlatPolygons.of(objects), sizes)
    assert (areas[sure] > 0).all()
    assert (areas == 0).sum() > 100
    assert sure[areas > 300].mean() > 0.8


def test_no_segmentations_give_no_faults():
    """By hand: an empty result."""
    nothing = FlatPolygons.of([])
    assert is_near_image(nothing, np.zeros((0, 2), np.int64)).tolist() == []
    assert surely_covers_pixels(nothing, np.zeros((0, 2), np.int64)).tolist() == []
