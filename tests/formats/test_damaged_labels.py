"""Damaged files of labeling tools: one line of error or a data set, never a traceback, a hang or a NaN."""

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vertebra.structures import VertebraError

from ..helpers.labeled_images import open_labels, write_images, write_text
from .test_labeling_tools import (
    CVAT_XML,
    HEIGHT,
    LS_BOX,
    LS_POLYGON,
    LS_SIZE,
    VIA_REGIONS,
    WIDTH,
    labelme_file,
    shape,
    via_metadata,
)

EXAMPLES = 40
LS_TASKS = [{"image": "/data/upload/1/0a1b2c3d-a.png", "label": [value | LS_SIZE for value in (LS_BOX, LS_POLYGON)]}]
LABELME_SHAPES = (
    shape("cat", "polygon", [[0, 0], [40, 0], [40, 24]], group_id=1), shape("dog", "rectangle", [[30, 40], [10, 20]]),
    shape("cat", "circle", [[40, 24], [43, 28]], group_id=1), shape("cat", "mask", [[1, 2], [3, 4]], mask="aGVsbG8="),
)  # fmt: skip
SUPERVISELY = {
    "size": {"height": HEIGHT, "width": WIDTH},
    "objects": [
        {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [3, 4]], "interior": []}},
        {
            "classTitle": "cat",
            "geometryType": "polygon",
            "points": {"exterior": [[0, 0], [9, 0], [9, 9]], "interior": []},
        },
        {"classTitle": "cat", "geometryType": "bitmap", "bitmap": {"data": "eJw=", "origin": [1, 2]}},
    ],
}
FILES = {
    "yolo": ("labels/a.txt", "0 0.25 0.5 0.25 0.5\n1 0 0 0.5 0 0.5 0.5\n"),
    "labelme": ("a.json", labelme_file(*LABELME_SHAPES)),
    "via": ("via.json", json.dumps(via_metadata(VIA_REGIONS))),
    "cvat": ("annotations.xml", CVAT_XML.replace("sub/a.png", "a.png")),
    "label_studio": ("project.json", json.dumps(LS_TASKS)),
    "csv": ("boxes.csv", "a.png,10,12,30,36,cat\na.png,0,0,40.5,24,dog\nb.png,,,,,\n"),
    "supervisely": ("ann/a.png.json", json.dumps(SUPERVISELY)),
}
SINGLE_FILES = ("via", "cvat", "label_studio", "csv")
DAMAGES = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 2000), st.none()),
    st.tuples(st.just("byte"), st.integers(0, 2000), st.sampled_from(list(b'\0"{}[],:-.9eE<>&\xff\xc3 \n'))),
    st.tuples(st.just("value"), st.integers(0, 60), st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from([[], {}, [[]]]),
        st.sampled_from([1e308, -1, 2**70, "../../x", "NaN", "1e999", [[1, 2, 3]], [[1e300, 2], [3, 4], [5, 6]]]),
    )),
)  # fmt: skip


def write_tree(root: Path, label_format: str, text: str | bytes) -> Path:
    """Write a data set whose file of annotations has this content, and return its path."""
    folder = root / "img" if label_format == "supervisely" else root / "images" if label_format == "yolo" else root
    write_images(folder, "a.png", "b.png")
    write_text(root / "classes.txt", "cat\ndog\n")
    write_text(
        root / "meta.json", json.dumps({"classes": [{"title": "cat"}]}) if label_format == "supervisely" else "{}"
    )
    if label_format != "supervisely":
        (root / "meta.json").unlink()
    file = root / FILES[label_format][0]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file if label_format in SINGLE_FILES else root


def damage(text: str, change) -> bytes:
    """Return a text with one cut, one other byte, or one other value at a place in its JSON, line or attribute."""
    way, position, value = change
    data = text.encode()
    if way == "cut":
        return data[: position % (len(data) + 1)]
    if way == "byte":
        place = position % len(data)
        return data[:place] + bytes([value]) + data[place + 1 :]
    try:
        content = json.loads(text)
    except ValueError:
        words = text.split(" ")
        words[position % len(words)] = str(value)
        return " ".join(words).encode(errors="replace")
    places = list(all_places(content))
    container, key = places[position % len(places)]
    container[key] = value
    return json.dumps(content).encode()


def all_places(value):
    """Yield every (container, key) in a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from all_places(value[key])


@pytest.mark.parametrize("label_format", FILES)
def test_damaged_file_is_an_error_of_one_line_or_a_data_set(label_format):
    """docs/faults.md row 205. Law: for any damage, the error is one line; otherwise all values are finite and used."""

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(DAMAGES, st.sampled_from(["error", "skip"]), st.booleans())
    def check(change, policy, masks):
        with tempfile.TemporaryDirectory() as folder:
            path = write_tree(Path(folder), label_format, damage(FILES[label_format][1], change))
            try:
                dataset = open_labels(path, label_format, policy, masks=masks)
            except VertebraError as error:
                assert "\n" not in str(error) and len(str(error)) < 1500
                return
            report = dataset.report.as_json()
            assert all(total["read"] == total["used"] + total["skipped"] for total in report["totals"].values())
            for index in range(len(dataset)):
                objects = dataset.read(index).objects
                assert np.isfinite(objects.boxes).all() and (objects.labels >= 0).all()
            for entry in dataset.ground_truth()["annotations"]:
                assert all(map(math.isfinite, entry["bbox"]))

    check()


@pytest.mark.parametrize("label_format", FILES)
def test_undamaged_file_is_read(label_format, tmp_path):
    """Control: the files of the test above have objects as they are."""
    dataset = open_labels(write_tree(tmp_path, label_format, FILES[label_format][1]), label_format, "skip")
    assert sum(len(dataset.read(index).objects.boxes) for index in range(len(dataset))) >= 2
