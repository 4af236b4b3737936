"""Folders of classes: torchvision's reading of the same folder, and what each fault gets."""

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
    """Six small images of three classes."""
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


def test_it_reads_what_torchvision_reads(root):
    """torchvision.datasets.ImageFolder: the same classes, files, labels and pixels in the same order."""
    ours, theirs = open_folder(root), Peer(str(root))
    assert ours.class_names == tuple(theirs.classes) == ("ant", "cat", "dog")
    assert len(ours) == len(theirs) == 6
    for index, (path, label) in enumerate(theirs.samples):
        record = ours.read(index)
        assert Path(record.file) == Path(path) and record.label == label
        np.testing.assert_array_equal(record.image, np.asarray(theirs.loader(path)))
    assert ours.ground_truth() == {str(Path(path).relative_to(root)): label for path, label in theirs.samples}
    assert ours.image_ids == list(ours.ground_truth())


def test_some_of_the_classes_in_an_order_of_ones_own(root):
    """Labels follow the names; images of other classes are left out by choice and counted."""
    dataset = open_folder(root, class_names=("dog", "ant"))
    assert dataset.ground_truth() == {"ant/1.png": 1, "dog/a.png": 0, "dog/z.bmp": 0}
    report = dataset.report.as_json()
    assert report["skipped"]["images"]["other-class"]["count"] == 3
    assert report["totals"] == {"images": {"read": 6, "used": 3, "skipped": 3}}
    with pytest.raises(UsageError, match="another order"):
        require_same_classes(dataset.classes, open_folder(root, class_names=("ant", "dog")).classes)


def test_a_subset_is_spread_over_all(root):
    """Hand-made: every second of the six; more than there are is all."""
    assert open_folder(root, subset=3).image_ids == ["ant/1.png", "cat/b.png", "dog/a.png"]
    assert len(open_folder(root, subset=99)) == 6


def test_a_class_that_a_subset_leaves_out_is_noted(root):
    """Hand-made: of every third image there is no dog."""
    dataset = open_folder(root, subset=2)
    assert dataset.image_ids == ["ant/1.png", "cat/more/deep/c.png"]
    assert dataset.report.as_json()["noted"] == {"empty-class": {"count": 1, "ids": ["dog"]}}


def test_one_class_alone_is_warned_of(root):
    """A classifier of one class has loss 0 from the first step."""
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
def test_a_class_named_twice_is_refused(config):
    """Labels would shift: whoever reads it from a config gets exit code 2, naming it."""
    with pytest.raises(ValueError, match="these classes are named twice: ant"):
        DATASETS.resolve({**config, "class_names": ["ant", "bee", "ant"]})


def test_links_to_folders_are_followed(root, tmp_path):
    """As torchvision does: class folders often lie on another disk."""
    (tmp_path / "elsewhere").mkdir()
    shutil.move(root / "dog", tmp_path / "elsewhere" / "dog")
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    assert len(open_folder(root)) == 6


@pytest.mark.parametrize(
    ("link", "target", "noted"),
    [("ant/loop", "..", "ant/loop"), ("cat/more/up", "..", "cat/more/up"), ("dog/out", "../..", "dog/out/photos")],
)
def test_a_link_that_leads_back_is_not_followed(root, link, target, noted):
    """Hand-made: six images stay six, each with the label of its own folder; the loop is noted."""
    before = open_folder(root).ground_truth()
    (root / link).symlink_to(target)
    dataset = open_folder(root)
    assert dataset.ground_truth() == before
    assert dataset.report.as_json()["noted"] == {"link-loop": {"count": 1, "ids": [noted]}}


def test_it_is_known_by_name(root):
    """The registry builds it from plain data; without names its classes are in its files."""
    config = DATASETS.resolve({"name": "image_folder", "root": str(root)})
    assert len(build_dataset(config)) == 6
    with pytest.raises(UsageError, match="the classes of image_folder are in its files"):
        config.classes()


def add(name: str, content: bytes = b""):
    """A further file."""

    def spoil(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return spoil


def cut(name: str):
    """A file that ends half way."""
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[: (root / name).stat().st_size // 2])


# name: (what is done to the valid folder, case, file named, what the line says)
BAD_IMAGES = {
    "cut": (cut("dog/a.png"), "damaged-image", "dog/a.png", "damaged"),
    "empty": (add("dog/a.png"), "not-an-image", "dog/a.png", "not an image file"),
    "a page": (add("cat/new.jpg", b"<html>"), "not-an-image", "cat/new.jpg", "not an image file"),
    "in no class": (add("new.jpg", b"x"), "no-class", "new.jpg", "lies in no class folder: move it into one"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_stops_or_is_skipped_and_counted(name, root):
    """docs/faults.md rows 62, 65 and images in no class folder: exit code 3 naming the file; skipped, it is in the
    report."""
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
    "other files": (add("cat/notes.txt"), "stray-file", "cat/notes.txt"),
    "a file beside the classes": (add("README"), "stray-file", "README"),
    "an endless jpeg": (None, "jpeg-without-end", "cat/a.JPEG"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_oddity_is_counted(name, root):
    """docs/faults.md row 64 and stray files: no fault under the strict policy, one note."""
    spoil, note, file = ODD[name]
    if spoil is None:
        (root / file).write_bytes((root / file).read_bytes()[:-2])
    else:
        spoil(root)
    dataset = open_folder(root)
    assert dataset.report.as_json()["noted"] == {note: {"count": 1, "ids": [file]}}
    assert len(dataset) == 6


def test_hidden_folders_are_no_classes(root):
    """What editors and notebooks leave behind."""
    add(".ipynb_checkpoints/a.png", b"x")(root)
    add("cat/.trash/a.png", b"x")(root)
    assert open_folder(root).class_names == ("ant", "cat", "dog") and len(open_folder(root)) == 6


def test_a_class_without_images(root):
    """Exit code 3 naming the folder; under skip it is a class still, and noted."""
    (root / "bee").mkdir()
    with pytest.raises(DataError, match=r"empty-class: .*bee: there is no image .*class_names") as caught:
        open_folder(root)
    assert caught.value.exit_code == 3
    dataset = open_folder(root, "skip")
    assert dataset.class_names == ("ant", "bee", "cat", "dog")
    assert dataset.report.as_json()["noted"] == {"empty-class": {"count": 1, "ids": ["bee"]}}


def test_what_is_no_data_set_stops_under_either_policy(root, tmp_path):
    """docs/faults.md rows 23, 24: exit code 3, naming the path."""
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


def test_a_misspelt_class_names_the_nearest(root):
    """docs/faults.md row 21: exit code 2."""
    with pytest.raises(UsageError, match=r"there is no class folder 'dgo': did you mean 'dog'\?") as caught:
        open_folder(root, class_names=("cat", "dgo"))
    assert caught.value.exit_code == 2


def test_odd_names_work(root):
    """docs/faults.md row 80: line breaks, spaces and other alphabets; errors stay one line."""
    names = ("two\nlines.png", "größe 日本.png", "a b.png")
    for name in names:
        shutil.copy(root / "dog" / "a.png", root / "dog" / name)
    dataset = open_folder(root)
    assert {f"dog/{name}" for name in names} <= set(dataset.image_ids)
    assert all(dataset.read(index).image.shape == (12, 16, 3) for index in range(len(dataset)))


def test_workers_share_arrays_and_nothing_else(root):
    """Memory stays flat: what reading an image touches is arrays, which a fork shares."""
    dataset = open_folder(root)
    for kept in (dataset._names, dataset._labels):
        assert isinstance(kept, np.ndarray) and kept.dtype != object
