"""COCO's mask scores against a slow loop over bitmaps, through both engines."""

import json

import numpy as np
import pytest
from pycocotools import mask as rle

from vertebra.data import CocoConfig, build_dataset
from vertebra.evaluation import evaluate_coco
from vertebra.evaluation.coco_inputs import build_coco_inputs

from ..helpers.slow_coco_ap import slow_summary

HEIGHT, WIDTH = 90, 110


def compressed_rle(bitmap: np.ndarray) -> dict:
    """Return a bitmap as compressed RLE."""
    encoded = rle.encode(np.asfortranarray(bitmap, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def uncompressed_rle(bitmap: np.ndarray) -> dict:
    """Return a bitmap as uncompressed RLE: the distances between changes of the value."""
    column = np.concatenate([[0], bitmap.ravel(order="F"), [2]])
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(np.flatnonzero(np.diff(column)), prepend=0).tolist()}


def draw(rng: np.random.Generator) -> tuple[object, np.ndarray]:
    """Return a segmentation and its bitmap: one or two polygons, or RLE with many holes."""
    x, y, side = rng.integers(0, 65), rng.integers(0, 45), rng.choice([14, 28, 44])
    polygon_mask = [x, y, x + side, y, x + side, y + side * 0.8, x, y + side]
    polygons = [list(map(float, polygon_mask)), (rng.random(6) * 30 + 40).tolist()][: rng.integers(1, 3)]
    bitmap = rle.decode(rle.merge(rle.frPyObjects(polygons, HEIGHT, WIDTH))).astype(bool)
    if rng.random() < 0.5:
        return polygons, bitmap
    bitmap &= rng.random(bitmap.shape) > 0.1
    return (compressed_rle if rng.random() < 0.5 else uncompressed_rle)(bitmap), bitmap


def problem(seed: int) -> tuple[list[dict], list[dict]]:
    """Return ground truth, a fifth of it crowds, and slightly moved results with equal scores, each with its
    ``mask`` as a bitmap."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for number in range(1, 41):
        segmentation, bitmap = draw(rng)
        place = {"image_id": int(rng.integers(4)), "category_id": int(rng.choice([1, 7]))}
        area, crowd = int(bitmap.sum()), int(rng.random() < 0.2)
        truths.append(place | {"id": number, "segmentation": segmentation, "area": area, "iscrowd": crowd})
        truths[-1]["mask"] = bitmap
        for _ in range(rng.integers(0, 3)):
            moved = np.roll(bitmap, rng.integers(-3, 4, 2), axis=(0, 1))
            score = int(rng.integers(1, 8)) / 8
            found.append(place | {"segmentation": compressed_rle(moved), "score": score, "mask": moved})
    return truths, found


def without_bitmaps(entries: list[dict]) -> list[dict]:
    return [{key: value for key, value in entry.items() if key != "mask"} for entry in entries]


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("kind", ["polygons", "packed", "listed"])
def test_missing_area_is_that_of_the_mask(kind, engine):
    """By hand: two bars of 10 x 90 pixels, 90 apart: the mask has 1800 pixels, which is medium, and its box 9900,
    which is large; pixels in two polygons count once. No box is needed."""
    bitmap = np.zeros((HEIGHT, WIDTH), bool)
    bitmap[:, :10] = bitmap[:, 100:] = True
    parts = [[x, 0, x + width, 0, x + width, 90, x, 90] for x, width in ((0, 10), (100, 10), (102, 5))]
    shapes = {"polygons": parts, "packed": compressed_rle(bitmap), "listed": uncompressed_rle(bitmap)}
    place = {"image_id": 1, "category_id": 1}
    truth = {
        "images": [{"id": 1, "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "bars"}],
        "annotations": [place | {"id": 1, "segmentation": shapes[kind]}],
    }
    found = [place | {"score": 0.5, "segmentation": compressed_rle(bitmap)}]
    summary = evaluate_coco(truth, found, engine, "segm").summary
    assert (summary["APs"], summary["APm"], summary["APl"]) == (None, pytest.approx(1.0), None)


def test_data_set_without_areas_has_areas_of_masks(shapes, tmp_path):
    """Law: the areas of the generated shapes are those of their masks, and a file without areas gives the same
    scores."""
    truth = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    expected = [entry.pop("area") for entry in truth["annotations"]]
    (tmp_path / "annotations.json").write_text(json.dumps(truth))
    data = build_dataset(CocoConfig(images=shapes / "val", annotations=tmp_path / "annotations.json", masks=True))
    posed = build_coco_inputs(data.ground_truth(), [], "segm").ground_truth["annotations"]
    assert [entry["area"] for entry in posed] == pytest.approx(expected, rel=0.1)


# pycocotools 2.0.11 decodes in a way that numpy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("seed", range(3))
def test_engines_equal_a_slow_loop_over_bitmaps(seed, engine):
    """docs/faults.md rows 40, 54. Oracle: a slow loop over bitmaps, on masks of several parts and with holes, as
    polygons and both kinds of RLE; crowds of every kind are ignored."""
    truths, found = problem(seed)
    truth = {
        "images": [{"id": number, "height": HEIGHT, "width": WIDTH} for number in range(4)],
        "categories": [{"id": number, "name": f"class {number}"} for number in (1, 7)],
        "annotations": truths,
    }
    expected = slow_summary(truth, found)
    assert 0 < expected["APs"] < 1 and 0 < expected["APm"] < 1
    scores = evaluate_coco(truth | {"annotations": without_bitmaps(truths)}, without_bitmaps(found), engine, "segm")
    assert scores.summary == {
        name: None if value is None else pytest.approx(value, abs=1e-10) for name, value in expected.items()
    }
