"""Reading COCO files into typed rows: Python's values; an unusual row is left as it is in the file."""

import json
import random

import pytest

from vertebra.formats import coco
from vertebra.formats.coco import CocoAnnotation, CocoImage, CocoMaskAnnotation, RunLengths, decode_blocks, read_row
from vertebra.structures import DataError

ODD = (None, True, "7", 7.0, 2**63, -(2**63), -(2**63) - 1, [7], {}, 1e300, float("nan"), "\ud800")
"""Values that a field may have in a file by mistake."""


def entry(rng: random.Random) -> dict:
    """Return an annotation, with some fields missing or unusual."""
    box = [rng.choice([rng.random() * 100, rng.randrange(100)]) for _ in range(4)]
    polygon = [rng.choice([rng.random() * 100, rng.randrange(100)]) for _ in range(6)]
    mask = rng.choice([[polygon], [polygon, polygon], {"size": [3, 4], "counts": rng.choice([[12], "<"])}, None])
    fields = {
        "id": rng.randrange(99), "image_id": rng.choice([5, "a"]), "category_id": 3, "bbox": box, "area": rng.random(),
        "iscrowd": rng.randrange(2), "segmentation": mask, "caption": "größe",
    }  # fmt: skip
    for name in list(fields):
        if rng.random() < 0.05:
            del fields[name]
        elif rng.random() < 0.05:
            fields[name] = rng.choice(ODD)
    return fields


def as_dict(row: CocoMaskAnnotation) -> dict:
    """Return the fields of a typed row as in JSON."""
    mask = row.segmentation
    shown = {"size": mask.size, "counts": mask.counts} if isinstance(mask, RunLengths) else mask
    return {
        "id": row.id, "image_id": row.image_id, "category_id": row.category_id, "area": row.area,
        "bbox": None if row.bbox is None else list(row.bbox), "iscrowd": row.iscrowd, "segmentation": shown,
    }  # fmt: skip


@pytest.mark.parametrize("odd_numbers", [False, True])
def test_typed_rows_equal_pythons_json(odd_numbers, tmp_path, monkeypatch):
    """Oracle: Python's ``json``: a typed row has its values, and any other row is returned as it is in the file.

    A file that contains ``NaN`` is read by the slower parser, with the same rows.
    """
    monkeypatch.setattr(coco, "ROWS_PER_BLOCK", 7)
    rng = random.Random(0)
    entries = [entry(rng) for _ in range(3000)]
    if not odd_numbers:
        entries = [value for value in entries if "NaN" not in json.dumps(value) and r"\ud800" not in json.dumps(value)]
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"images": [], "annotations": entries, "categories": []}))
    file = coco.read_coco_file(path)
    typed = 0
    for first, block in decode_blocks(file.annotations, CocoMaskAnnotation):
        for place, row in enumerate(block, start=first):
            assert repr(read_row(file.annotations[place], path)) == repr(entries[place])
            if row is not None:
                typed += 1
                expected = dict.fromkeys(("id", "bbox", "area", "segmentation")) | {"iscrowd": 0} | entries[place]
                if expected["area"] is not None:
                    expected["area"] = float(expected["area"])
                assert as_dict(row) == {name: expected[name] for name in as_dict(row)}
    assert 0.4 * len(entries) < typed < len(entries)
    assert file.digest == coco.digest_file(path)


def test_faulty_mask_field_does_not_matter_without_masks(tmp_path):
    """By hand: boxes are read although the segmentation is faulty."""
    path = tmp_path / "file.json"
    image = {"id": 5, "file_name": "a.png", "height": 3, "width": 4}
    annotation = {"id": 1, "image_id": 5, "category_id": 3, "segmentation": "nonsense"}
    path.write_text(json.dumps({"images": [image], "annotations": [annotation], "categories": []}))
    file = coco.read_coco_file(path)
    assert next(decode_blocks(file.images, CocoImage)) == (0, [CocoImage(5, "a.png", 3, 4)])
    assert next(decode_blocks(file.annotations, CocoAnnotation))[1] == [CocoAnnotation(5, 3, 1)]
    assert next(decode_blocks(file.annotations, CocoMaskAnnotation))[1] == [None]


def test_invalid_utf8_in_an_unused_field_is_refused(tmp_path):
    """docs/faults.md row 27. By hand: a caption in another encoding, in an otherwise correct entry."""
    path = tmp_path / "file.json"
    path.write_bytes(b'{"images": [], "annotations": [{"caption": "gr\xf6\xdfe"}], "categories": []}')
    with pytest.raises(DataError, match=r"bad-json: .*not valid UTF-8 at byte 46"):
        coco.read_coco_file(path)
