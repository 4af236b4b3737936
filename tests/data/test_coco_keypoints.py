"""Reading keypoints from COCO files, valid and invalid ones."""

import json

import numpy as np
import pytest

from vertebra.data import CocoKeypointsConfig, build_dataset
from vertebra.structures import DataError, UsageError

from ..helpers.tiny_coco_file import open_tiny, tiny_content, totals_add_up, write_tiny

NAMES = ["nose", "left_ear", "right_ear"]
ALL = CocoKeypointsConfig()
FIRST = [20, 30, 2, 12, 14, 1, 0, 0, 0]


def content_with_keypoints() -> dict:
    """Return the tiny file with keypoints: two of the first cat, all of the first dog, and none of the others."""
    content = tiny_content()
    for category in content["categories"]:
        category |= {"keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}
    for annotation in content["annotations"]:
        annotation |= {"keypoints": [0] * 9, "num_keypoints": 0}
    content["annotations"][0] |= {"keypoints": FIRST, "num_keypoints": 2}
    content["annotations"][1] |= {"keypoints": [50.25, 10, 2, 45, 12, 2, 60, 12, 2], "num_keypoints": 3}
    return content


def test_keypoints_are_read_in_continuous_pixels(tmp_path):
    """By hand: 0.5 is added to labeled keypoints, since COCO counts pixels; 0 is added if the config says so."""
    dataset = open_tiny(tmp_path, content_with_keypoints(), keypoints=ALL)
    skeleton = dataset.skeleton
    assert skeleton.names == tuple(NAMES) and skeleton.edges == ((0, 1), (0, 2)) and skeleton.flip_order == (0, 2, 1)
    assert dataset.classes["detection"].skeleton == skeleton
    values = dataset.read(0).objects.keypoints.values
    assert values[0].tolist() == [[20.5, 30.5, 2], [12.5, 14.5, 1], [0, 0, 0]]
    assert values[1, 0].tolist() == [50.75, 10.5, 2]
    raw = open_tiny(tmp_path, content_with_keypoints(), keypoints=CocoKeypointsConfig(offset=0))
    assert raw.read(0).objects.keypoints.values[0].ravel().tolist() == FIRST


def test_crowds_have_no_keypoints(tmp_path):
    """By hand: the second image has one object and one crowd, which is an ignore region."""
    objects = open_tiny(tmp_path, content_with_keypoints(), keypoints=ALL).read(1).objects
    assert objects.keypoints.values.shape == (1, 3, 3) and len(objects.ignored) == 1


def test_images_with_few_labeled_keypoints_are_left_out(tmp_path):
    """By hand: only the first image has labeled keypoints, five of them; the others are skipped and counted."""
    for least, images in ((5, 1), (1, 1), (0, 4)):
        config = CocoKeypointsConfig(min_labeled=least)
        dataset = open_tiny(tmp_path, content_with_keypoints(), keypoints=config)
        assert len(dataset) == images and totals_add_up(dataset.report)
    with pytest.raises(DataError, match=r"empty-dataset.*few-keypoints"):
        open_tiny(tmp_path, content_with_keypoints(), keypoints=CocoKeypointsConfig(min_labeled=6))


def test_flip_pairs_of_the_config_replace_those_of_the_names(tmp_path):
    """By hand: the nose and an ear are swapped; an unknown name is refused with the nearest, a repeated one too."""
    pairs = CocoKeypointsConfig(flip_pairs=(("nose", "left_ear"),))
    assert open_tiny(tmp_path, content_with_keypoints(), keypoints=pairs).skeleton.flip_order == (1, 0, 2)
    for wrong, message in ((("nose", "left_eer"), "did you mean 'left_ear'"), (("nose", "nose"), "in two pairs")):
        with pytest.raises(UsageError, match=message):
            open_tiny(tmp_path, content_with_keypoints(), keypoints=CocoKeypointsConfig(flip_pairs=(wrong,)))


def test_category_without_keypoints_is_allowed_beside_others(tmp_path):
    """By hand: dogs have no keypoints; their objects have unlabeled ones, counted in the report."""
    content = content_with_keypoints()
    del content["categories"][1]["keypoints"], content["annotations"][1]["keypoints"]
    content["annotations"][2]["keypoints"] = []
    dataset = open_tiny(tmp_path, content, keypoints=ALL)
    assert not dataset.read(0).objects.keypoints.values[1].any()
    assert dataset.report.as_json()["noted"]["no-keypoints"]["count"] == 2


def test_other_classes_may_have_other_keypoints(tmp_path):
    """By hand: of classes with different keypoints some must be selected; annotations of others are not checked."""
    content = content_with_keypoints()
    content["categories"][1]["keypoints"] = ["tail"]
    content["annotations"][1]["keypoints"] = [1, 2, 2]
    with pytest.raises(DataError, match=r"different-keypoints.*'cat' and 'dog' have different keypoints"):
        open_tiny(tmp_path, content, keypoints=ALL)
    assert open_tiny(tmp_path, content, keypoints=ALL, class_names=("cat",)).skeleton.names == tuple(NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": None}, "no-keypoints.*no category has keypoints.*leave out the data set's keypoints"),
        ({"keypoints": ["nose", "nose", "ear"]}, "bad-category.*unique names"),
        ({"keypoints": ["nose", 3, "ear"]}, "bad-category.*unique names"),
        ({"skeleton": [[0, 1]]}, "bad-category.*numbers from 1 to 3"),
        ({"skeleton": [[1, 4]]}, "bad-category.*numbers from 1 to 3"),
        ({"skeleton": 7}, "bad-category.*numbers from 1 to 3"),
    ],
)
def test_unusable_declaration_of_keypoints_is_an_error(tmp_path, change, message):
    """docs/faults.md row 149. By hand: exit code 3 with the file, under either policy."""
    content = content_with_keypoints()
    for category in content["categories"]:
        category |= change
    for policy in ("error", "skip"):
        with pytest.raises(DataError, match=message):
            open_tiny(tmp_path, content, policy, keypoints=ALL)


FAULTS = {
    "short": ({"keypoints": [1, 2, 2]}, "malformed-keypoints", "3 numbers, which are not x, y and visibility of 3"),
    "text": ({"keypoints": "1 2 2"}, "malformed-keypoints", "'1 2 2'"),
    "word": ({"keypoints": [1, 2, "2", *[0] * 6]}, "bad-keypoint", "not three finite numbers"),
    "nan": ({"keypoints": [1, float("nan"), 2, *[0] * 6]}, "bad-keypoint", "keypoint 0 .*not three finite numbers"),
    "infinite": (
        {"keypoints": [*[0] * 6, float("inf"), 1, 2]},
        "bad-keypoint",
        "keypoint 2 .*not three finite numbers",
    ),
    "huge": ({"keypoints": [1e308, 1, 2, *[0] * 6]}, "bad-keypoint", r"keypoint 0 .*beyond 2\^63"),
    "visibility": ({"keypoints": [1, 2, 3, *[0] * 6]}, "bad-visibility", "visibility is not 0"),
    "half visible": ({"keypoints": [1, 2, 0.5, *[0] * 6]}, "bad-visibility", "visibility is not 0"),
    "count": ({"num_keypoints": 3}, "keypoint-count", "num_keypoints 3, but 2 keypoints"),
    "negative count": ({"num_keypoints": -1}, "keypoint-count", "num_keypoints -1, but 2 keypoints"),
    "text count": ({"num_keypoints": "2"}, "keypoint-count", "num_keypoints '2', but 2 keypoints"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_keypoints_are_an_error_or_skipped_and_counted(tmp_path, fault):
    """docs/faults.md row 150. By hand: exit code 3 with the annotation, or the annotation is left out and counted."""
    change, case, message = FAULTS[fault]
    content = content_with_keypoints()
    content["annotations"][0] |= change
    with pytest.raises(DataError, match=rf"{case}.*image_id=11: ann_id=1: .*{message}"):
        open_tiny(tmp_path, content, keypoints=ALL)
    dataset = open_tiny(tmp_path, content, "skip", keypoints=ALL)
    assert dataset.report.as_json()["skipped"]["annotations"][case]["count"] == 1 and totals_add_up(dataset.report)
    assert len(dataset.read(0).objects) == 1
    assert all(entry["id"] != 1 for entry in dataset.ground_truth()["annotations"])


def test_bad_keypoints_do_not_matter_if_they_are_not_read(tmp_path):
    """Law: a config without keypoints reads boxes as before."""
    content = content_with_keypoints()
    content["annotations"][0]["keypoints"] = "?"
    assert open_tiny(tmp_path, content).read(0).objects.keypoints is None


def test_num_keypoints_may_be_missing_or_a_whole_float(tmp_path):
    """By hand: a missing number and 2.0 are accepted; only a wrong number is refused."""
    content = content_with_keypoints()
    del content["annotations"][1]["num_keypoints"]
    content["annotations"][0]["num_keypoints"] = 2.0
    values = open_tiny(tmp_path, content, keypoints=ALL).read(0).objects.keypoints.values
    assert (values[..., 2] > 0).sum(axis=1).tolist() == [2, 3]


def test_cached_keypoints_equal_those_of_the_file(tmp_path, monkeypatch):
    """Law: a data set from the cache has the keypoints and the skeleton of the file; another config has its own."""
    monkeypatch.setattr("vertebra.data.coco_format.opening.MIN_CACHED_BYTES", 0)
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    config = write_tiny(tmp_path / "data", content_with_keypoints())
    read, mapped = (build_dataset(config.replace(keypoints=ALL)) for _ in range(2))
    assert mapped.annotations.entry is not None
    assert np.array_equal(read.annotations.keypoints, mapped.annotations.keypoints)
    assert read.skeleton == mapped.skeleton and mapped.skeleton.edges == ((0, 1), (0, 2))
    assert build_dataset(config).read(0).objects.keypoints is None
    continuous = build_dataset(config.replace(keypoints=CocoKeypointsConfig(offset=0)))
    assert continuous.annotations.keypoints[0, 0].tolist() == [20, 30, 2]


def test_masks_and_keypoints_are_read_together(tmp_path):
    """By hand: an object has both, and both are checked."""
    content = content_with_keypoints()
    for annotation in content["annotations"]:
        left, top, width, height = annotation["bbox"]
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        annotation["segmentation"] = [corners]
    objects = open_tiny(tmp_path, content, keypoints=ALL, masks=True).read(0).objects
    assert objects.masks.sum(axis=(1, 2)).tolist() == [600, 900] and len(objects.keypoints) == 2
    content["annotations"][0]["num_keypoints"] = 1
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="keypoint-count"):
        open_tiny(tmp_path, content, keypoints=ALL, masks=True)
