"""Detections as values of other libraries."""

import json
import sys

import numpy as np
import pytest
import torch
from hotcoco import mask as rle

from vertebra.evaluation import to_coco_results
from vertebra.inference import to_coco, to_dict, to_pandas, to_supervision
from vertebra.ops import paste_masks
from vertebra.structures import Classes, Detections, RoIMasks, Skeleton, UsageError

SKELETON = Skeleton(("nose", "tail"), ((0, 1),), offset=0.5)
CLASSES = Classes(("cat", "猫"), ids=(7, 90), skeleton=SKELETON)
BOXES = torch.tensor([[1.0, 2.0, 21.0, 12.0], [30.0, 5.0, 39.5, 29.0]])
FOUND = Detections(
    BOXES,
    torch.tensor([1, 0]),
    torch.tensor([0.75, 0.5]),
    RoIMasks(torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(0)), (30, 40)),
    torch.tensor([[[3.0, 4.0, 0.5], [5.0, 6.0, 0.25]]] * 2),
)


def test_dict_is_json_with_names_and_masks():
    """By hand, and hotcoco decodes the masks."""
    values = json.loads(json.dumps(to_dict(FOUND, CLASSES)))
    assert values["boxes"] == BOXES.tolist() and values["labels"] == [1, 0] and values["names"] == ["猫", "cat"]
    assert values["scores"] == [0.75, 0.5] and values["keypoints"] == FOUND.keypoints.tolist()
    bitmaps = np.stack([rle.decode(mask) for mask in values["masks"]])
    np.testing.assert_array_equal(bitmaps, paste_masks(FOUND.masks, BOXES).numpy())
    assert list(to_dict(Detections(BOXES, FOUND.labels, FOUND.scores), CLASSES)) == [
        "boxes",
        "labels",
        "names",
        "scores",
    ]


def test_coco_rows_are_those_of_results_files():
    """Law: the rows that an evaluation writes, which pycocotools reads."""
    rows = to_coco(FOUND, CLASSES, "a.jpg")
    assert rows == to_coco_results(FOUND, "a.jpg", CLASSES.ids, 0.5)
    assert [row["category_id"] for row in rows] == [90, 7] and rows[0]["bbox"] == [1, 2, 20, 10]
    assert rows[1]["keypoints"] == [2.5, 3.5, 0.5, 4.5, 5.5, 0.25]


def test_pandas_has_a_row_for_each_detection():
    """Oracle: pandas; also without detections."""
    pytest.importorskip("pandas")
    frame = to_pandas(FOUND, CLASSES)
    columns = ["x1", "y1", "x2", "y2", "label", "name", "score"]
    columns += ["nose_x", "nose_y", "nose_score", "tail_x", "tail_y", "tail_score"]
    assert list(frame.columns) == columns and len(to_pandas(FOUND[:0], CLASSES)) == 0
    assert (
        frame["name"].tolist() == ["猫", "cat"]
        and frame[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == BOXES.tolist()
    )
    assert frame.query("score > 0.6")["tail_score"].tolist() == [0.25]


def test_supervision_gets_boxes_masks_and_names():
    """Oracle: supervision, which checks the shapes; also without detections."""
    pytest.importorskip("supervision")
    found = to_supervision(FOUND, CLASSES)
    np.testing.assert_array_equal(found.xyxy, BOXES.numpy())
    np.testing.assert_array_equal(found.mask, paste_masks(FOUND.masks, BOXES).numpy())
    assert found["class_name"].tolist() == ["猫", "cat"] and found.class_id.tolist() == [1, 0]
    assert found.confidence.tolist() == [0.75, 0.5] and len(to_supervision(FOUND[:0], CLASSES)) == 0


@pytest.mark.parametrize(("convert", "package"), [(to_pandas, "pandas"), (to_supervision, "supervision")])
def test_missing_package_is_named(convert, package, monkeypatch):
    """docs/faults.md row 193. By hand: UsageError with the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs the package {package}.*: pip install {package}"):
        convert(FOUND, CLASSES)
