"""COCO files with masks alone, and keypoints that the head has no use for."""

import numpy as np

from vertebra.formats import encode_mask

from ..helpers.tiny_coco_file import HEIGHT, WIDTH, open_tiny, tiny_content


def test_boxes_are_derived_from_masks(tmp_path):
    """By hand: a polygon's extent, and the pixels of a bitmap; counted, in training and in the ground truth alike."""
    content = tiny_content()
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:9, 20:30] = True
    first, second = content["annotations"][:2]
    first |= {"bbox": None, "segmentation": [[10, 10, 30.5, 10, 30.5, 40]]}
    second |= {"segmentation": encode_mask(mask)}
    del second["bbox"]
    dataset = open_tiny(tmp_path, content)
    assert dataset.read(0).objects.boxes.tolist() == [[10, 10, 30.5, 40], [20, 5, 30, 9]]
    assert [entry["bbox"] for entry in dataset.ground_truth()["annotations"][:2]] == [
        [10, 10, 20.5, 30],
        [20, 5, 10, 4],
    ]
    assert dataset.report.as_json()["noted"]["box-of-mask"]["ids"] == [1, 2]


def test_unused_keypoints_are_counted(tmp_path):
    """By hand: the report names the classes whose keypoints are not read."""
    content = tiny_content()
    content["categories"][0] |= {"keypoints": ["nose"], "skeleton": []}
    assert open_tiny(tmp_path, content).report.as_json()["noted"]["unused-keypoints"]["ids"] == ["cat"]
