"""Image folders against torchvision's ImageFolder, and the faults of such folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder as Peer

from vertebra.data import DATASETS, ImageFolder, ImageFolderConfig, build_dataset, require_same_classes
from vertebra.structures import DataError, UsageError

IMAGES = {
    "cat": ("b.png", "a.JPEG", "more/deep/c.png"),
    "dog": ("a.png", "z.bmp"),
    "ant": ("1.png",),
}


def write_folder(root: Path) -> Path:
    """Write six small images of three classes."""
    for folder, names in IMAGES.items():
        for number, name in enumerate(names):
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(len(name) + number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def root(tmp_path) -> Path:
    return write_folder(tmp_path / "photos")


def open_folder(root: Path, policy="error", **changes) -> ImageFolder:
    return ImageFolder(policy, ImageFolderConfig(root=root, **changes))


def test_image_folder_equals_torchvisions(root):
    """Oracle: torchvision.datasets.ImageFolder: the same classes, files, labels and pixels in the same order."""
    ours, theirs = open_folder(root), Peer(str(root))
    assert ours.class_names == tuple(theirs.classes) == ("ant", "cat", "dog")
    assert len(ours) == len(theirs) == 6
    for index, (path, label) in enumerate(theirs.samples):
        record = ours.read(index)
        assert Path(record.file) == Path(path) and record.label == label
        np.testing.assert_array_equal(record.image, np.asarray(theirs.loader(path)))
    assert ours.ground_truth() == {str(Path(path).relative_to(root)): label for path, label in theirs.samples}
    assert ours.image_ids == list(ours.ground_truth())


def test_class_names_select_and_order_the_classes(root):
    """By hand: labels follow the given names; images of other classes are left out and counted."""
    dataset = open_folder(root, class_names=("dog", "ant"))
    assert dataset.ground_truth() == {"ant/1.png": 1, "dog/a.png": 0, "dog/z.bmp": 0}
    report = dataset.report.as_json()
    assert report["skipped"]["images"]["other-class"]["count"] == 3
    assert report["totals"] == {"images": {"read": 6, "used": 3, "skipped": 3}}
    with pytest.raises(UsageError, match="another order"):
        require_same_classes(dataset.classes, open_folder(root, class_names=("ant", "dog")).classes)


def test_subset_is_spread_over_all_images(root):
    """By hand: every second of six images; a subset larger than the data set is all of it."""
    assert open_folder(root, subset=3).image_ids == ["ant/1.png", "cat/b.png", "dog/a.png"]
    assert len(open_folder(root, subset=99)) == 6


def test_class_without_images_in_a_subset_is_reported(root):
    """By hand: no dog is among every third image."""
    dataset = open_folder(root, subset=2)
    assert dataset.image_ids == ["ant/1.png", "cat/more/deep/c.png"]
    assert dataset.report.as_json()["noted"] == {"empty-class": {"count": 1, "ids": ["dog"]}}


def test_single_class_gets_a_warning(root):
    """By hand: a classifier of one class has a loss of 0 from the first step."""
    assert "there is only one class" in open_folder(root, class_names=("dog",)).report.summary()
    assert not open_folder(root).report.warnings


@pytest.mark.parametrize(
    "config",
    [
        {"name": "image_folder", "root": "x"},
        {"name": "coco", "images": "x", "annotations": "y"},
    ],
    ids=lambda config: config["name"],
)
def test_duplicate_class_name_is_refused(config):
    """By hand: ValueError, since labels would shift; from a config, exit code 2 with the name."""
    with pytest.raises(ValueError, match="these classes are named twice: ant"):
        DATASETS.resolve({**config, "class_names": ["ant", "bee", "ant"]})


def test_links_to_folders_are_followed(root, tmp_path):
    """By hand: as in torchvision, since class folders are often on another disk."""
    (tmp_path / "elsewhere").mkdir()
    shutil.move(root / "dog", tmp_path / "elsewhere" / "dog")
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    assert len(open_folder(root)) == 6


@pytest.mark.parametrize(
    ("link", "target", "noted"),
    [("ant/loop", "..", "ant/loop"), ("cat/more/up", "..", "cat/more/up"), ("dog/out", "../..", "dog/out/photos")],
)
def test_link_loops_are_not_followed(root, link, target, noted):
    """By hand: six images stay six, each with the label of its own folder; the loop is reported."""
    before = open_folder(root).ground_truth()
    (root / link).symlink_to(target)
    dataset = open_folder(root)
    assert dataset.ground_truth() == before
    assert dataset.report.as_json()["noted"] == {"link-loop": {"count": 1, "ids": [noted]}}


def test_image_folder_is_registered(root):
    """By hand: the registry builds it from plain data; without class names in the config they are read from its
    folders."""
    config = DATASETS.resolve({"name": "image_folder", "root": str(root)})
    assert len(build_dataset(config)) == 6
    with pytest.raises(UsageError, match="the classes of image_folder are in its files"):
        config.classes()


def write_file(name: str, content: bytes = b""):
    """Return a change that writes a file."""

    def spoil(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return spoil


def truncate(name: str):
    """Return a change that cuts a file in half."""
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[: (root / name).stat().st_size // 2])


# name: (how the valid folder is changed, case, file in the message, pattern of the message)
BAD_IMAGES = {
    "truncated": (truncate("dog/a.png"), "damaged-image", "dog/a.png", "damaged"),
    "empty": (write_file("dog/a.png"), "not-an-image", "dog/a.png", "not an image file"),
    "a page": (write_file("cat/new.jpg", b"<html>"), "not-an-image", "cat/new.jpg", "not an image file"),
    "in no class": (write_file("new.jpg", b"x"), "no-class", "new.jpg", "lies in no class folder: move it into one"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_an_error_or_skipped_and_counted(name, root):
    """docs/faults.md rows 62, 65, and images outside class folders. By hand: exit code 3 naming the file; with skip it
    is counted in the report."""
    spoil, case, file, message = BAD_IMAGES[name]
    spoil(root)
    with pytest.raises(DataError, match=rf"{case}: .*{file}: image_id={file}: .*{message}") as caught:
        open_folder(root)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    dataset = open_folder(root, "skip")
    report = dataset.report.as_json()
    assert report["skipped"]["images"] == {case: {"count": 1, "ids": [file]}}
    total = report["totals"]["images"]
    assert total["read"] == total["used"] + 1 and total["used"] == len(dataset) == len(dataset.ground_truth())
    assert file not in dataset.image_ids and all(dataset.read(index).image.size for index in range(len(dataset)))


ODD = {
    "other files": (write_file("cat/notes.txt"), "stray-file", "cat/notes.txt"),
    "a file beside the classes": (write_file("README"), "stray-file", "README"),
    "an endless jpeg": (None, "jpeg-without-end", "cat/a.JPEG"),
}


@pytest.mark.parametrize("name", ODD)
def test_stray_files_and_jpegs_without_end_are_reported(name, root):
    """docs/faults.md row 64, and stray files. By hand: no error, one note in the report."""
    spoil, note, file = ODD[name]
    if spoil is None:
        (root / file).write_bytes((root / file).read_bytes()[:-2])
    else:
        spoil(root)
    dataset = open_folder(root)
    assert dataset.report.as_json()["noted"] == {note: {"count": 1, "ids": [file]}}
    assert len(dataset) == 6


def test_hidden_folders_are_ignored(root):
    """By hand: folders that editors and notebooks leave behind."""
    write_file(".ipynb_checkpoints/a.png", b"x")(root)
    write_file("cat/.trash/a.png", b"x")(root)
    assert open_folder(root).class_names == ("ant", "cat", "dog") and len(open_folder(root)) == 6


def test_empty_class_folder_is_an_error_or_reported(root):
    """By hand: exit code 3 naming the folder; with skip it is still a class, and reported."""
    (root / "bee").mkdir()
    with pytest.raises(DataError, match=r"empty-class: .*bee: there is no image .*class_names") as caught:
        open_folder(root)
    assert caught.value.exit_code == 3
    dataset = open_folder(root, "skip")
    assert dataset.class_names == ("ant", "bee", "cat", "dog")
    assert dataset.report.as_json()["noted"] == {"empty-class": {"count": 1, "ids": ["bee"]}}


def test_folder_without_usable_images_is_an_error_even_with_skip(root, tmp_path):
    """docs/faults.md rows 23, 24. By hand: exit code 3, naming the path."""
    (tmp_path / "empty").mkdir()
    for path in (root / "ant").iterdir():
        path.write_bytes(b"")
    for policy in ("error", "skip"):
        with pytest.raises(DataError, match=r"missing-folder: .*gone: the folder cannot be listed: No such file"):
            open_folder(tmp_path / "gone", policy)
        with pytest.raises(DataError, match=r"missing-folder: .*1\.png: .* Not a directory"):
            open_folder(root / "ant" / "1.png", policy)
        with pytest.raises(DataError, match=r"no-classes: .*empty: there are no class folders"):
            open_folder(tmp_path / "empty", policy)
    with pytest.raises(DataError, match=r"empty-dataset: .*no image is left to use: .*3 .*not-an-image|other-class"):
        open_folder(root, "skip", class_names=("ant",))


def test_folder_of_splits_is_refused(root, tmp_path):
    """docs/faults.md row 183. By hand: the folder above train and val; both would become classes."""
    for split in ("train", "val"):
        shutil.copytree(root, tmp_path / "splits" / split)
    with pytest.raises(UsageError, match=r"folders are train and val, which are parts .*: give .*splits/train"):
        open_folder(tmp_path / "splits")
    open_folder(tmp_path / "splits" / "train")


def test_misspelt_class_suggests_the_nearest(root):
    """docs/faults.md row 21. By hand: exit code 2."""
    with pytest.raises(UsageError, match=r"there is no class folder 'dgo': did you mean 'dog'\?") as caught:
        open_folder(root, class_names=("cat", "dgo"))
    assert caught.value.exit_code == 2


def test_unusual_file_names_work(root):
    """docs/faults.md row 80. By hand: line breaks, spaces and other alphabets."""
    names = ("two\nlines.png", "größe 日本.png", "a b.png")
    for name in names:
        shutil.copy(root / "dog" / "a.png", root / "dog" / name)
    dataset = open_folder(root)
    assert {f"dog/{name}" for name in names} <= set(dataset.image_ids)
    assert all(dataset.read(index).image.shape == (12, 16, 3) for index in range(len(dataset)))


def test_file_names_and_labels_are_kept_as_arrays(root):
    """By hand: reading an image uses arrays of numbers and bytes only, whose pages forked workers share."""
    dataset = open_folder(root)
    for kept in (dataset._names, dataset._labels):
        assert isinstance(kept, np.ndarray) and kept.dtype != object
