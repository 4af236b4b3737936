"""Outlines and the grids that are cut out of them: against pycocotools, against bitmaps, by hand."""

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
    """One object; each of ``points`` is a part."""
    return pad_polygon_masks([PolygonMask.of_polygons([np.array(part, np.float32).reshape(-1, 2) for part in points])])


def cut(polygon_masks: PolygonMasks, boxes, size: tuple[int, int]) -> np.ndarray:
    """Several regions of the first object."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return rasterize_polygon_masks(polygon_masks, torch.zeros(len(boxes), dtype=torch.int64), boxes, size).numpy()


def rectangle(left, top, right, bottom) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def star(generator: np.random.Generator, points: int = 23) -> np.ndarray:
    """A closed outline of slanted edges, about 100 pixels across."""
    angles = np.sort(generator.uniform(0, 2 * np.pi, points))
    radius = generator.uniform(10, 50, points)
    return np.stack([60 + radius * np.cos(angles), 55 + radius * np.sin(angles)], axis=1).astype(np.float32)


def theirs(parts: list, box: np.ndarray, size: int) -> np.ndarray:
    """detectron2's way: polygons moved and scaled into the box, drawn by pycocotools on a grid."""
    moved = [((np.float64(part).reshape(-1, 2) - box[:2]) * size / (box[2:] - box[:2])).flatten() for part in parts]
    return rle.decode(rle.merge(rle.frPyObjects([part.tolist() for part in moved], size, size))).astype(bool)


def cells_to_outline(parts: list, box: np.ndarray, size: int) -> np.ndarray:
    """How far the middle of each cell is from the nearest edge, in cells."""
    middles = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1)[:, :, None]
    distances = []
    for part in parts:
        start = (np.float64(part).reshape(-1, 2) - box[:2]) * size / (box[2:] - box[:2])
        along = np.roll(start, -1, axis=0) - start
        share = ((middles - start) * along).sum(axis=-1) / (along**2).sum(axis=-1).clip(1e-12)
        distances.append(np.linalg.norm(middles - start - share.clip(0, 1)[..., None] * along, axis=-1).min(axis=-1))
    return np.min(distances, axis=0)


def jittered(generator: np.random.Generator, box, count: int) -> np.ndarray:
    left, top, right, bottom = box
    spread = np.array([right - left, bottom - top] * 2) * 0.2
    return (np.array(box) + generator.uniform(-1, 1, (count, 4)) * spread).astype(np.float32)


def test_a_rectangle_by_hand():
    """The region's left half and as much beside it; the middle alone, with a corner; far larger; far smaller."""
    polygon_mask = polygons_of(rectangle(8, 8, 24, 24))
    regions = [[0, 8, 16, 24], [16, 16, 32, 32], [-24, -24, 40, 40], [10, 10, 10.5, 10.5], [30, 8, 31, 24]]
    halves, corner, larger, smaller, beside = cut(polygon_mask, regions, (4, 4))
    assert halves.tolist() == [[False, False, True, True]] * 4
    assert corner.tolist() == [[True, True, False, False]] * 2 + [[False] * 4] * 2
    assert larger.tolist() == [[False] * 4, [False] * 4, [False, False, True, False], [False] * 4]
    assert smaller.all() and not beside.any()


def test_a_grid_may_have_any_height_and_width():
    """By hand: a rectangle of 2 x 1 in a region of 4 x 3, at a cell for each pixel."""
    grid = cut(polygons_of(rectangle(1, 1, 3, 2)), [[0, 0, 4, 3]], (3, 4))[0]
    assert grid.astype(int).tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_parts_are_united_and_crossings_are_even_odd():
    """COCO's rule, by hand: where two parts overlap is inside; where one part winds twice around is not."""
    box = [[0.0, 0.0, 8.0, 8.0]]
    first, second = rectangle(0, 0, 6, 6), rectangle(2, 2, 8, 8)
    both = cut(polygons_of(first, second), box, (8, 8))
    assert np.array_equal(both, cut(polygons_of(first), box, (8, 8)) | cut(polygons_of(second), box, (8, 8)))
    assert both[0, 4, 4]
    twice = polygons_of([*rectangle(0, 0, 8, 8), 0, 0, *rectangle(2, 2, 6, 6), 2, 2])
    assert not cut(twice, box, (8, 8))[0, 4, 4]
    assert cut(twice, box, (8, 8))[0, 1, 4]


def shares_unlike_pycocotools(polygons: list, seed: int = 0) -> list[float]:
    """The law: no cell differs whose middle is half a cell or more from the outline. Which share of cells does differ,
    region by region: pycocotools rounds to fifths of a cell."""
    generator, shares = np.random.default_rng(seed), []
    for own in polygons:
        corners = np.concatenate([np.reshape(part, (-1, 2)) for part in own])
        boxes = jittered(generator, [*corners.min(axis=0), *corners.max(axis=0)], 3)
        for box, grid in zip(boxes, cut(polygons_of(*own), boxes, (28, 28)), strict=True):
            differ = grid != theirs(own, np.float64(box), 28)
            assert not differ.any() or cells_to_outline(own, np.float64(box), 28)[differ].max() < 0.5
            shares.append(differ.mean().item())
    return shares


@pytest.mark.parametrize("parts", [1, 3])
def test_cells_are_pycocotools_but_along_the_outline(parts):
    """pycocotools on the scaled polygons, as detectron2 trains."""
    generator = np.random.default_rng(1)
    stars = [
        [star(generator) + generator.uniform(0, 60, 2).astype(np.float32) for _ in range(parts)] for _ in range(12)
    ]
    assert 0 < np.mean(shares_unlike_pycocotools(stars)) < 0.02


@pytest.mark.skipif(not COCO.exists(), reason="shared/data is not there")
def test_cells_are_pycocotools_on_cocos_own_polygons():
    """The same for polygons that people drew."""
    truth = json.loads(COCO.read_text())
    polygons = [each["segmentation"] for each in truth["annotations"] if not each["iscrowd"]]
    shares = shares_unlike_pycocotools(polygons[::3])
    assert len(shares) > 400 and 0 < np.mean(shares) < 0.006


def test_upright_outlines_are_pycocotools_exactly(shapes):
    """The same for the polygons of the generated shapes, which run along pixels: no cell differs."""
    truth = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    shares = shares_unlike_pycocotools([each["segmentation"] for each in truth["annotations"] if not each["iscrowd"]])
    assert len(shares) > 30 and max(shares) == 0


def test_objects_that_touch_share_no_cell():
    """A law: the pieces that straight lines through middles of cells cut a square into cover every cell once."""
    corners = [(0, 0), (8, 0), (8, 8), (0, 8), (0, 0)]
    pieces = [polygons_of([*first, *second, 4.5, 3.5]) for first, second in itertools.pairwise(corners)]
    grids = [cut(piece, [[0, 0, 8, 8]], (8, 8)).astype(int) for piece in pieces]
    assert (np.sum(grids, axis=0) == 1).all()


def test_the_outline_of_a_bitmap_draws_the_bitmap():
    """A law: noise, with holes and pixels that touch at corners only, comes back to the pixel."""
    generator = np.random.default_rng(0)
    masks = [(generator.random((13, 17)) < share).astype(np.uint8) for share in (0.0, 0.2, 0.5, 0.9, 1.0)]
    polygon_masks = pad_polygon_masks([PolygonMask.of_bitmap(mask) for mask in masks])
    whole = torch.tensor([[0.0, 0.0, 17.0, 13.0]]).expand(5, 4)
    drawn = rasterize_polygon_masks(polygon_masks, torch.arange(5), whole, (13, 17))
    assert np.array_equal(drawn.numpy(), np.stack(masks) > 0)
    # Across the diagonal: now the level edges count, and not the upright ones.
    turned = [replace(own, edges=own.edges[:, [1, 0, 3, 2]]) for own in map(PolygonMask.of_bitmap, masks)]
    across = rasterize_polygon_masks(pad_polygon_masks(turned), torch.arange(5), whole[:, [1, 0, 3, 2]], (17, 13))
    assert torch.equal(across.transpose(1, 2), drawn)


def test_a_few_at_a_time_are_the_same(monkeypatch):
    """A law: what memory is allowed does not change what is cut; a region without area is cut without harm."""
    generator = np.random.default_rng(0)
    polygon_masks = pad_polygon_masks([PolygonMask.of_polygons([star(generator), star(generator)]) for _ in range(3)])
    corners = polygon_masks.edges[0, :10, [0, 1, 0, 1]]
    boxes = torch.cat([torch.from_numpy(jittered(generator, (10, 10, 110, 110), 9)), corners])
    objects = torch.tensor([0, 1, 2] * 3 + [0] * 10)
    together = rasterize_polygon_masks(polygon_masks, objects, boxes, (14, 14))
    monkeypatch.setattr("vertebra.ops.polygons.BUDGET", 1)
    assert torch.equal(rasterize_polygon_masks(polygon_masks, objects, boxes, (14, 14)), together)
    assert together[:9].flatten(1).any(dim=1).all()


def test_nothing_is_read_back_to_the_host():
    """``meta`` tensors hold no value that could be read."""
    polygon_masks = polygons_of(rectangle(8, 8, 24, 24)).map(lambda tensor: tensor.to("meta"))
    objects, boxes = torch.zeros(5, dtype=torch.int64, device="meta"), torch.zeros(5, 4, device="meta")
    assert rasterize_polygon_masks(polygon_masks, objects, boxes, (28, 28)).shape == (5, 28, 28)


def test_outlines_travel_with_their_instances():
    """A law: to another device they go with the boxes; as many as boxes they must be."""
    polygon_masks = polygons_of(rectangle(8, 8, 24, 24), rectangle(0, 0, 1, 1))
    boxes, labels = torch.tensor([[0.0, 0.0, 24.0, 24.0]]), torch.zeros(1, dtype=torch.int64)
    target = Instances(boxes, labels, polygon_masks=polygon_masks).to("meta")
    assert target.polygon_masks.edges.device.type == target.polygon_masks.parts.device.type == "meta"
    assert target.polygon_masks.most_parts == 2
    with pytest.raises(ValueError, match="one polygon mask per box is needed, got 2 boxes and 1 polygon masks"):
        Instances(boxes.expand(2, 4), labels.expand(2), polygon_masks=polygon_masks)


@pytest.mark.parametrize("name", GOOD)
def test_outlines_of_a_file_are_its_masks(name, tmp_path):
    """pycocotools' bitmaps of the same file: run lengths to the pixel, polygons but for pixels along the outline. Both
    kinds are in one image here."""
    data = with_masks(GOOD[name])
    objects = open_tiny(tmp_path, data, masks=True, mask_format="polygons").read(0).objects
    bitmaps = open_tiny(tmp_path, data, masks=True).read(0).objects.masks > 0
    assert objects.masks is None
    assert len(objects.polygon_masks) == len(objects.boxes) == 2
    whole = torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]]).expand(2, 4)
    drawn = rasterize_polygon_masks(
        pad_polygon_masks(objects.polygon_masks), torch.arange(2), whole, (HEIGHT, WIDTH)
    ).numpy()
    if "run lengths" in name:
        assert np.array_equal(drawn[0], bitmaps[0])
    else:
        assert (drawn != bitmaps).mean() < 0.01


@pytest.mark.parametrize("name", FAULTY)
def test_unusable_masks_are_refused_in_either_form(name, tmp_path):
    """FAULTS 43-55 again."""
    dataset = open_tiny(tmp_path, with_masks(FAULTY[name][0]), policy="skip", masks=True, mask_format="polygons")
    assert [case.ids for case in dataset.report.skipped["annotations"].values()] == [[1]]
    assert len(dataset.read(0).objects.polygon_masks) == 1


def test_crowds_and_images_without_objects_have_no_outlines(tmp_path):
    """Crowds are regions to ignore; nothing is an empty tuple, not None. Boxes alone have none."""
    data = with_masks({"size": [64, 96], "counts": [6144]})
    dataset = open_tiny(tmp_path, data, masks=True, mask_format="polygons")
    assert [len(dataset.read(index).objects.polygon_masks) for index in range(4)] == [2, 1, 0, 2]
    assert len(dataset.read(1).objects.ignored) == 1
    assert dataset.report.noted["empty-mask"].ids == ["row 0"]
    assert open_tiny(tmp_path, data, mask_format="polygons").read(0).objects.polygon_masks is None


def test_generated_shapes_give_outlines(shapes):
    """A law: drawn over the whole image they are the bitmaps that the shapes were made from."""
    files = CocoConfig(images=shapes / "train", annotations=shapes / "annotations" / "instances_train.json", masks=True)
    pixels, polygon_masks = (build_dataset(files.replace(mask_format=kind)) for kind in ("bitmaps", "polygons"))
    for index in range(len(pixels)):
        expected, found = pixels.read(index).objects.masks, polygon_masks.read(index).objects.polygon_masks
        whole = torch.tensor([[0.0, 0.0, expected.shape[2], expected.shape[1]]]).expand(len(found), 4)
        drawn = rasterize_polygon_masks(pad_polygon_masks(found), torch.arange(len(found)), whole, expected.shape[1:])
        assert np.array_equal(drawn.numpy(), expected > 0)


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_outline_is_what_the_window_shows_and_nothing_else(seed):
    """A law, on shapes of three parts that cross themselves, are inside the window, around it or beside it: drawn over
    a region three times as large, it is the whole outline's drawing, empty outside the window."""
    generator = np.random.default_rng(seed)
    whole = PolygonMask.of_polygons([(generator.uniform(-70, 110, (7, 2))).astype(np.float32) for _ in range(3)])
    part, region = clip_polygon_mask(whole, (30, 40)), [[-40.0, -30.0, 80.0, 60.0]]
    drawn, expected = (cut(pad_polygon_masks([each]), region, (90, 120))[0] for each in (part, whole))
    window = np.zeros_like(expected)
    window[30:60, 40:80] = expected[30:60, 40:80]
    assert np.array_equal(drawn, window) and 0 < window.sum() < expected.sum()


@pytest.mark.parametrize(("polygon", "left"), [(SQUARE, 0.25), (SQUARE + 100, 0), (SQUARE * 9 - 100, 1)])
def test_a_cut_square_by_hand(polygon, left):
    """A quarter of it, nothing or the whole window; the share of the window's pixels says which."""
    drawn = cut(
        pad_polygon_masks([clip_polygon_mask(PolygonMask.of_polygons([polygon]), (20, 20))]), [[0, 0, 20, 20]], (20, 20)
    )
    assert drawn.mean() == left
