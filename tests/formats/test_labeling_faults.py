"""Faults in the files of labeling tools: shapes that cannot be used, missing images, and files of other tools."""

import base64
import json

import numpy as np
import pytest

from vertebra.structures import DataError

from ..helpers.labeled_images import open_labels, write_images, write_text
from .test_labeling_tools import labelme_file, png, shape, via_metadata

BAD_LABELME = [
    (shape("cat", "polygon", [[0, 0], [1, 1]]), "has 2 points, where 3 are needed"),
    (shape("cat", "polygon", [[0, 0], [1, 1], [2, "x"]]), "which is not a finite number"),
    (shape("cat", "spiral", [[0, 0]]), "'spiral'"),
    (shape("cat", "mask", [[0, 0]], mask="%%"), "not a PNG file"),
    (shape("cat", "mask", [[79, 47]], mask=base64.b64encode(png(np.ones((3, 3)))).decode()), "leaves its image"),
    ({"points": []}, "no label"),
    (shape("cat", "polygon", [[0, 0], [1e9, 1], [2, 2]]), "box"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_LABELME[:-1])
def test_bad_shape_is_an_error_or_skipped_and_counted(bad, message, tmp_path):
    """docs/faults.md row 203. By hand: one line with the file, the image and the number of the shape."""
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "a.json", labelme_file(shape("dog", "rectangle", [[1, 2], [3, 4]]), bad))
    with pytest.raises(DataError, match=rf"bad-shape: .*a\.json: image_id=a\.png: ann_id=shape 2: .*{message}"):
        open_labels(tmp_path, "labelme")
    report = open_labels(tmp_path, "labelme", "skip").report.as_json()
    assert report["totals"]["annotations"] == {"read": 2, "used": 1, "skipped": 1}


def test_wild_polygon_is_checked_before_native_code(tmp_path):
    """docs/faults.md row 46. By hand: the checks of COCO's masks also see those of other formats."""
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "a.json", labelme_file(BAD_LABELME[-1][0]))
    with pytest.raises(DataError, match=r"bad-polygon: .*a\.json: image_id=a\.png: ann_id=shape 1"):
        open_labels(tmp_path, "labelme", masks=True)


def test_labels_without_image_and_damaged_files(tmp_path):
    """docs/faults.md row 203. By hand: an error that names the file, or both are skipped and counted."""
    write_images(tmp_path, "a.png", "c.png")
    write_text(tmp_path / "a.json", labelme_file(shape("cat", "rectangle", [[1, 2], [3, 4]])))
    write_text(tmp_path / "b.json", labelme_file(shape("cat", "rectangle", [[1, 2], [3, 4]]), imagePath="b.png"))
    with pytest.raises(DataError, match=r"missing-image: .*b\.png"):
        open_labels(tmp_path, "labelme")
    write_text(tmp_path / "c.json", '{"shapes": [')
    report = open_labels(tmp_path, "labelme", "skip-any").report.as_json()
    assert report["totals"]["images"] == {"read": 3, "used": 1, "skipped": 2}
    assert set(report["skipped"]["images"]) == {"missing-image", "bad-json"}


def test_size_of_the_image_is_verified(tmp_path):
    """docs/faults.md row 68. By hand: LabelMe states another size than the image has."""
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "a.json", labelme_file(shape("cat", "rectangle", [[1, 2], [3, 4]]), imageWidth=81))
    with pytest.raises(DataError, match="wrong-size"):
        open_labels(tmp_path, "labelme")


@pytest.mark.parametrize(
    ("label_format", "name", "content", "message"),
    [
        ("via", "via.json", '{"project": {}, "metadata": {}}', "VIA 3"),
        ("via", "via.json", "[]", "no images with regions"),
        (
            "via", "via.json",
            json.dumps(via_metadata([{"shape_attributes": {}, "region_attributes": {"u": "a", "v": "b"}}])),
            "attributes u, v: which one is the class",
        ),
        ("cvat", "a.xml", "<annotations><track/></annotations>", "CVAT for video"),
        ("cvat", "a.xml", "<annotations><image", "not valid XML at line 1"),
        ("cvat", "a.xml", "<annotation/>", "expected <annotations>"),
        ("label_studio", "a.json", "{}", "list of tasks"),
        ("label_studio", "a.json", "[3]", "task 1 has no image"),
        ("csv", "a.csv", 'a.png,1,"2', "not a CSV file"),
        ("csv", "a.csv", ",1,2,3,4,cat", "line 1 has no path"),
        ("labelme", "gone", None, "no such file or folder"),
    ],
)  # fmt: skip
def test_file_of_another_format_is_an_error(label_format, name, content, message, tmp_path):
    """docs/faults.md row 204. By hand: one line that says what was found, also with ``--bad-data=skip``."""
    if content is not None:
        write_text(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as caught:
        open_labels(tmp_path / name, label_format, "skip")
    assert "\n" not in str(caught.value)


def test_circle_of_any_radius_has_an_outline(tmp_path):
    """Symptom: a circle of 2^54 pixels raised ZeroDivisionError."""
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "a.json", labelme_file(shape("cat", "circle", [[40, 24], [2.0**54, 28]])))
    assert len(open_labels(tmp_path, "labelme")) == 1
