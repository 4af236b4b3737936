"""YOLO data sets, in the layouts that docs.ultralytics.com/datasets, Roboflow and Darknet describe."""

import pickle

import hotcoco
import numpy as np
import pytest

from vertebra.data import AnnotatedImagesConfig, DataPath, HashSplitConfig, pair_from_paths
from vertebra.data.coco_format import opening
from vertebra.structures import DataError, UsageError

from ..helpers.labeled_images import objects_of, open_labels, write_images, write_text


def write_yolo(root, labels="0 0.25 0.5 0.25 0.5\n1 0.5 0.5 1 1\n", **more):
    """Write two splits, with images of 80 x 48; ``labels`` are those of the first training image."""
    write_images(root, "images/train/a.png", "images/train/b.png", "images/val/c.png")
    write_text(root / "labels/train/a.txt", labels)
    write_text(root / "labels/val/c.txt", "1 0.1 0.1 0.1 0.1")
    text = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
    write_text(root / "data.yaml", text + more.get("yaml", ""))
    return root


def test_boxes_are_fractions_of_the_image(tmp_path):
    """By hand: a center of (0.25, 0.5) and a size of (0.25, 0.5) in 80 x 48 pixels."""
    dataset = open_labels(write_yolo(tmp_path), "yolo", split="train")
    assert objects_of(dataset) == {
        "images/train/a.png": [("cat", [10, 12, 30, 36]), ("dog", [0, 0, 80, 48])],
        "images/train/b.png": [],
    }
    assert dataset.class_names == ("cat", "dog") and dataset.category_ids == (0, 1)
    assert dataset.report.as_json()["noted"]["image-without-labels"]["ids"] == ["images/train/b.png"]


def test_boxes_equal_those_of_another_reader(tmp_path):
    """Oracle: hotcoco's ``from_yolo``, for random boxes of many digits."""
    generator = np.random.default_rng(0)
    sizes = generator.uniform(0.01, 0.5, (50, 2))
    centers = generator.uniform(sizes / 2, 1 - sizes / 2)
    rows = np.concatenate([centers, sizes], axis=1)
    lines = [f"{number % 2} " + " ".join(map(repr, map(float, row))) for number, row in enumerate(rows)]
    root = write_yolo(tmp_path, "\n".join(lines))
    write_text(root / "labels/train/data.yaml", "names: [cat, dog]\n")
    other = hotcoco.COCO.from_yolo(str(root / "labels/train"), str(root / "images/train"))
    expected = [entry["bbox"] for entry in other.dataset["annotations"]]
    found = [entry["bbox"] for entry in open_labels(root, "yolo", split="train").ground_truth()["annotations"]]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_names_are_texts(tmp_path):
    """By hand: class names that YAML would read as a boolean or a number."""
    root = write_yolo(tmp_path, "1 0.5 0.5 0.5 0.5")
    write_text(root / "data.yaml", "train: images/train\ntest: null\nnames: {0: no, 1: 007}\n")
    assert open_labels(root, "yolo", split="train").class_names == ("no", "007")


def test_polygon_line_has_a_mask_and_its_enclosing_box(tmp_path):
    """By hand: the left upper quarter as a polygon."""
    root = write_yolo(tmp_path, "1 0 0 0.5 0 0.5 0.5 0 0.5\n")
    dataset = open_labels(root, "yolo", split="train", masks=True)
    assert objects_of(dataset)["images/train/a.png"] == [("dog", [0, 0, 40, 24])]
    masks = dataset.read(0).objects.masks
    assert masks is not None and masks[0].astype(bool).sum() == 40 * 24 and masks[0][:24, :40].all()


def test_keypoint_lines(tmp_path):
    """By hand: two keypoints with visibility, one of them unlabeled."""
    root = write_yolo(tmp_path, "0 0.5 0.5 0.5 0.5 0.25 0.5 2 0 0 0\n", yaml="kpt_shape: [2, 3]\n")
    dataset = open_labels(root, "yolo", split="train", keypoints={})
    assert dataset.read(0).objects.keypoints.values.tolist() == [[[20, 24, 2], [0, 0, 0]]]


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n",  # as Roboflow writes it
        "path: .\ntrain: train/images\nval: [valid/images]\nnames: [cat, dog]\n",
        "train: train.txt\nval: valid/images\nnames: [cat, dog]\n",
    ],
)
def test_layouts_of_data_yaml(yaml, tmp_path):
    """By hand: folders as Roboflow exports them, a list of folders, and a file that lists the images."""
    write_images(tmp_path, "train/images/a.png", "valid/images/b.png")
    write_text(tmp_path / "train/labels/a.txt", "0 0.5 0.5 0.5 0.5")
    write_text(tmp_path / "valid/labels/b.txt", "1 0.5 0.5 0.5 0.5")
    write_text(tmp_path / "train.txt", "./train/images/a.png\n")
    write_text(tmp_path / "data.yaml", yaml)
    pair = pair_from_paths(DataPath(tmp_path, "detection"))
    assert isinstance(pair.train, AnnotatedImagesConfig) and (pair.train.split, pair.val.split) == ("train", "val")
    assert objects_of(open_labels(tmp_path, "yolo", split="train")) == {
        "train/images/a.png": [("cat", [20, 12, 60, 36])]
    }
    assert objects_of(open_labels(tmp_path, "yolo", split="val")) == {"valid/images/b.png": [("dog", [20, 12, 60, 36])]}


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), (".", "."), ("obj_train_data", "obj_train_data")])
def test_folders_without_data_yaml(images, labels, tmp_path):
    """By hand: classes.txt names the classes; without splits a fifth of the images are kept for validation."""
    write_images(tmp_path / images, "a.png", "b.png")
    write_text(tmp_path / labels / "a.txt", "1 0.5 0.5 0.5 0.5")
    write_text(tmp_path / ("obj.names" if images == "obj_train_data" else "classes.txt"), "cat\ndog\n")
    pair = pair_from_paths(DataPath(tmp_path, "detection"))
    assert isinstance(pair.train, HashSplitConfig) and pair.train.dataset.format == "yolo"
    found = objects_of(open_labels(tmp_path, "yolo"))
    assert sorted(map(len, found.values())) == [0, 1]


def test_splits_of_darknet(tmp_path):
    """By hand: ``obj_train_data`` and ``obj_val_data`` with ``obj.names``, as Datumaro and CVAT export them."""
    write_images(tmp_path, "obj_train_data/a.png", "obj_val_data/b.png")
    write_text(tmp_path / "obj_train_data/a.txt", "1 0.5 0.5 0.5 0.5")
    write_text(tmp_path / "obj.names", "cat\ndog\n")
    pair = pair_from_paths(DataPath(tmp_path, "detection"))
    assert (pair.train.split, pair.val.split) == ("train", "val")
    assert objects_of(open_labels(tmp_path, "yolo", split="val")) == {"obj_val_data/b.png": []}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", r"unknown-category: .*a\.txt: .*ann_id=line 1: has the class 2.*0 to 1"),
        ("0 0.5 0.5 0.1", r"bad-line: .*a\.txt: .*line 1: has 4 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "bad-line: .*has 6 numbers"),
        ("0 12 30 20 20", "not-normalized: .*outside 0 to 1"),
        ("0 0.5 0.5 0.1 x", "bad-line: .*not a line of numbers"),
        ("0 0.5 0.5 nan 0.1", "not-normalized: .*line 1"),
        ("0 0.5 0.5 0 0.1", r"empty-box: .*a\.txt: image_id=images/train/a\.png: ann_id=line 1"),
        ("0.5 0.5 0.5 0.1 0.1", "unknown-category"),
    ],
)
def test_bad_line_is_an_error_or_skipped_and_counted(line, message, tmp_path):
    """docs/faults.md row 203. By hand: one line that names the file, the image and the line."""
    root = write_yolo(tmp_path, line + "\n1 0.5 0.5 0.5 0.5\n")
    with pytest.raises(DataError, match=message) as caught:
        open_labels(root, "yolo", split="train")
    assert "\n" not in str(caught.value)
    report = open_labels(root, "yolo", "skip", split="train").report.as_json()
    assert report["totals"]["annotations"] == {"read": 2, "used": 1, "skipped": 1}


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [a\n", "not valid YAML"),
        ("train: images/train\n", "no class names"),
        ("names: {0: a, 2: b}\ntrain: images/train\n", "class numbers are not 0, 1, 2"),
        ("names: []\ntrain: images/train\n", "not a list of class names"),
        ("names: [a]\ntrain: images/gone\n", "no such folder for train"),
        ("names: [a]\ntrain: {a: b}\n", "give a folder or a list"),
        ("names: [a]\ntrain: images/train\nkpt_shape: [0]\n", "kpt_shape"),
    ],
)
def test_bad_data_yaml_is_an_error(yaml, message, tmp_path):
    """docs/faults.md row 204. By hand: also with ``--bad-data=skip``."""
    root = write_yolo(tmp_path)
    write_text(root / "data.yaml", yaml)
    with pytest.raises(DataError, match=message):
        open_labels(root, "yolo", "skip")


def test_images_outside_the_data_set_need_allow_outside(tmp_path):
    """docs/faults.md row 78. By hand: data.yaml names a folder beside the data set."""
    root = write_yolo(tmp_path / "set")
    write_images(tmp_path, "other/x.png")
    write_text(root / "data.yaml", "names: [cat, dog]\ntrain: ../other\n")
    with pytest.raises(DataError, match="outside-root"):
        open_labels(root, "yolo", split="train")
    assert len(open_labels(root, "yolo", split="train", allow_outside=True)) == 1


def test_data_set_can_be_sent_to_workers(tmp_path):
    """Law: a pickled data set reads the same images and ground truth."""
    dataset = open_labels(write_yolo(tmp_path), "yolo", split="train")
    other = pickle.loads(pickle.dumps(dataset))
    assert other.ground_truth() == dataset.ground_truth()
    assert other.read(0).objects.boxes.tolist() == dataset.read(0).objects.boxes.tolist()


def test_results_of_the_checks_are_cached(tmp_path, monkeypatch):
    """Law: cached annotations equal the first ones, and a changed label file is read again."""
    monkeypatch.setattr(opening, "MIN_CACHED_BYTES", 0)
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    root = write_yolo(tmp_path / "set")
    first, second = (open_labels(root, "yolo", split="train") for _ in range(2))
    assert second.annotations.entry is not None and objects_of(second) == objects_of(first)
    assert second.annotation_digest() == first.annotation_digest()
    assert open_labels(root, "yolo", split="val").image_ids == ["images/val/c.png"]
    write_text(root / "labels/train/a.txt", "0 0.5 0.5 0.5 0.5")
    changed = open_labels(root, "yolo", split="train")
    assert len(changed.annotations.boxes) == 1 and changed.annotation_digest() != first.annotation_digest()


def test_changed_labels_are_noticed(tmp_path):
    """docs/faults.md row 203. Law: the ground truth is that of the labels that were opened."""
    root = write_yolo(tmp_path)
    dataset = open_labels(root, "yolo", split="train")
    write_text(root / "labels/train/a.txt", "0 0.5 0.5 0.5 0.5")
    with pytest.raises(DataError, match="changed-file"):
        dataset.ground_truth()


def test_image_folder_of_a_yolo_data_set_is_refused(tmp_path):
    """docs/faults.md row 157. By hand: the option would have no effect."""
    with pytest.raises(UsageError, match="leave out --images"):
        pair_from_paths(DataPath(write_yolo(tmp_path), "detection", images=tmp_path))
