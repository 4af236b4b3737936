"""Entries of images in a COCO file as users have them: each fault gets its exit code and one line."""

from typing import Any

import cv2
import numpy as np
import pytest

from vertebra.data import Record, ResizeConfig, build_transform
from vertebra.formats import read_image
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import HEIGHT, WIDTH, open_tiny, tiny_content

# name: (what is done to image 12's entry, case, what the line says)
BAD_IMAGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no file name": ({"file_name": ...}, "bad-image", "needs a file_name"),
    "a name with NUL": ({"file_name": "12.png\0"}, "bad-image", r"needs a file_name; found '12.png.x00'"),
    "a name that is no text": ({"file_name": "\ud800.png"}, "bad-image", r"needs a file_name; found '.ud800.png'"),
    "no height": ({"height": ...}, "bad-size", "must be positive whole numbers"),
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
def test_a_bad_image_stops_or_is_skipped_with_its_objects(name, tmp_path):
    """docs/faults.md rows 60, 61, 68, 78, 79: exit code 3 naming the image; skipped, its objects are counted too."""
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


def test_a_link_out_of_the_folder_needs_permission(tmp_path):
    """docs/faults.md row 79: a symbolic link that leads elsewhere."""
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
def test_what_cannot_be_an_id_is_refused(identity, tmp_path):
    """Exit code 3 and a line that can be printed. numpy would keep such a number as an object and drop a last NUL."""
    data = tiny_content()
    data["images"][2]["id"] = identity
    with pytest.raises(DataError, match=r"bad-image: .*an image needs an id, a number of 64 bits or text") as caught:
        open_tiny(tmp_path, data)
    assert caught.value.exit_code == 3
    assert str(caught.value).encode()
    assert open_tiny(tmp_path, data, "skip").image_ids == [11, 12, 14]


@pytest.mark.parametrize("name", ["two\nlines.png", "größe 日本.png", "a b.png"])
def test_odd_names_work_and_errors_stay_one_line(name, tmp_path):
    """docs/faults.md row 80: line breaks, other alphabets and spaces."""
    data = tiny_content()
    data["images"][0]["file_name"] = name
    with pytest.raises(DataError) as caught:
        open_tiny(tmp_path, data)
    assert "\n" not in str(caught.value)
    (tmp_path / "images" / "11.png").rename(tmp_path / "images" / name)
    assert open_tiny(tmp_path, data).read(0).image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (3, 50)])
def test_tiny_images_go_through(size, tmp_path):
    """docs/faults.md row 76: no side falls to zero."""
    cv2.imwrite(str(tmp_path / "tiny.png"), np.full((*size, 3), 90, np.uint8))
    transform = build_transform(ResizeConfig(short_sides=(64,), long_side=96))
    sample = transform(Record(read_image(tmp_path / "tiny.png")), 0, 0)
    assert min(sample.image.shape[1:]) >= 1 and max(sample.image.shape[1:]) <= 96


def test_a_cut_image_under_skip_is_counted(tmp_path):
    """docs/faults.md row 63 in a data set: left out with its objects, and counted."""
    data = tiny_content()
    data["images"][1]["file_name"] = "cut.png"
    png = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))[1]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cut.png").write_bytes(png.tobytes()[: len(png) // 2])
    dataset = open_tiny(tmp_path, data, "skip")
    assert dataset.report.as_json()["skipped"]["images"] == {"damaged-image": {"count": 1, "ids": [12]}}
    assert dataset.image_ids == [11, 13, 14]
