"""Conversion between formats: round trips, names, and counts of what a format cannot hold."""

import json
from pathlib import Path

import hotcoco
import numpy as np
import pytest
from PIL import Image

from vertebra.data import DataPath, VocConfig, build_dataset, convert_data, pair_from_paths
from vertebra.data.conversion import unique_names
from vertebra.formats import encode_mask
from vertebra.structures import UsageError
from vertebra.tools.cli import main

from ..helpers.labeled_images import HEIGHT, WIDTH, write_images, write_text
from ..helpers.tiny_coco_file import tiny_content, write_tiny

TARGETS = ("coco", "voc", "yolo")


def random_mask(generator: np.random.Generator) -> np.ndarray:
    """Return a mask of several parts, one of them with a hole."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(3):
        y, x = generator.integers(0, (HEIGHT - 20, WIDTH - 20))
        mask[y : y + generator.integers(3, 20), x : x + generator.integers(3, 20)] = True
    y, x = np.argwhere(mask)[generator.integers(mask.sum())]
    mask[y, x] = False
    return mask


def write_source(root: Path, masks: str | None = "rle") -> Path:
    """Write a COCO data set of two splits with random boxes or masks (``rle`` or ``polygons``), and return its path."""
    generator = np.random.default_rng(0)
    number = 0
    for split, count in (("train", 3), ("val", 2)):
        names = [f"{split}{index}.png" for index in range(count)]
        write_images(root / "images", *names)
        images = [
            {"id": index + 7, "file_name": name, "height": HEIGHT, "width": WIDTH} for index, name in enumerate(names)
        ]
        annotations = []
        for image in images[1:]:
            for _ in range(4):
                number += 1
                entry = {
                    "id": number,
                    "image_id": image["id"],
                    "category_id": int(generator.choice([3, 90])),
                    "iscrowd": 0,
                }
                if masks == "rle":
                    mask = random_mask(generator)
                    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
                    corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                    entry["segmentation"] = encode_mask(mask)
                else:
                    points = generator.uniform(0, (WIDTH, HEIGHT), (7, 2)).round(2)
                    corners = [*points.min(axis=0), *points.max(axis=0)]
                    if masks == "polygons":
                        entry["segmentation"] = [points.ravel().tolist()]
                x1, y1, x2, y2 = map(float, corners)
                annotations.append(entry | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
        categories = [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_text(root / "annotations" / f"instances_{split}.json", json.dumps(content))
    return root


def contents(path: Path) -> dict:
    """Return by split and file name the sorted (class, box, mask or None) of each object of a data set."""
    pair = pair_from_paths(DataPath(path, "detection"))
    found = {}
    for split, config in (("train", pair.train), ("val", pair.val)):
        truth = build_dataset(config).ground_truth()
        has_masks = all(entry.get("segmentation") for entry in truth["annotations"])
        dataset = build_dataset(config.replace(masks=True)) if has_masks else build_dataset(config)
        for index in range(len(dataset)):
            name = Path(dataset.file_name(index)).name
            objects = dataset.read(index).objects
            masks = [None] * len(objects.boxes) if objects.masks is None else list(objects.masks)
            rows = zip(objects.labels.tolist(), objects.boxes.tolist(), masks, strict=True)
            found[split, name] = sorted(
                ((dataset.class_names[label], box, mask) for label, box, mask in rows), key=lambda row: row[:2]
            )
    return found


def assert_equal(first: dict, second: dict, masks: bool) -> None:
    """Check that two data sets have the same classes, boxes to 1e-3 px, and masks to the pixel."""
    assert first.keys() == second.keys() and any(first.values())
    for key, objects in first.items():
        assert [row[0] for row in objects] == [row[0] for row in second[key]]
        for (_, box, mask), (_, other_box, other_mask) in zip(objects, second[key], strict=True):
            np.testing.assert_allclose(box, other_box, atol=1e-3)
            assert not masks or (np.asarray(mask) == np.asarray(other_mask)).all()


@pytest.mark.parametrize("masks", ["rle", "polygons", None])
@pytest.mark.parametrize("last", TARGETS)
@pytest.mark.parametrize("first", TARGETS)
def test_round_trips_keep_boxes_and_masks(first, last, masks, tmp_path):
    """Law: any two conversions keep splits, classes and boxes to 1e-3 px, and masks to the pixel without VOC."""
    source = write_source(tmp_path / "source", masks)
    convert_data(DataPath(source, "detection"), tmp_path / "first", first)
    convert_data(DataPath(tmp_path / "first", "detection"), tmp_path / "last", last)
    assert_equal(contents(source), contents(tmp_path / "last"), masks is not None and "voc" not in (first, last))


def test_written_yolo_labels_equal_those_of_another_writer(tmp_path):
    """Oracle: hotcoco's ``to_yolo``, for boxes."""
    source = write_source(tmp_path / "source", None)
    hotcoco.COCO(str(source / "annotations" / "instances_train.json")).to_yolo(str(tmp_path / "other"))
    convert_data(DataPath(source, "detection"), tmp_path / "ours", "yolo")
    for name in ("train0", "train1", "train2"):
        ours, other = (folder / f"{name}.txt" for folder in (tmp_path / "ours/labels/train", tmp_path / "other"))
        rows = [[list(map(float, line.split())) for line in file.read_text().splitlines()] for file in (ours, other)]
        np.testing.assert_allclose(*rows, atol=1e-6)


def test_written_voc_files_equal_those_of_another_writer(tmp_path):
    """Oracle: hotcoco's ``to_voc``, for boxes of whole pixels."""
    source = write_source(tmp_path / "source", "rle")
    hotcoco.COCO(str(source / "annotations" / "instances_train.json")).to_voc(str(tmp_path / "other"))
    convert_data(DataPath(source, "detection"), tmp_path / "ours", "voc")
    names = ("cat", "dog")
    ours = build_dataset(VocConfig(root=tmp_path / "ours", splits=("train",), class_names=names))
    (tmp_path / "ours" / "Other").mkdir()
    for file in (tmp_path / "other" / "Annotations").glob("*.xml"):
        (tmp_path / "ours" / "Other" / file.name).write_bytes(file.read_bytes())
    config = VocConfig(root=tmp_path / "ours", splits=("train",), class_names=names, annotations="Other")
    other = build_dataset(config)
    assert ours.ground_truth()["annotations"] == other.ground_truth()["annotations"]


def test_losses_are_counted(tmp_path):
    """By hand: a crowd, a mask beside boxes, keypoints, a box that is not that of its polygon, and a bad mask."""
    source = write_source(tmp_path / "source", "polygons")
    file = source / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    first, second, third, *_ = content["annotations"]
    first["iscrowd"] = 1
    second["bbox"][0] += 1
    content["categories"][0] |= {"keypoints": ["nose"], "skeleton": []}
    third["keypoints"] = [1, 2, 2]
    file.write_text(json.dumps(content))
    lines = convert_data(DataPath(source, "detection"), tmp_path / "yolo", "yolo")
    assert lines[-1] == (
        "changed or lost in yolo: 1 x box replaced by that of the mask, 1 x crowd or difficult object left out, "
        "1 x keypoints left out"
    )
    lines = convert_data(DataPath(source, "detection"), tmp_path / "voc", "voc")
    assert lines[-1] == (
        "changed or lost in voc: 1 x crowd written as a difficult object, 1 x keypoints left out, 12 x mask left out"
    )
    third["segmentation"] = [[1, 2]]
    file.write_text(json.dumps(content))
    lines = convert_data(DataPath(source, "detection"), tmp_path / "coco", "coco")
    assert lines[-1] == "changed or lost in coco: 1 x mask that cannot be used left out"
    assert lines[-2].endswith("coco: 5 images with 12 objects of 2 classes")


def test_out_must_be_new_or_empty(tmp_path):
    """docs/faults.md row 207. By hand: nothing is written beside other files, and nothing after an error."""
    source = write_source(tmp_path / "source")
    (tmp_path / "out").mkdir()
    write_text(tmp_path / "out" / "x", "")
    with pytest.raises(UsageError, match="not empty"):
        convert_data(DataPath(source, "detection"), tmp_path / "out", "coco")
    (tmp_path / "out" / "x").unlink()
    convert_data(DataPath(source, "detection"), tmp_path / "out", "coco")
    (source / "images" / "train0.png").rename(source / "images" / "train0.webp")
    file = source / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace("train0.png", "train0.webp"))
    with pytest.raises(UsageError, match=r"holds \.jpg and \.png images, not 'train0\.webp'"):
        convert_data(DataPath(source, "detection"), tmp_path / "voc", "voc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["x/a.jpg", "y/b.jpg"], ["a.jpg", "b.jpg"]),
        (["x/a.jpg", "y/a.jpg"], ["x_a.jpg", "y_a.jpg"]),
        (["x/a.jpg", "x/a.png"], ["a_jpg.jpg", "a_png.png"]),
        (["x/a.jpg", "x_a.jpg"], ["a.jpg", "x_a.jpg"]),
        (["x/y_a.jpg", "x_y/a.jpg", "a.jpg"], ["000000_y_a.jpg", "000001_a.jpg", "000002_a.jpg"]),
    ],
)
def test_names_of_images_are_unique_without_suffix(files, names):
    """By hand: the file's own name, else with its folders, its suffix or a number."""
    assert unique_names(files) == names


def test_convert_data_command(tmp_path, capsys):
    """By hand: the command links images and says what it did; a COCO file without splits becomes one split."""
    source = write_source(tmp_path / "source")
    file = source / "annotations" / "instances_val.json"
    assert main(["convert-data", str(file), str(tmp_path / "out"), "--to", "yolo", "--link"]) == 0
    assert "2 images with 4 objects of 2 classes\nchanged or lost in yolo: nothing" in capsys.readouterr().out
    image = tmp_path / "out" / "images" / "train" / "val1.png"
    assert image.stat().st_ino == (source / "images" / "val1.png").stat().st_ino
    assert main(["convert-data", str(tmp_path / "gone"), str(tmp_path / "x"), "--to", "coco"]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err


def test_most_data_is_left_out_only_if_that_is_asked_for(tmp_path, capsys):
    """docs/faults.md row 176. By hand: four of six boxes are inverted; the message names the option that goes on."""
    content = tiny_content()
    for annotation in content["annotations"][:4]:
        annotation["bbox"] = [1, 2, -3, 4]
    config = write_tiny(tmp_path / "data", content)
    command = ["convert-data", str(config.annotations), str(tmp_path / "out"), "--to", "coco", "--bad-data"]
    assert main([*command, "skip"]) == 3 and "or pass --bad-data=skip-any" in capsys.readouterr().err
    assert main([*command, "skip-any"]) == 0


def test_exif_rotation_of_images_is_kept(tmp_path):
    """Law: boxes of an image that EXIF turns are fractions of the upright image, and come back."""
    source = write_source(tmp_path / "source", None)
    file = source / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(source / "images" / "train1.jpg", exif=exif)
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("train1.png", "train1.jpg")
    file.write_text(json.dumps(content))
    convert_data(DataPath(source, "detection"), tmp_path / "yolo", "yolo")
    assert_equal(contents(source), contents(tmp_path / "yolo"), masks=False)
