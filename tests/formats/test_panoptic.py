"""COCO's panoptic format: colors of ids, and files that are written and read."""

import json

import numpy as np
import pytest
from PIL import Image

from vertebra.formats import MAX_SEGMENT_ID, read_json, read_segment_ids, write_panoptic_json, write_segments
from vertebra.formats.panoptic import decode_segment_ids, encode_segment_ids
from vertebra.structures import DataError

from ..helpers.panoptic import IDS


def test_colors_of_ids_by_hand():
    """By hand: R + 256 G + 65536 B, from 0 to the largest."""
    colors = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3], [255, 255, 255]]], np.uint8)
    ids = np.array([[0, 1, 256, 65_536, 1 + 2 * 256 + 3 * 65_536, MAX_SEGMENT_ID]], np.int32)
    np.testing.assert_array_equal(decode_segment_ids(colors), ids)
    np.testing.assert_array_equal(encode_segment_ids(ids), colors)


def test_segments_are_written_and_read_equal(tmp_path):
    """Law: the map read is the map written, for random ids. By hand: the area and the box of a segment."""
    generator = np.random.default_rng(0)
    numbers = generator.integers(1, MAX_SEGMENT_ID, 6).astype(np.int32)
    ids = np.array([0, *numbers], np.int32)[generator.integers(0, 7, (30, 40))]
    segments = [{"id": number, "category_id": 3, "iscrowd": 1} for number in numbers.tolist()]
    entry = write_segments(tmp_path / "a.png", ids, segments, "a")
    np.testing.assert_array_equal(read_segment_ids(tmp_path / "a.png", numbers.tolist(), (30, 40), "a"), ids)
    assert (entry["image_id"], entry["file_name"], entry["segments_info"][0]["iscrowd"]) == ("a", "a.png", 1)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB"

    entry = write_segments(tmp_path / "b.png", IDS, [{"id": 7, "category_id": 3}], 2)
    assert entry["segments_info"] == [{"iscrowd": 0, "id": 7, "category_id": 3, "area": 10, "bbox": [2, 0, 4, 3]}]
    write_panoptic_json(tmp_path / "b.json", [{"id": 2}], [entry], [{"id": 3, "name": "cat", "isthing": 1}])
    assert list(read_json(tmp_path / "b.json")) == ["info", "images", "annotations", "categories"]
    assert json.loads((tmp_path / "b.json").read_text())["annotations"] == [entry]
    with pytest.raises(ValueError, match="a segment needs at least one pixel"):
        write_segments(tmp_path / "c.png", IDS, [{"id": 8, "category_id": 3}], 2)


@pytest.mark.parametrize(
    ("change", "case", "message"),
    [
        (lambda colors: colors[:, :, 0], "bad-segment-png", "not 8-bit RGB, but has color type 0 and 8 bits"),
        (lambda colors: np.dstack([colors, colors[:, :, :1]]), "bad-segment-png", "color type 6"),
        (lambda colors: colors[:, :5], "mask-size", "the mask is 4x5 .height x width., its image 4x6"),
        (
            lambda colors: np.where(colors == 9, 11, colors).astype(np.uint8),
            "unlisted-segment",
            "ann_id=11: the pixel in row 3, column 0 belongs to a segment that segments_info does not list: list the",
        ),
        (
            lambda colors: np.where(colors == 9, 0, colors).astype(np.uint8),
            "empty-segment",
            "ann_id=9: the segment has no pixel in the PNG: remove it from segments_info",
        ),
    ],
)
def test_png_that_does_not_fit_is_refused(change, case, message, tmp_path):
    """docs/faults.md row 146. By hand: one line with the file, the image, the segment, and the first wrong pixel."""
    path = tmp_path / "a.png"
    Image.fromarray(change(encode_segment_ids(IDS))).save(path)
    with pytest.raises(DataError, match=message) as caught:
        read_segment_ids(path, [5, 7, 9, 70_000], (4, 6), 12)
    assert caught.value.case == case and f"{path}: image_id=12: " in str(caught.value)


def test_damaged_and_missing_png_are_refused(tmp_path):
    """docs/faults.md row 146. By hand: DataError that names the file."""
    with pytest.raises(DataError, match=r"missing-mask: .*a.png: image_id=1"):
        read_segment_ids(tmp_path / "a.png", [1], (4, 6), 1)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="damaged-mask"):
        read_segment_ids(tmp_path / "a.png", [1], (40, 60), 1)
    (tmp_path / "a.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match="not-a-mask"):
        read_segment_ids(tmp_path / "a.png", [1], (40, 60), 1)
