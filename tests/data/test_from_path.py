"""Data sets given by a path: the format, the image folder, the classes and the validation images that are found."""

import gzip
import shutil
from pathlib import Path

import pytest

from vertebra.data import (
    CocoConfig,
    CocoSemanticConfig,
    DataPath,
    HashSplitConfig,
    VocConfig,
    VocSegmentationConfig,
    build_dataset,
    pair_from_paths,
)
from vertebra.structures import DataError, UsageError

from ..helpers.tiny_coco_file import write_tiny
from ..helpers.tiny_voc_folder import write_voc


def find(path: Path, val: Path | None = None, **options):
    """Return the pair of data sets found at a path, for boxes unless ``task`` says otherwise."""
    return pair_from_paths(DataPath(path, **{"task": "detection", **options}), val)


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations.json", "."),
        ("annotations.json", "images"),
        ("annotations/instances_train.json", "train"),
        ("annotations/train.json", "images"),
        ("annotations/train.json", "images/train"),
        ("train.json", "train"),
    ],
)
def test_image_folder_is_found(file, folder, tmp_path):
    """By hand: images are found in the usual folders beside a COCO file."""
    write_tiny(tmp_path / "made")
    (tmp_path / "data" / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "made" / "annotations.json", tmp_path / "data" / file)
    shutil.copytree(tmp_path / "made" / "images", tmp_path / "data" / folder, dirs_exist_ok=True)
    pair = find(tmp_path / "data" / file)
    assert isinstance(pair.train, HashSplitConfig) and isinstance(pair.train.dataset, CocoConfig)
    assert pair.train.dataset.images == tmp_path / "data" / folder
    assert pair.val == pair.train.replace(part="val") and "20% of the images" in pair.description


def test_missing_images_are_refused_with_the_folders_that_were_tried(tmp_path):
    """docs/faults.md row 157. By hand: one line with the name of an image, the folders and the option."""
    config = write_tiny(tmp_path)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(DataError, match=r"annotations\.json: its first image, '11\.png', is in none of .*--images"):
        find(config.annotations, images=tmp_path / "nowhere")


def test_given_image_folder_goes_first(tmp_path):
    """By hand: for the validation data too, unless their images are elsewhere."""
    config = write_tiny(tmp_path / "train")
    shutil.copytree(tmp_path / "train" / "images", tmp_path / "chosen")
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    pair = find(config.annotations, tmp_path / "val" / "annotations.json", images=tmp_path / "chosen")
    assert pair.train.images == pair.val.images == tmp_path / "chosen"
    (tmp_path / "chosen" / "11.png").rename(tmp_path / "chosen" / "x.png")
    for number in (12, 13, 14):
        (tmp_path / "chosen" / f"{number}.png").unlink()
    pair = find(config.annotations, tmp_path / "val" / "annotations.json", images=tmp_path / "chosen")
    assert pair.val.images == tmp_path / "val" / "images"


def test_coco_file_for_class_maps(tmp_path):
    """By hand: a semantic head gets class maps of the same file."""
    config = write_tiny(tmp_path)
    assert find(config.annotations, task="semantic").train.dataset == CocoSemanticConfig(
        images=config.images, annotations=config.annotations
    )


def write_lists(root: Path, *names: str) -> None:
    """Give a VOC folder the image lists with these names, and no others."""
    shutil.rmtree(root / "ImageSets")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name in names:
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("a\nb\nc\n")


@pytest.mark.parametrize(
    ("lists", "train", "val"),
    [
        (("train", "val", "trainval", "test"), "train", "val"),
        (("trainval", "test", "cat_trainval", "cat_test"), "trainval", "test"),
        (("train", "valid"), "train", "valid"),
    ],
)
def test_lists_of_a_voc_folder_are_its_parts(lists, train, val, tmp_path):
    """By hand: the lists for training and validation, without VOC's lists of single classes."""
    root = write_voc(tmp_path / "voc")
    write_lists(root, *lists)
    pair = find(root)
    assert (pair.train.splits, pair.val.splits) == ((train,), (val,))


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        (("all",), ("all",)),
        (("all", "cat_all"), ("all",)),
        ((), ()),
        (("trainval", "some"), ("trainval",)),
        (("x", "y"), ()),
    ],
)
def test_voc_folder_without_parts_is_divided(lists, splits, tmp_path):
    """By hand: its only list, ``trainval``, or all annotated images; a fifth of them are kept for validation."""
    root = write_voc(tmp_path / "voc")
    write_lists(root, *lists)
    pair = find(root)
    assert isinstance(pair.train, HashSplitConfig) and pair.train.dataset.splits == splits
    assert len(build_dataset(pair.train)) + len(build_dataset(pair.val)) == 3


def test_classes_of_a_voc_folder_are_those_of_its_objects(tmp_path):
    """By hand: sorted, from all annotations; those of class_names.txt go first; an unreadable file is left out."""
    root = write_voc(tmp_path / "voc")
    (root / "Annotations" / "d.xml").write_text("<annotation>")
    assert find(root).train.dataset.class_names == ("cat", "dog", "person")
    (root / "class_names.txt").write_text("person\ndog\ncat\n")
    for text in ("person\ndog\ncat\n", "_background_\nperson\ndog\ncat\n"):  # the second as LabelMe writes it
        (root / "class_names.txt").write_text(text)
        config = find(root).train.dataset
        assert config.class_names is None and build_dataset(config).class_names == ("person", "dog", "cat")


def test_masks_of_a_voc_folder(tmp_path):
    """By hand: a semantic head gets the class maps in SegmentationClass."""
    root = write_voc(tmp_path / "voc")
    assert find(root, task="semantic").train.dataset == VocSegmentationConfig(root=root, splits=("train",))


def test_two_voc_folders(tmp_path):
    """By hand: ``val`` may be another folder, in any format."""
    root, other = write_voc(tmp_path / "voc"), write_voc(tmp_path / "other")
    pair = find(root, other)
    assert pair.train == VocConfig(root=root, splits=("train",), class_names=("cat", "dog", "person"))
    assert pair.val == pair.train.replace(root=other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "gone: there is no such file or folder, but data are a COCO file .* or a VOC folder"),
        ("empty", "this folder is empty"),
        ("folder", r"this folder holds a\.json, b/, but data are"),
        ("file.txt", "this is a file of another type"),
    ],
)
def test_path_without_known_data_is_refused(name, message, tmp_path):
    """docs/faults.md row 156. By hand: one line that says what is there and what was expected."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder" / "b").mkdir(parents=True)
    (tmp_path / "folder" / "a.json").write_text("{}")
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(UsageError, match=message):
        find(tmp_path / name)


def test_image_folder_of_a_voc_folder_is_refused(tmp_path):
    """docs/faults.md row 157. By hand: the option would have no effect."""
    with pytest.raises(UsageError, match=r"are in .*JPEGImages: leave out --images"):
        find(write_voc(tmp_path / "voc"), images=tmp_path)


@pytest.mark.parametrize(
    ("images", "annotations", "parts"),
    [
        (".", ".", ("",)),
        ("images", "annotations", ("",)),
        (".", ".", ("train", "valid")),
        ("images", "xmls", ("train", "test")),
    ],
)
def test_layouts_of_folders_with_voc_files(images, annotations, parts, tmp_path):
    """By hand: XML files beside the images or in a folder, also with a folder per split, as Roboflow exports them."""
    made = write_voc(tmp_path / "made")
    for part in parts:
        for folder, source in ((images, "JPEGImages"), (annotations, "Annotations")):
            shutil.copytree(made / source, tmp_path / "data" / part / folder, dirs_exist_ok=True)
    pair = find(tmp_path / "data")
    config = pair.train if len(parts) == 2 else pair.train.dataset
    assert config == VocConfig(
        root=tmp_path / "data" / parts[0], splits=(), images=images, annotations=annotations,
        class_names=("cat", "dog", "person"),
    )  # fmt: skip
    assert len(build_dataset(config)) == 3 and (len(parts) == 1 or pair.val.root.name == parts[1])


def test_path_that_fits_several_formats_is_refused(tmp_path):
    """docs/faults.md row 156. By hand: one line with the candidates and the option, which then decides."""
    root = write_voc(tmp_path / "voc")
    (root / "data.yaml").write_text("names: [cat, dog, person]\ntrain: JPEGImages\n")
    with pytest.raises(UsageError, match=r"a VOC folder \(voc\) and a YOLO data set \(yolo\): give --data-format voc"):
        find(root)
    assert find(root, format="voc").train.dataset.name == "voc"
    assert find(root, format="yolo").train.dataset.name == "annotated_images"
    with pytest.raises(UsageError, match=r"no data format 'yolov8'.*yolo"):
        find(root, format="yolov8")


@pytest.mark.parametrize(
    ("files", "folders"),
    [
        (("train/_annotations.coco.json", "valid/_annotations.coco.json"), ("train", "valid")),  # as Roboflow exports
        (("annotations/instances_train2017.json", "annotations/instances_val2017.json"), ("train2017", "val2017")),
        (("train.json.gz", "val.json.gz"), ("images", "images")),
        (("labels.json",), ("data",)),  # as FiftyOne exports
        (("result.json",), (".",)),
    ],
)
def test_folders_with_coco_files(files, folders, tmp_path):
    """By hand: the file of each split, or the only file; compressed files too."""
    write_tiny(tmp_path / "made")
    for file, folder in zip(files, folders, strict=True):
        path = tmp_path / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        content = (tmp_path / "made" / "annotations.json").read_bytes()
        path.write_bytes(gzip.compress(content) if file.endswith(".gz") else content)
        shutil.copytree(tmp_path / "made" / "images", tmp_path / "data" / folder, dirs_exist_ok=True)
    pair = find(tmp_path / "data")
    configs = (pair.train, pair.val) if len(files) == 2 else (pair.train.dataset,)
    assert configs == tuple(
        CocoConfig(images=tmp_path / "data" / folder, annotations=tmp_path / "data" / file)
        for file, folder in zip(files, folders, strict=True)
    )
    assert all(len(build_dataset(config)) == 4 for config in configs)


def test_voc_folder_without_boxes_is_refused_for_boxes(tmp_path):
    """docs/faults.md row 156. Symptom: a folder with class maps alone raised AssertionError."""
    root = write_voc(tmp_path / "voc")
    shutil.rmtree(root / "Annotations")
    with pytest.raises(UsageError, match=r"no Annotations/\*\.xml for boxes: choose a model with a semantic head"):
        find(root)
