"""Rasterizing polygons on grids over regions: against pycocotools, against bitmaps, by hand."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from vertebra.data import CocoConfig, PolygonMask, build_dataset, pad_polygon_masks
from vertebra.data.polygons import clip_polygon_mask
from vertebra.ops import rasterize_polygon_masks
from vertebra.structures import Instances, PolygonMasks

from ..data.test_mask_faults import FAULTY, GOOD, with_masks
from ..helpers.tiny_coco_file import HEIGHT, WIDTH, open_tiny

COCO = Path(__file__).parents[3] / "shared" / "data" / "tiny_coco" / "annotations" / "instances_train2017.json"
# pycocotools 2.0.11 decodes in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SQUARE = np.array([[10, 10], [30, 10], [30, 30], [10, 30]], np.float32)


def polygons_of(*points) -> PolygonMasks:
    """Return one object; each of ``points`` is one of its polygons."""
    return pad_polygon_masks([PolygonMask.of_polygons([np.array(part, np.float32).reshape(-1, 2) for part in points])])


def rasterize(polygon_masks: PolygonMasks, boxes, size: tuple[int, int]) -> np.ndarray:
    """Draw the first object on a grid over each box."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return rasterize_polygon_masks(polygon_masks, torch.zeros(len(boxes), dtype=torch.int64), boxes, size).numpy()


def rectangle(left, top, right, bottom) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def star(generator: np.random.Generator, points: int = 23) -> np.ndarray:
    """Draw a closed polygon of slanted edges, about 100 pixels across."""
    angles = np.sort(generator.uniform(0, 2 * np.pi, points))
    radius = generator.uniform(10, 50, points)
    return np.stack([60 + radius * np.cos(angles), 55 + radius * np.sin(angles)], axis=1).astype(np.float32)


def rasterize_as_detectron2(parts: list, box: np.ndarray, size: int) -> np.ndarray:
    """Move and scale the polygons into the box, and let pycocotools draw them on a grid."""
    moved = [((np.float64(part).reshape(-1, 2) - box[:2]) * size / (box[2:] - box[:2])).flatten() for part in parts]
    return rle.decode(rle.merge(rle.frPyObjects([part.tolist() for part in moved], size, size))).astype(bool)


def distances_to_edges(parts: list, box: np.ndarray, size: int) -> np.ndarray:
    """Return the distance from the center of each cell to the nearest edge, in cells."""
    centers = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1)[:, :, None]
    distances = []
    for part in parts:
        start = (np.float64(part).reshape(-1, 2) - box[:2]) * size / (box[2:] - box[:2])
        along = np.roll(start, -1, axis=0) - start
        position = ((centers - start) * along).sum(axis=-1) / (along**2).sum(axis=-1).clip(1e-12)
        distances.append(np.linalg.norm(centers - start - position.clip(0, 1)[..., None] * along, axis=-1).min(axis=-1))
    return np.min(distances, axis=0)


def jitter(generator: np.random.Generator, box, count: int) -> np.ndarray:
    left, top, right, bottom = box
    spread = np.array([right - left, bottom - top] * 2) * 0.2
    return (np.array(box) + generator.uniform(-1, 1, (count, 4)) * spread).astype(np.float32)


def test_rectangle_on_regions_around_and_inside_it():
    """By hand: half of the region; a corner; a region far larger than the rectangle; one far smaller; one beside it."""
    polygon_mask = polygons_of(rectangle(8, 8, 24, 24))
    regions = [[0, 8, 16, 24], [16, 16, 32, 32], [-24, -24, 40, 40], [10, 10, 10.5, 10.5], [30, 8, 31, 24]]
    halves, corner, larger, smaller, beside = rasterize(polygon_mask, regions, (4, 4))
    assert halves.tolist() == [[False, False, True, True]] * 4
    assert corner.tolist() == [[True, True, False, False]] * 2 + [[False] * 4] * 2
    assert larger.tolist() == [[False] * 4, [False] * 4, [False, False, True, False], [False] * 4]
    assert smaller.all() and not beside.any()


def test_grid_can_have_any_height_and_width():
    """By hand: a rectangle of 2 x 1 in a region of 4 x 3, with a cell per pixel."""
    grid = rasterize(polygons_of(rectangle(1, 1, 3, 2)), [[0, 0, 4, 3]], (3, 4))[0]
    assert grid.astype(int).tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_polygons_are_united_and_a_self_crossing_polygon_has_a_hole():
    """docs/faults.md row 48. By hand, COCO's rule: the polygons of an object are united, and each is filled by the
    even-odd rule."""
    box = [[0.0, 0.0, 8.0, 8.0]]
    first, second = rectangle(0, 0, 6, 6), rectangle(2, 2, 8, 8)
    both = rasterize(polygons_of(first, second), box, (8, 8))
    assert np.array_equal(
        both, rasterize(polygons_of(first), box, (8, 8)) | rasterize(polygons_of(second), box, (8, 8))
    )
    assert both[0, 4, 4]
    twice = polygons_of([*rectangle(0, 0, 8, 8), 0, 0, *rectangle(2, 2, 6, 6), 2, 2])
    assert not rasterize(twice, box, (8, 8))[0, 4, 4]
    assert rasterize(twice, box, (8, 8))[0, 1, 4]


def fractions_of_different_cells(polygons: list, seed: int = 0) -> list[float]:
    """Return the fraction of cells that differ from pycocotools, region by region: it rounds to fifths of a cell.

    No cell differs whose center is half a cell or more from the edges.
    """
    generator, fractions = np.random.default_rng(seed), []
    for parts in polygons:
        corners = np.concatenate([np.reshape(part, (-1, 2)) for part in parts])
        boxes = jitter(generator, [*corners.min(axis=0), *corners.max(axis=0)], 3)
        for box, grid in zip(boxes, rasterize(polygons_of(*parts), boxes, (28, 28)), strict=True):
            differ = grid != rasterize_as_detectron2(parts, np.float64(box), 28)
            assert not differ.any() or distances_to_edges(parts, np.float64(box), 28)[differ].max() < 0.5
            fractions.append(differ.mean().item())
    return fractions


@pytest.mark.parametrize("parts", [1, 3])
def test_cells_equal_pycocotools_except_at_edges(parts):
    """Oracle: pycocotools on the scaled polygons, as in detectron2's training."""
    generator = np.random.default_rng(1)
    stars = [
        [star(generator) + generator.uniform(0, 60, 2).astype(np.float32) for _ in range(parts)] for _ in range(12)
    ]
    assert 0 < np.mean(fractions_of_different_cells(stars)) < 0.02


@pytest.mark.skipif(not COCO.exists(), reason="shared/data is missing")
def test_cells_equal_pycocotools_on_polygons_of_coco():
    """Oracle: pycocotools, on polygons of COCO's annotations."""
    truth = json.loads(COCO.read_text())
    polygons = [annotation["segmentation"] for annotation in truth["annotations"] if not annotation["iscrowd"]]
    fractions = fractions_of_different_cells(polygons[::3])
    assert len(fractions) > 400 and 0 < np.mean(fractions) < 0.006


def test_axis_aligned_polygons_equal_pycocotools_exactly(shapes):
    """Oracle: pycocotools, on the polygons of the generated shapes, which follow the borders of pixels."""
    truth = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    polygons = [annotation["segmentation"] for annotation in truth["annotations"] if not annotation["iscrowd"]]
    fractions = fractions_of_different_cells(polygons)
    assert len(fractions) > 30 and max(fractions) == 0


def test_touching_objects_share_no_cell():
    """Law: the pieces of a square that is cut by straight lines through centers of cells cover every cell once."""
    corners = [(0, 0), (8, 0), (8, 8), (0, 8), (0, 0)]
    pieces = [polygons_of([*first, *second, 4.5, 3.5]) for first, second in itertools.pairwise(corners)]
    grids = [rasterize(piece, [[0, 0, 8, 8]], (8, 8)).astype(int) for piece in pieces]
    assert (np.sum(grids, axis=0) == 1).all()


def test_polygons_of_a_bitmap_rasterize_to_the_bitmap():
    """Law: noise, with holes and with pixels that touch only at corners, to the pixel."""
    generator = np.random.default_rng(0)
    masks = [(generator.random((13, 17)) < density).astype(np.uint8) for density in (0.0, 0.2, 0.5, 0.9, 1.0)]
    polygon_masks = pad_polygon_masks([PolygonMask.of_bitmap(mask) for mask in masks])
    image = torch.tensor([[0.0, 0.0, 17.0, 13.0]]).expand(5, 4)
    drawn = rasterize_polygon_masks(polygon_masks, torch.arange(5), image, (13, 17))
    assert np.array_equal(drawn.numpy(), np.stack(masks) > 0)
    # Transposed, so that horizontal edges are tested too.
    transposed = [replace(mask, edges=mask.edges[:, [1, 0, 3, 2]]) for mask in map(PolygonMask.of_bitmap, masks)]
    grids = rasterize_polygon_masks(pad_polygon_masks(transposed), torch.arange(5), image[:, [1, 0, 3, 2]], (17, 13))
    assert torch.equal(grids.transpose(1, 2), drawn)


def test_memory_budget_does_not_change_the_result(monkeypatch):
    """Law: one region at a time or all at once; also with a region without an area."""
    generator = np.random.default_rng(0)
    polygon_masks = pad_polygon_masks([PolygonMask.of_polygons([star(generator), star(generator)]) for _ in range(3)])
    corners = polygon_masks.edges[0, :10, [0, 1, 0, 1]]
    boxes = torch.cat([torch.from_numpy(jitter(generator, (10, 10, 110, 110), 9)), corners])
    indices = torch.tensor([0, 1, 2] * 3 + [0] * 10)
    together = rasterize_polygon_masks(polygon_masks, indices, boxes, (14, 14))
    monkeypatch.setattr("vertebra.ops.polygons.BUDGET", 1)
    assert torch.equal(rasterize_polygon_masks(polygon_masks, indices, boxes, (14, 14)), together)
    assert together[:9].flatten(1).any(dim=1).all()


def test_no_value_is_read_back_from_the_device():
    """Law: it runs on ``meta`` tensors, which have no values."""
    polygon_masks = polygons_of(rectangle(8, 8, 24, 24)).map(lambda tensor: tensor.to("meta"))
    indices, boxes = torch.zeros(5, dtype=torch.int64, device="meta"), torch.zeros(5, 4, device="meta")
    assert rasterize_polygon_masks(polygon_masks, indices, boxes, (28, 28)).shape == (5, 28, 28)


def test_polygon_masks_move_with_their_instances():
    """By hand: they move to another device with the boxes, and there must be one per box."""
    polygon_masks = polygons_of(rectangle(8, 8, 24, 24), rectangle(0, 0, 1, 1))
    boxes, labels = torch.tensor([[0.0, 0.0, 24.0, 24.0]]), torch.zeros(1, dtype=torch.int64)
    target = Instances(boxes, labels, polygon_masks=polygon_masks).to("meta")
    assert target.polygon_masks.edges.device.type == target.polygon_masks.parts.device.type == "meta"
    assert target.polygon_masks.most_parts == 2
    with pytest.raises(ValueError, match="one polygon mask per box is needed, got 2 boxes and 1 polygon masks"):
        Instances(boxes.expand(2, 4), labels.expand(2), polygon_masks=polygon_masks)


@pytest.mark.parametrize("name", GOOD)
def test_polygon_masks_of_a_file_rasterize_to_its_bitmaps(name, tmp_path):
    """Oracle: pycocotools' bitmaps of the same file: RLE to the pixel, polygons except for pixels at edges.

    Both formats are in one image here.
    """
    data = with_masks(GOOD[name])
    objects = open_tiny(tmp_path, data, masks=True, mask_format="polygons").read(0).objects
    bitmaps = open_tiny(tmp_path, data, masks=True).read(0).objects.masks > 0
    assert objects.masks is None
    assert len(objects.polygon_masks) == len(objects.boxes) == 2
    image = torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]]).expand(2, 4)
    drawn = rasterize_polygon_masks(
        pad_polygon_masks(objects.polygon_masks), torch.arange(2), image, (HEIGHT, WIDTH)
    ).numpy()
    if "run lengths" in name:
        assert np.array_equal(drawn[0], bitmaps[0])
    else:
        assert (drawn != bitmaps).mean() < 0.01


@pytest.mark.parametrize("name", FAULTY)
def test_unusable_masks_are_skipped_in_either_format(name, tmp_path):
    """By hand: the faults of masks that are tested with bitmaps are found with polygons too."""
    dataset = open_tiny(tmp_path, with_masks(FAULTY[name][0]), policy="skip", masks=True, mask_format="polygons")
    assert [case.ids for case in dataset.report.skipped["annotations"].values()] == [[1]]
    assert len(dataset.read(0).objects.polygon_masks) == 1


def test_crowds_and_images_without_objects_have_no_polygon_masks(tmp_path):
    """By hand: crowds are regions to ignore; an image without objects has an empty tuple, a data set of boxes None."""
    data = with_masks({"size": [64, 96], "counts": [6144]})
    dataset = open_tiny(tmp_path, data, masks=True, mask_format="polygons")
    assert [len(dataset.read(index).objects.polygon_masks) for index in range(4)] == [2, 1, 0, 2]
    assert len(dataset.read(1).objects.ignored) == 1
    assert dataset.report.noted["empty-mask"].ids == ["row 0"]
    assert open_tiny(tmp_path, data, mask_format="polygons").read(0).objects.polygon_masks is None


def test_polygon_masks_of_generated_shapes_rasterize_to_their_bitmaps(shapes):
    """Law: over the whole image they are the bitmaps that the shapes were made from."""
    files = CocoConfig(images=shapes / "train", annotations=shapes / "annotations" / "instances_train.json", masks=True)
    bitmaps, polygons = (
        build_dataset(files.replace(mask_format=mask_format)) for mask_format in ("bitmaps", "polygons")
    )
    for index in range(len(bitmaps)):
        expected, masks = bitmaps.read(index).objects.masks, polygons.read(index).objects.polygon_masks
        image = torch.tensor([[0.0, 0.0, expected.shape[2], expected.shape[1]]]).expand(len(masks), 4)
        drawn = rasterize_polygon_masks(pad_polygon_masks(masks), torch.arange(len(masks)), image, expected.shape[1:])
        assert np.array_equal(drawn.numpy(), expected > 0)


@pytest.mark.parametrize("seed", range(8))
def test_clipped_polygon_mask_equals_the_mask_in_the_window(seed):
    """Law: over a region three times as large, it rasterizes to the unclipped mask, but with nothing outside the
    window.

    The masks have three polygons that cross themselves, are inside the window, around it or beside it.
    """
    generator = np.random.default_rng(seed)
    unclipped = PolygonMask.of_polygons([(generator.uniform(-70, 110, (7, 2))).astype(np.float32) for _ in range(3)])
    clipped, region = clip_polygon_mask(unclipped, (30, 40)), [[-40.0, -30.0, 80.0, 60.0]]
    drawn, expected = (rasterize(pad_polygon_masks([mask]), region, (90, 120))[0] for mask in (clipped, unclipped))
    window = np.zeros_like(expected)
    window[30:60, 40:80] = expected[30:60, 40:80]
    assert np.array_equal(drawn, window) and 0 < window.sum() < expected.sum()


@pytest.mark.parametrize(("polygon", "fraction"), [(SQUARE, 0.25), (SQUARE + 100, 0), (SQUARE * 9 - 100, 1)])
def test_clipped_square_covers_its_fraction_of_the_window(polygon, fraction):
    """By hand: a quarter of the window, none of it, or all of it."""
    clipped = clip_polygon_mask(PolygonMask.of_polygons([polygon]), (20, 20))
    assert rasterize(pad_polygon_masks([clipped]), [[0, 0, 20, 20]], (20, 20)).mean() == fraction
