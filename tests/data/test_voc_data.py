"""PASCAL VOC boxes against torchvision's VOCDetection, generated scenes read back, and conventions by hand."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCDetection as Peer

from vertebra.data import (
    DATASETS,
    VOC_CLASSES,
    CocoConfig,
    CocoDataset,
    VocConfig,
    VocDetection,
    VocSegmentation,
    VocSegmentationConfig,
    build_dataset,
)
from vertebra.evaluation import evaluate_coco, evaluate_voc
from vertebra.structures import UsageError

from ..helpers.tiny_coco_file import totals_add_up
from ..helpers.tiny_voc_folder import to_xml, write_voc


def open_voc(root: Path, policy="error", **changes) -> VocDetection:
    return VocDetection(policy, VocConfig(**({"root": root, "splits": ("train",)} | changes)))


def test_folder_without_lists(root):
    """By hand: without splits, the images are those with an annotation file or a mask, in the order of their names."""
    shutil.rmtree(root / "ImageSets")
    (root / "Annotations" / "b.xml").unlink()
    assert open_voc(root, splits=()).image_ids == ["a", "c"]
    masks = VocSegmentation("error", VocSegmentationConfig(root=root, splits=()))
    assert masks.image_ids == ["a", "b", "c"]


@pytest.fixture
def root(tmp_path) -> Path:
    return write_voc(tmp_path / "voc")


def test_voc_detection_equals_torchvisions(tmp_path):
    """Oracle: torchvision.datasets.VOCDetection: the same images and objects. Its boxes are the numbers of the file,
    1 more at x1 and y1."""
    write_voc(tmp_path / "VOCdevkit" / "VOC2012")
    theirs = Peer(str(tmp_path), year="2012", image_set="train")
    ours = open_voc(tmp_path / "VOCdevkit", splits=("VOC2012/train",), use_difficult=True)
    assert len(ours) == len(theirs) == 3 and ours.class_names == VOC_CLASSES
    for index in range(3):
        image, annotation = theirs[index]
        record = ours.read(index)
        np.testing.assert_array_equal(record.image, np.asarray(image))
        objects = annotation["annotation"].get("object", [])
        assert [VOC_CLASSES[label] for label in record.objects.labels] == [each["name"] for each in objects]
        for box, each in zip(record.objects.boxes.tolist(), objects, strict=True):
            x1, y1, x2, y2 = (float(each["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
            assert box == [x1 - 1, y1 - 1, x2, y2]


@pytest.mark.parametrize("split", ["train", "val"])
def test_voc_boxes_equal_coco_boxes_of_the_same_scenes(split, shapes):
    """docs/faults.md row 88. Oracle: COCO's file of the same scenes; VOC's boxes count from 1 and include both ends."""
    coco = CocoDataset(
        "error",
        CocoConfig(images=shapes / split, annotations=shapes / "annotations" / f"instances_{split}.json"),
    )
    voc = open_voc(shapes.parent / "voc", splits=(split,), use_difficult=True)
    assert voc.class_names == coco.class_names and len(voc) == len(coco)
    for index in range(len(voc)):
        ours, theirs = voc.read(index).objects, coco.read(index).objects
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    entries = [each for each in coco.ground_truth()["annotations"] if not each["iscrowd"]]
    assert [each["bbox"] for each in voc.ground_truth()["annotations"]] == [each["bbox"] for each in entries]


def test_one_pixel_is_a_box_of_one_by_one(root):
    """docs/faults.md row 86. By hand: from pixel 20 to pixel 20; coordinates with fractions are kept."""
    dataset = open_voc(root)
    assert dataset.read(0).objects.boxes.tolist() == [[10, 10, 30, 40], [40.5, 8, 70, 38]]
    assert dataset.read(1).objects.boxes.tolist() == [[19, 19, 20, 20]]
    assert [VOC_CLASSES[label] for label in dataset.read(0).objects.labels] == ["cat", "dog"]


def test_difficult_objects_are_ignored_unless_use_difficult(root):
    """By hand: the dog of image b; it is reported in both cases."""
    without, with_them = open_voc(root), open_voc(root, use_difficult=True)
    assert without.read(1).objects.ignored.tolist() == [[0, 0, 96, 64]]
    assert with_them.read(1).objects.boxes.tolist() == [[0, 0, 96, 64], [19, 19, 20, 20]]
    assert with_them.read(1).objects.ignored.shape == (0, 4)
    for dataset in (without, with_them):
        assert dataset.report.as_json()["noted"]["difficult"] == {"count": 1, "ids": ["b#1"]}
        assert [each["difficult"] for each in dataset.ground_truth()["annotations"]] == [0, 0, 1, 0]


def test_ground_truth_is_in_coco_format(root):
    """By hand: annotated boxes, VOC's own class numbers, image sizes."""
    truth = open_voc(root).ground_truth()
    assert truth["images"][0] == {"id": "a", "file_name": "a.jpg", "height": 64, "width": 96}
    assert truth["annotations"][2] == {
        "id": 3, "image_id": "b", "category_id": 12, "bbox": [0, 0, 96, 64], "area": 6144,
        "iscrowd": 1, "difficult": 1,
    }  # fmt: skip
    assert {"id": 12, "name": "dog"} in truth["categories"] and len(truth["categories"]) == 20


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_difficult_objects_in_voc_and_coco_scores(engine, root):
    """By hand: missing the difficult dog costs nothing, and neither does finding it. A small box inside it is a
    false positive for VOC, but not for COCO, which can ignore an object only as a crowd."""
    truth = open_voc(root).ground_truth()
    found = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "bbox": each["bbox"], "score": 0.5}
        for each in truth["annotations"]
    ]
    easy = [each for each in found if each["bbox"] != [0, 0, 96, 64]]
    inside = {"image_id": "b", "category_id": 12, "bbox": [5.0, 5.0, 20.0, 20.0], "score": 0.9}
    for results, expected_voc in ((easy, 1.0), (found, 1.0), ([inside, *easy], (1 + 0.5 + 1) / 3)):
        assert evaluate_coco(truth, results, engine).summary["AP50"] == pytest.approx(1.0)
        assert evaluate_voc(truth, results).summary["AP50"] == pytest.approx(expected_voc)


def test_splits_of_several_years(tmp_path):
    """By hand: 07+12: the folder is part of the image id, so that equal file names do not clash; each list belongs
    to its own folder."""
    for year in ("VOC2007", "VOC2012"):
        write_voc(tmp_path / year)
    dataset = open_voc(tmp_path, splits=("VOC2007/train", "VOC2012/train"))
    assert dataset.image_ids == ["VOC2007/a", "VOC2007/b", "VOC2007/c", "VOC2012/a", "VOC2012/b", "VOC2012/c"]
    assert dataset.read(3).file == str(tmp_path / "VOC2012" / "JPEGImages" / "a.jpg")
    assert len({each["image_id"] for each in dataset.ground_truth()["annotations"]}) == 4
    assert totals_add_up(dataset.report) and dataset.report.used("annotations") == 8


def test_image_listed_twice_is_used_once(root):
    """By hand: twice in one list, or in two lists of the same folder; it is reported."""
    (root / "ImageSets" / "Main" / "more.txt").write_text("c\na\nc\n")
    dataset = open_voc(root, splits=("train", "more"))
    assert dataset.image_ids == ["a", "b", "c"]
    assert dataset.report.as_json()["noted"]["listed-twice"] == {"count": 3, "ids": ["c", "a", "c"]}


def test_whitespace_in_image_lists_is_trimmed(root):
    """docs/faults.md row 91. By hand: a byte order mark, CRLF, blank lines and spaces."""
    content = b"\xef\xbb\xbfb\r\n\r\n  \r\n a \r\n"
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(content)
    assert open_voc(root).image_ids == ["b", "a"]


@pytest.mark.parametrize("suffix", [".jpeg", ".png", ".JPG"])
def test_image_is_found_by_its_stem(suffix, root):
    """By hand: whatever suffix the file has, and whatever file name the annotation states."""
    path = root / "JPEGImages" / "a.jpg"
    Image.open(path).save(path.with_suffix(".png"))
    if suffix == ".png":
        path.unlink()
    else:
        path.with_suffix(".png").unlink()
        path.rename(path.with_suffix(suffix))
    dataset = open_voc(root)
    assert Path(dataset.read(0).file).name == f"a{suffix}"
    assert dataset.ground_truth()["images"][0]["file_name"] == f"a{suffix}"


@pytest.mark.parametrize(
    "size", ["", "<size><width>0</width><height>0</height></size>", "<size><width>a</width></size>"]
)
def test_missing_size_is_read_from_the_image(size, root):
    """By hand: no size, zeros as some tools write them, and a size without a height; it is reported."""
    (root / "Annotations" / "a.xml").write_text(to_xml([("cat", (11, 11, 200, 40), 0)], size))
    dataset = open_voc(root)
    assert dataset.report.as_json()["noted"]["size-from-image"] == {"count": 1, "ids": ["a"]}
    assert dataset.read(0).objects.boxes.tolist() == [[10, 10, 96, 40]]
    assert dataset.ground_truth()["images"][0]["width"] == 96


def test_missing_difficult_and_truncated_are_0(root):
    """docs/faults.md row 89. By hand: both objects are used."""
    path = root / "Annotations" / "b.xml"
    text = path.read_text()
    path.write_text(text.replace("<difficult>1</difficult>", "").replace("<truncated>0</truncated>", ""))
    assert len(open_voc(root).read(1).objects.boxes) == 2


def test_class_names_select_some_of_vocs_classes(root):
    """By hand: objects of other classes are left out and counted; category ids stay VOC's."""
    dataset = open_voc(root, class_names=("person", "cat"))
    assert dataset.class_names == ("person", "cat") and dataset.category_ids == (15, 8)
    assert dataset.read(0).objects.labels.tolist() == [1]
    assert dataset.report.as_json()["skipped"]["annotations"]["other-class"] == {"count": 2, "ids": ["a#2", "b#1"]}
    assert totals_add_up(dataset.report)


def test_class_names_file_and_custom_classes(root):
    """By hand: class names from a file, apart from a background in it, or from the config if there is no file."""
    (root / "class_names.txt").write_text("background\nperson\ndog\ncat\n")
    assert open_voc(root).class_names == ("person", "dog", "cat")
    assert open_voc(root, class_names=("dog",)).category_ids == (2,)
    with pytest.raises(UsageError, match=r"no class 'dgo' in class_names\.txt: did you mean 'dog'\?") as caught:
        open_voc(root, class_names=("dgo",))
    assert caught.value.exit_code == 2
    (root / "class_names.txt").unlink()
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("cat", "unicorn"))
    dataset = open_voc(root, class_names=("unicorn", "dog", "person", "dragon"))
    assert dataset.category_ids == (1, 2, 3, 4) and dataset.read(0).objects.labels.tolist() == [0, 1]
    assert dataset.report.as_json()["noted"]["class-without-objects"] == {"count": 1, "ids": ["dragon"]}


def test_subset_takes_the_first_images(root):
    """By hand: of the images and of the ground truth alike."""
    dataset = open_voc(root, subset=1)
    assert dataset.image_ids == ["a"] and len(dataset.ground_truth()["annotations"]) == 2
    assert dataset.report.as_json()["totals"]["images"] == {"read": 1, "used": 1, "skipped": 0}


def test_voc_is_registered(root):
    """By hand: the registry builds it from plain data, with the metrics that it is scored by."""
    config = DATASETS.resolve({"name": "voc", "root": str(root), "splits": ["train"], "metrics": ["voc07", "coco"]})
    dataset = build_dataset(config)
    assert len(dataset) == 3 and dataset.metrics == ("voc07", "coco")
    with pytest.raises(UsageError, match="the classes of voc are in its files"):
        config.classes()


def test_unusual_file_names_work(root):
    """docs/faults.md row 80. By hand: spaces, dots, folders and other alphabets."""
    names = ("größe 日本", "a b", "v1.0", "deep/er")
    (root / "JPEGImages" / "deep").mkdir()
    (root / "Annotations" / "deep").mkdir()
    for name in names:
        shutil.copy(root / "JPEGImages" / "a.jpg", root / "JPEGImages" / f"{name}.jpg")
        shutil.copy(root / "Annotations" / "a.xml", root / "Annotations" / f"{name}.xml")
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names), encoding="utf-8")
    dataset = open_voc(root)
    assert dataset.image_ids == list(names) and [dataset.read(index).image_id for index in range(4)] == list(names)


def test_annotations_are_kept_as_arrays(root):
    """By hand: reading an image uses arrays of numbers and bytes only, whose pages forked workers share."""
    dataset = open_voc(root)
    table = dataset._objects
    for kept in (dataset._ids, dataset._files, table.starts, table.boxes, table.labels, table.difficult):
        assert isinstance(kept, np.ndarray) and kept.dtype != object


@pytest.mark.parametrize(
    ("corners", "box"),
    [("inclusive", [10, 10, 20, 30]), ("continuous", [11, 11, 19, 29]), ("shifted", [10, 10, 19, 29])],
)
def test_conventions_of_corners(corners, box, tmp_path):
    """By hand: the corners 11, 11, 30, 40 as VOC's kit, as labelImg and as MMDetection mean them."""
    config = VocConfig(
        root=write_voc(tmp_path), splits=("train",), class_names=("cat", "dog", "person"), corners=corners
    )
    assert build_dataset(config).ground_truth()["annotations"][0]["bbox"] == box
