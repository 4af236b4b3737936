"""COCO's objects as semantic maps: merged as torchvision does, and by the other conventions."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebra.data import COCO_CLASSES, VOC_CLASSES, CocoSemantic, CocoSemanticConfig
from vertebra.structures import DataError

HEIGHT, WIDTH = 64, 96
VOC_21 = ("background", *VOC_CLASSES)


def box_polygon(x: int, y: int, width: int, height: int) -> list[list[int]]:
    """Return the corners of a box as a polygon."""
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


BOXES = (("cat", (10, 10, 40, 40)), ("dog", (30, 20, 40, 20)), ("cat", (20, 30, 20, 30)), ("toaster", (60, 50, 30, 10)))
"""A cat overlapped by a dog and by another cat; the dog and the second cat overlap too."""
CROWD = (0, 0, 20, 64)


def write_coco(folder: Path) -> CocoSemanticConfig:
    """Write two images, one with all of BOXES and a crowd of cats and one without objects; the file has all of
    COCO's classes."""
    (folder / "images").mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(folder / "images" / f"{number}.png")
    shapes = [(name, box, box_polygon(*box), 0) for name, box in BOXES]
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, 20 * HEIGHT, (WIDTH - 20) * HEIGHT]}
    shapes.append(("cat", CROWD, runs, 1))
    annotations = [
        {
            "id": number, "image_id": 1, "category_id": COCO_CLASSES.index(name) + 1, "bbox": list(box),
            "area": box[2] * box[3], "iscrowd": crowd, "segmentation": segmentation,
        }
        for number, (name, box, segmentation, crowd) in enumerate(shapes, start=1)
    ]  # fmt: skip
    content = {
        "images": [{"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH} for number in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(COCO_CLASSES, start=1)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return CocoSemanticConfig(images=folder / "images", annotations=folder / "annotations.json")


def open_coco(folder: Path, **changes) -> CocoSemantic:
    return CocoSemantic("error", write_coco(folder).replace(**changes))


def bitmaps(class_names) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of the first image, the crowd last, and their labels, for the objects whose class is given."""
    masks, labels = [], []
    for name, (x, y, width, height) in (*BOXES, ("cat", CROWD)):
        if name in class_names:
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[y : y + height, x : x + width] = 1
            masks.append(mask)
            labels.append(class_names.index(name))
    return np.stack(masks), np.array(labels, np.uint8)


@pytest.mark.parametrize("categories", ["all", "voc"])
def test_objects_are_merged_as_in_torchvision(categories, tmp_path):
    """Oracle: the rule of coco_utils.py in torchvision's references: the maximum of mask times class, and 255 where
    masks, crowds included, overlap."""
    dataset = open_coco(tmp_path, categories=categories)
    masks, labels = bitmaps(dataset.class_names)
    expected = (masks * labels[:, None, None]).max(axis=0)
    expected[masks.sum(axis=0) > 1] = 255
    np.testing.assert_array_equal(dataset.read(0).semantic, expected)
    np.testing.assert_array_equal(dataset.ground_truth()[1], expected)
    assert not dataset.read(1).semantic.any() and len(dataset) == 2


def test_voc_classes_have_torchvisions_category_ids(tmp_path):
    """Oracle: torchvision's list of the category ids of VOC's classes, background first. With all categories: the 80 of
    the file."""
    published = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
    config = write_coco(tmp_path)
    content = json.loads(config.annotations.read_text())
    skipped = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
    official = [number for number in range(1, 91) if number not in skipped]
    names = dict(zip(official, COCO_CLASSES, strict=True))
    content["categories"] = [{"id": number, "name": name} for number, name in names.items()]
    content["annotations"] = []
    config.annotations.write_text(json.dumps(content))
    voc = CocoSemantic("error", config.replace(categories="voc"))
    assert voc.category_ids == published and voc.class_names == VOC_21 == voc.config.classes()
    everything = CocoSemantic("error", config)
    assert everything.class_names == ("background", *COCO_CLASSES) and everything.category_ids == (0, *official)


def test_overlap_and_crowd_options(tmp_path):
    """By hand: pixels where two cats overlap, where a cat and the dog do, and where there is only the crowd."""
    cat, dog, none, unknown = (VOC_21.index("cat"), VOC_21.index("dog"), 0, 255)
    places = {"two cats": (45, 22), "cat and dog": (22, 45), "dog alone": (22, 60), "crowd": (5, 5), "both": (45, 12)}
    expected = {
        ("ignore", "class"): (unknown, unknown, dog, cat, unknown),
        ("ignore_other_class", "class"): (cat, unknown, dog, cat, cat),
        ("smallest", "class"): (cat, dog, dog, cat, cat),
        ("ignore", "ignore"): (unknown, unknown, dog, unknown, cat),
    }
    for number, ((overlap, crowd), values) in enumerate(expected.items()):
        labels = open_coco(tmp_path / str(number), categories="voc", overlap=overlap, crowd=crowd).read(0).semantic
        assert [labels[place].item() for place in places.values()] == list(values), (overlap, crowd)
        assert labels[55, 85] == none  # VOC has no class toaster


def test_min_pixels_leaves_out_images_with_few_object_pixels(tmp_path):
    """By hand: torchvision trains on images with more than 1000 pixels of objects; the others are counted."""
    dataset = open_coco(tmp_path / "a", min_pixels=1000)
    assert dataset.image_ids == [1]
    assert dataset.report.as_json()["skipped"]["images"] == {"few-pixels": {"count": 1, "ids": [2]}}
    with pytest.raises(DataError, match=r"empty-dataset: .*2 few-pixels"):
        open_coco(tmp_path / "b", min_pixels=10**6)


def test_background_id_is_unique_when_a_category_has_id_zero(tmp_path):
    """docs/faults.md row 17. By hand: ids in the results stay unique."""
    config = write_coco(tmp_path)
    content = json.loads(config.annotations.read_text())
    content["categories"][0]["id"] = 0
    config.annotations.write_text(json.dumps(content))
    assert CocoSemantic("error", config).category_ids[:2] == (81, 0)


@pytest.mark.parametrize("box", [[10, 10, 40, 0], [500, 500, 1, 1], "none", ...])
def test_semantic_maps_do_not_depend_on_boxes(box, tmp_path):
    """Law: the maps are the same whatever the box of an object is. Two objects of train2017 have a mask and a box of
    height 0."""
    config = write_coco(tmp_path)
    expected = CocoSemantic("error", config).read(0).semantic
    data = json.loads(config.annotations.read_text())
    if box is ...:
        del data["annotations"][0]["bbox"]
    else:
        data["annotations"][0]["bbox"] = box
    config.annotations.write_text(json.dumps(data))
    dataset = CocoSemantic("error", config)
    np.testing.assert_array_equal(dataset.read(0).semantic, expected)
    assert dataset.report.used("annotations") == len(data["annotations"])
