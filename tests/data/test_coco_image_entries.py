"""Faults of the image entries of a COCO file: each ends with an exit code and one line."""

from typing import Any

import cv2
import numpy as np
import pytest

from vertebra.data import Record, ResizeConfig, build_transform
from vertebra.formats import read_image
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import HEIGHT, WIDTH, open_tiny, tiny_content

# name: (how the entry of image 12 is changed, case, pattern of the message)
BAD_IMAGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no file name": ({"file_name": ...}, "bad-image", "needs a file_name"),
    "a name with NUL": ({"file_name": "12.png\0"}, "bad-image", r"needs a file_name; found '12.png.x00'"),
    "a name that is no text": ({"file_name": "\ud800.png"}, "bad-image", r"needs a file_name; found '.ud800.png'"),
    "half a pixel": ({"height": 63.5}, "bad-size", "must be positive whole numbers"),
    "zero width": ({"width": 0}, "bad-size", "must be positive whole numbers"),
    "text height": ({"height": "64"}, "bad-size", "must be positive whole numbers"),
    "a million squared": ({"height": 10**6, "width": 10**6}, "too-many-pixels", "1000000x1000000"),
    "no such file": ({"file_name": "gone.png"}, "missing-image", "does not exist"),
    "size of another image": ({"width": 100}, "wrong-size", "says 64x100 .*, the image is 64x96: annotate"),
    "swapped size": ({"height": 96, "width": 64}, "wrong-size", "EXIF rotation"),
    "escapes": ({"file_name": "../annotations.json"}, "outside-root", "points outside the image folder"),
    "absolute": ({"file_name": "/etc/hostname"}, "outside-root", "points outside the image folder"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_an_error_or_skipped_with_its_objects(name, tmp_path):
    """docs/faults.md rows 60, 61, 68, 78, 79. By hand: exit code 3 naming the image; with --bad-data=skip its objects
    are counted too."""
    changes, case, message = BAD_IMAGES[name]
    data = tiny_content()
    data["images"][1] = {key: value for key, value in (data["images"][1] | changes).items() if value is not ...}
    with pytest.raises(DataError, match=rf"{case}: .*image_id=12: .*{message}") as caught:
        open_tiny(tmp_path, data)
    assert caught.value.exit_code == 3
    dataset = open_tiny(tmp_path, data, "skip")
    report = dataset.report.as_json()
    assert report["skipped"]["images"] == {case: {"count": 1, "ids": [12]}}
    assert report["totals"]["images"] == {"read": 4, "used": 3, "skipped": 1}
    assert report["totals"]["annotations"] == {"read": 6, "used": 4, "skipped": 2}
    assert dataset.image_ids == [11, 13, 14]


def test_link_out_of_the_folder_needs_allow_outside(tmp_path):
    """docs/faults.md row 79. By hand: a symbolic link to a file outside the image folder."""
    data = tiny_content()
    data["images"][1]["file_name"] = "link.png"
    open_tiny(tmp_path)
    elsewhere = tmp_path / "elsewhere.png"
    (tmp_path / "images" / "12.png").rename(elsewhere)
    (tmp_path / "images" / "link.png").symlink_to(elsewhere)
    with pytest.raises(DataError, match="outside-root"):
        open_tiny(tmp_path, data)
    assert len(open_tiny(tmp_path, data, allow_outside=True)) == 4


@pytest.mark.parametrize("identity", [2**70, -(2**64), "12\0", "\ud800", True, 1.5, None])
def test_invalid_image_id_is_refused(identity, tmp_path):
    """By hand: exit code 3 and a message that can be encoded. In a numpy array such a number would become an object,
    and a final NUL would be lost."""
    data = tiny_content()
    data["images"][2]["id"] = identity
    with pytest.raises(DataError, match=r"bad-image: .*an image needs an id, a number of 64 bits or text") as caught:
        open_tiny(tmp_path, data)
    assert caught.value.exit_code == 3
    assert str(caught.value).encode()
    assert open_tiny(tmp_path, data, "skip").image_ids == [11, 12, 14]


@pytest.mark.parametrize("name", ["two\nlines.png", "größe 日本.png", "a b.png"])
def test_unusual_file_names_work_and_errors_stay_one_line(name, tmp_path):
    """docs/faults.md row 80. By hand: line breaks, other alphabets and spaces."""
    data = tiny_content()
    data["images"][0]["file_name"] = name
    with pytest.raises(DataError) as caught:
        open_tiny(tmp_path, data)
    assert "\n" not in str(caught.value)
    (tmp_path / "images" / "11.png").rename(tmp_path / "images" / name)
    assert open_tiny(tmp_path, data).read(0).image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (3, 50)])
def test_tiny_images_are_resized_to_at_least_one_pixel(size, tmp_path):
    """docs/faults.md row 76. By hand: no side becomes 0."""
    cv2.imwrite(str(tmp_path / "tiny.png"), np.full((*size, 3), 90, np.uint8))
    transform = build_transform(ResizeConfig(short_sides=(64,), long_side=96))
    sample = transform(Record(read_image(tmp_path / "tiny.png")), 0, 0)
    assert min(sample.image.shape[1:]) >= 1 and max(sample.image.shape[1:]) <= 96


def test_truncated_image_is_skipped_and_counted(tmp_path):
    """docs/faults.md row 63. By hand: left out with its objects, and counted."""
    data = tiny_content()
    data["images"][1]["file_name"] = "cut.png"
    png = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))[1]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cut.png").write_bytes(png.tobytes()[: len(png) // 2])
    dataset = open_tiny(tmp_path, data, "skip")
    assert dataset.report.as_json()["skipped"]["images"] == {"damaged-image": {"count": 1, "ids": [12]}}
    assert dataset.image_ids == [11, 13, 14]
