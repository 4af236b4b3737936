"""Corrected copies of data sets: every fault that can be repaired, and what may not be guessed."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vertebra.data import CocoConfig
from vertebra.engine.doctor import DataSource, examine
from vertebra.engine.doctor.fix import write_corrected_copy
from vertebra.structures import DataError, UsageError

HEIGHT, WIDTH = 64, 96
NUMBERS = (11, 12, 13, 14)
BOXES = [(4 + 11 * column, 6 + 13 * row, 10, 11) for row in range(4) for column in range(8)]
"""Boxes that do not overlap, at places that could not be corners."""


def outline(box) -> list[list[float]]:
    """Return a box as polygons."""
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def make_content(masks: bool = False, count: int = 8) -> dict[str, Any]:
    """Return a valid annotation file of four images with some objects each, with or without masks."""
    annotations = []
    for image_id in NUMBERS:
        for box in BOXES[:count]:
            number = len(annotations) + 1
            entry = {"id": number, "image_id": image_id, "category_id": 7 if number % 2 else 90, "bbox": list(box)}
            entry |= {"area": box[2] * box[3], "iscrowd": 0}
            annotations.append(entry | ({"segmentation": outline(box)} if masks else {}))
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in NUMBERS],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}],
    }


def write_images(folder: Path) -> None:
    """Write an image of noise for each number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in NUMBERS:
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def write_source(folder: Path, content: Any) -> DataSource:
    """Write an annotation file, with images if there are none yet, and return the data as one split."""
    if not (folder / "images").exists():
        write_images(folder / "images")
    (folder / "annotations.json").write_text(json.dumps(content))
    config = CocoConfig(images=folder / "images", annotations=folder / "annotations.json")
    return DataSource("tiny", {"all": config})


def fixed_source(folder: Path) -> DataSource:
    """Return the corrected copy in a folder as one split."""
    config = CocoConfig(images=folder / "all", annotations=folder / "annotations" / "instances_all.json")
    return DataSource("fixed", {"all": config})


def change(**fields: Any):
    """Return a fault: the first annotation gets these fields; None removes one."""

    def apply(content, folder):
        entry = content["annotations"][0]
        entry |= fields
        for name in [name for name, value in fields.items() if value is ...]:
            entry.pop(name)

    return apply


def convert_boxes(convert):
    """Return a fault: all boxes are written in another form."""

    def apply(content, folder):
        for entry in content["annotations"]:
            entry["bbox"] = list(convert(*entry["bbox"]))

    return apply


def add(section: str, **fields: Any):
    """Return a fault: one more entry of a section, a copy of the last with some fields changed."""
    return lambda content, folder: content[section].append(copy.deepcopy(content[section][-1]) | fields)


def change_image(**fields: Any):
    """Return a fault: the first image gets these fields."""
    return lambda content, folder: content["images"][0].update(fields)


def replace_file(data: bytes):
    """Return a fault: the first image file has this content."""
    return lambda content, folder: (folder / "images" / "11.png").write_bytes(data)


def halve_sizes(content, folder):
    """Declare an image at half its size, with boxes in its half size."""
    content["images"][0] |= {"height": HEIGHT // 2, "width": WIDTH // 2}
    for entry in content["annotations"]:
        if entry["image_id"] == 11:
            entry["bbox"] = [value / 2 for value in entry["bbox"]]
            entry["area"] /= 4


def turn_by_exif(content, folder):
    """Store an image on its side with an EXIF orientation, with the boxes as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "images" / "11.png").save(folder / "images" / "11.png", exif=exif)


def enlarge_polygons(content, folder):
    """Leave the polygons at twice the size of the boxes."""
    for entry in content["annotations"]:
        entry["segmentation"] = [[2 * value for value in polygon] for polygon in entry["segmentation"]]


def copy_image(content, folder):
    """Add a copy of an image file, without objects."""
    (folder / "images" / "15.png").write_bytes((folder / "images" / "14.png").read_bytes())
    content["images"].append(content["images"][-1] | {"id": 15, "file_name": "15.png"})


FAR = [[4, 6, 1e9, 6, 4, 20]]
REPAIRABLE: dict[str, tuple[Any, str]] = {
    "row 9, the same image twice": (add("images"), "duplicate-image-id"),
    "row 10": (change(id=2), "renumbered-id"),
    "row 11": (add("categories", id=91), "duplicate-category"),
    "row 13": (change(id=...), "assigned-id"),
    "row 14": (change(image_id=99), "unknown-image"),
    "row 15": (change(category_id=99), "unknown-category"),
    "row 20": (change(area=...), "computed-area"),
    "row 26": (change(bbox=[float("nan"), 1, 2, 3]), "unusable-box"),
    "row 29": (change(bbox=[4, 6, 0, 11]), "unusable-box"),
    "row 30": (change(bbox=[14, 17, -10, -11]), "negative-box"),
    "row 32": (change(bbox=[4, 6, float("inf"), 11]), "unusable-box"),
    "row 33": (change(bbox=[-5, 6, 10, 11], area=110), "clipped-box"),
    "row 34": (change(bbox=[200, 200, 10, 11]), "unusable-box"),
    "row 35": (change(bbox=[4, 6, 0.001, 11], area=0), "unusable-box"),
    "row 36": (convert_boxes(lambda x, y, w, h: (x, y, x + w, y + h)), "corner-boxes"),
    "row 37": (change(bbox="wide"), "unusable-box"),
    "row 61": (change_image(file_name="missing.png"), "unreadable-image"),
    "row 62": (replace_file(b"<html>"), "unreadable-image"),
    "row 68, another size": (change_image(height=HEIGHT + 9), "wrong-size"),
    "row 68, resized": (halve_sizes, "resized-image"),
    "row 78": (change_image(file_name="../11.png"), "file-name"),
    "row 177, crowd": (change(iscrowd="0"), "corrected-crowd"),
    "row 177, float": (change(image_id=11.0), "whole-float"),
    "row 177, size": (change_image(height=None), "size-from-file"),
    "row 180": (convert_boxes(lambda x, y, w, h: (x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT)), "fraction-boxes"),
    "row 184": (change_image(file_name="some\\where\\11.png"), "file-name"),
    "padded name": (lambda content, folder: content["categories"][0].update(name=" cat"), "padded-class-name"),
    "root": (
        lambda content, folder: content.update(
            categories=[{"id": 0, "name": "pets"}, *(c | {"supercategory": "pets"} for c in content["categories"])]
        ),
        "class-without-objects",
    ),
    "area": (change(area=5000), "area-above-box"),
    "same object": (add("annotations", id=99), "repeated-object"),
    "copy of an image": (copy_image, "repeated-image"),
}  # fmt: skip
"""Faults of data without masks, by their row in docs/faults.md, and the change that repairs each."""
REPAIRABLE_MASKS: dict[str, tuple[Any, str]] = {
    "row 43": (change(segmentation=[[4, 6, 14, 17]]), "no-mask"),
    "row 44": (change(segmentation=[]), "no-mask"),
    "row 45": (change(segmentation=[[4, 6, 14, 6, 14, 17, 4]]), "no-mask"),
    "row 46": (change(segmentation=FAR), "bad-polygon"),
    "row 47": (change(segmentation=[[4, 6, float("nan"), 6, 4, 20]]), "bad-polygon"),
    "row 49": (change(segmentation={"size": [5, 5], "counts": [25]}), "bad-run-lengths"),
    "row 50": (change(segmentation={"size": [HEIGHT, WIDTH], "counts": [5]}), "bad-run-lengths"),
    "row 178": (change(segmentation=[*outline(BOXES[0]), [4, 6, 14, 6]]), "dropped-polygon"),
    "box from mask": (change(bbox=[4, 6, -1, float("nan")]), "box-from-mask"),
    "unscaled polygons": (enlarge_polygons, "unscaled-polygons"),
}
"""Faults of data with masks."""


def faulty_source(folder: Path, name: str) -> tuple[DataSource, str]:
    """Write data with a fault; return them and the change that repairs it."""
    table = REPAIRABLE if name in REPAIRABLE else REPAIRABLE_MASKS
    fault, case = table[name]
    content = make_content(masks=table is REPAIRABLE_MASKS)
    write_images(folder / "images")
    fault(content, folder)
    return write_source(folder, content), case


@pytest.mark.parametrize("masks", (False, True))
def test_data_without_faults_are_clean_and_not_changed(tmp_path, masks):
    """Control: without a fault nothing is found, and the copy has the same annotations."""
    source = write_source(tmp_path, make_content(masks))
    diagnosis = examine(source)
    assert {finding.case for finding in diagnosis.findings} == {"small-objects"} and diagnosis.exit_code() == 0
    assert write_corrected_copy(source, tmp_path / "out").changes == {}
    written = json.loads((tmp_path / "out" / "annotations" / "instances_all.json").read_text())
    assert {name: written[name] for name in ("images", "annotations", "categories")} == make_content(masks)


@pytest.mark.parametrize("name", (*REPAIRABLE, *REPAIRABLE_MASKS))
def test_corrected_copy_is_clean_and_correcting_it_again_changes_nothing(tmp_path, name):
    """Law: the copy of data with a repairable fault has no error or warning, and is its own corrected copy."""
    source, case = faulty_source(tmp_path, name)
    assert examine(source, with_images="copy" in name).findings, "the fault is found"
    before = (tmp_path / "annotations.json").read_bytes()
    fixed = write_corrected_copy(source, tmp_path / "out")
    assert case in fixed.changes
    logged = [json.loads(line) for line in (tmp_path / "out" / "changes.jsonl").read_text().splitlines()]
    assert sum(fixed.changes.values()) == len(logged) and case in {entry["change"] for entry in logged}
    assert (tmp_path / "annotations.json").read_bytes() == before
    diagnosis = examine(fixed_source(tmp_path / "out"))
    assert diagnosis.exit_code() == 0, diagnosis.describe()
    again = write_corrected_copy(fixed_source(tmp_path / "out"), tmp_path / "again")
    assert again.changes == {}
    first, second = ((tmp_path / name / "annotations/instances_all.json").read_text() for name in ("out", "again"))
    assert first == second


@pytest.mark.parametrize("name", ("row 36", "row 68, resized", "row 180", "unscaled polygons", "row 30"))
def test_converted_boxes_and_polygons_are_those_of_the_data_without_the_fault(tmp_path, name):
    """Law: a fault that loses nothing is undone."""
    source, _ = faulty_source(tmp_path, name)
    write_corrected_copy(source, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "annotations" / "instances_all.json").read_text())["annotations"]
    expected = make_content(name in REPAIRABLE_MASKS)["annotations"]
    for field in ("bbox", *(["segmentation"] if name in REPAIRABLE_MASKS else [])):
        values, wanted = ([np.ravel(entry[field]) for entry in part] for part in (written, expected))
        np.testing.assert_allclose(values, wanted, atol=0.02)


def test_boxes_of_a_file_turned_by_exif_are_turned(tmp_path):
    """Law: pixels that are marked in the stored image are marked in the upright one."""
    content = make_content()
    content["annotations"] = content["annotations"][:1]
    write_images(tmp_path / "images")
    turn_by_exif(content, tmp_path)
    source = write_source(tmp_path, content)
    assert "wrong-size" in {finding.case for finding in examine(source).findings}
    write_corrected_copy(source, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "annotations" / "instances_all.json").read_text())
    stored = Image.open(tmp_path / "images" / "11.png")
    x, y, w, h = BOXES[0]
    inside = np.asarray(stored)[y : y + h, x : x + w]
    turned = np.asarray(stored.transpose(Image.Transpose.ROTATE_270))
    x, y, w, h = map(int, written["annotations"][0]["bbox"])
    assert (turned[y : y + h, x : x + w] == np.rot90(inside, -1)).all()
    assert (written["images"][0]["height"], written["images"][0]["width"]) == turned.shape[:2]


def test_two_images_with_one_id_are_not_repaired(tmp_path):
    """By hand: nobody knows whose the objects are, so nothing is written."""
    content = make_content()
    content["images"][0]["id"] = 12
    with pytest.raises(DataError, match="duplicate-image-id"):
        write_corrected_copy(write_source(tmp_path, content), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_overwritten(tmp_path):
    """By hand: the folder of the data themselves."""
    source = write_source(tmp_path, make_content())
    with pytest.raises(UsageError, match="not empty"):
        write_corrected_copy(source, tmp_path)


def test_images_that_are_also_validated_on_are_removed_from_training(tmp_path):
    """By hand: one of the four training images is the only validation image."""
    write_source(tmp_path, make_content())
    content = make_content()
    content["images"] = content["images"][:1]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] == 11]
    (tmp_path / "val.json").write_text(json.dumps(content))
    paths = {"train": tmp_path / "annotations.json", "val": tmp_path / "val.json"}
    configs = {name: CocoConfig(images=tmp_path / "images", annotations=path) for name, path in paths.items()}
    source = DataSource("tiny", dict(configs))
    assert "leaked-image" in {finding.case for finding in examine(source).findings}
    fixed = write_corrected_copy(source, tmp_path / "out")
    assert fixed.changes["leaked-image"] == 1 + len(content["annotations"])
    assert sorted(path.name for path in (tmp_path / "out" / "train").iterdir()) == ["12.png", "13.png", "14.png"]
