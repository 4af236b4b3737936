"""Ground truth and masks that cannot be scored: refused with the image and entry, and exit code 3."""

import math

import pytest

from vertebra.evaluation import evaluate_coco
from vertebra.structures import DataError

from ..formats.test_results import GOOD, GROUND_TRUTH, MASK, assert_bad_data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": None}, "no-shape: image_id=1: entry 1 has no segmentation"),
        (
            {"segmentation": MASK | {"size": [60, 40]}},
            r"no-shape: image_id=1: entry 1 .*\[60, 40\] in an image of size \[40, 60\]",
        ),
    ],
)
def test_a_mask_that_does_not_fit_its_image(change, message):
    """By hand: pycocotools compares masks of different sizes without a word."""
    entry = GROUND_TRUTH["annotations"][0] | {"segmentation": [[0, 0, 10, 0, 10, 10]]}
    result = {name: value for name, value in (GOOD | change).items() if value is not None}
    fine = GOOD | {"image_id": 2, "segmentation": MASK}
    with pytest.raises(DataError, match=message) as caught:
        evaluate_coco(GROUND_TRUTH | {"annotations": [entry]}, [fine, result], task="segm")
    assert_bad_data(caught)


@pytest.mark.parametrize(
    ("section", "change", "task", "message"),
    [
        ("annotations", {"image_id": 9}, "bbox", "unknown-image: image_id=9: ann_id=1"),
        ("annotations", {"category_id": 9}, "bbox", "unknown-category: .*ann_id=1: .*category 9"),
        ("annotations", {"bbox": [0, 0, -5, 5]}, "bbox", "bad-box: .*ann_id=1: .*negative"),
        ("annotations", {"bbox": [0, 0, math.nan, 5]}, "bbox", "bad-box: .*ann_id=1: .*not finite"),
        ("annotations", {"area": math.nan}, "bbox", "bad-area: .*ann_id=1: .*area nan"),
        ("annotations", {"area": "100"}, "bbox", "bad-area: .*ann_id=1: .*area '100'"),
        ("annotations", {"area": -1}, "bbox", "bad-area: .*ann_id=1: .*area -1, which is not a finite number of 0"),
        (
            "annotations",
            {"iscrowd": "yes"},
            "bbox",
            "bad-crowd: image_id=1: ann_id=1: .*iscrowd 'yes', .*neither 0 nor 1",
        ),
        ("annotations", {"iscrowd": "0"}, "segm", "bad-crowd: image_id=1: ann_id=1: .*iscrowd '0'"),
        ("annotations", {"iscrowd": None}, "bbox", "bad-crowd: .*iscrowd None"),
        ("annotations", {"iscrowd": 2}, "bbox", "bad-crowd: .*iscrowd 2"),
        ("annotations", {"id": None, "iscrowd": 1.5}, "bbox", "bad-crowd: .*ann_id=row 0: .*iscrowd 1.5"),
        ("annotations", {"id": [1], "image_id": 9}, "bbox", "unknown-image: .*ann_id=row 0: "),
        ("annotations", {}, "segm", "no-mask: .*ann_id=1: .*no segmentation"),
        ("annotations", {"image_id": [1]}, "bbox", "image-id-type: ann_id=1: .*type mismatch: list"),
        ("images", {"height": None}, "segm", r"bad-size: image_id=1: .*size \(None, 60\).*correct its height"),
        ("images", {"height": -40}, "segm", r"bad-size: image_id=1: .*size \(-40, 60\), which is not two positive"),
        ("images", {"height": 0}, "segm", r"bad-size: image_id=1: .*size \(0, 60\), which is not two positive"),
        ("images", {"height": 1e30}, "segm", r"bad-size: image_id=1: .*size \(1e\+30, 60\), which is not two positive"),
        ("images", {"width": True}, "segm", r"bad-size: image_id=1: .*size \(40, True\), which is not two positive"),
        (
            "images",
            {"height": 10**6, "width": 10**6},
            "segm",
            "bad-size: image_id=1: .*1000000x1000000, more than 500,0",
        ),
        ("images", {"height": 45_000, "width": 45_000}, "boundary", "bad-size: image_id=1: .*45000x45000, more than 5"),
        ("images", {"width": 5 * 10**9}, "segm", "bad-size: image_id=1: .*40x5000000000, more than 500,000,000 pixels"),
        ("images", {"id": 2}, "bbox", "duplicate-image-id: .*image id 2"),
    ],
)
def test_ground_truth_that_cannot_be_scored(section, change, task, message):
    """By hand: an annotation or image spoilt; a wrong score would blame the detector."""
    spoilt = GROUND_TRUTH | {section: [GROUND_TRUTH[section][0] | change, *GROUND_TRUTH[section][1:]]}
    with pytest.raises(DataError, match=message) as caught:
        evaluate_coco(spoilt, [], task=task)
    assert_bad_data(caught)
