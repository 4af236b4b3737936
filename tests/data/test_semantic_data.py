"""Semantic maps in VOC's layout against torchvision's VOCSegmentation, and the faults of such folders."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCSegmentation as Peer

from vertebra.data import (
    DATASETS,
    VOC_CLASSES,
    VocSegmentation,
    VocSegmentationConfig,
    build_dataset,
)
from vertebra.structures import DataError, UsageError

from ..helpers.tiny_voc_folder import HEIGHT, WIDTH, save_mask, write_voc

VOC_21 = ("background", *VOC_CLASSES)


@pytest.fixture
def root(tmp_path) -> Path:
    return write_voc(tmp_path / "voc")


def open_voc(root: Path, policy="error", **changes) -> VocSegmentation:
    return VocSegmentation(policy, VocSegmentationConfig(**({"root": root, "splits": ("train",)} | changes)))


def test_voc_segmentation_equals_torchvisions(tmp_path):
    """Oracle: torchvision.datasets.VOCSegmentation: the same images, and the class numbers of its palette images."""
    write_voc(tmp_path / "VOCdevkit" / "VOC2012")
    theirs = Peer(str(tmp_path), year="2012", image_set="train")
    ours = open_voc(tmp_path / "VOCdevkit", splits=("VOC2012/train",))
    assert len(ours) == len(theirs) == 3 and ours.class_names == VOC_21 and ours.category_ids == tuple(range(21))
    truth = ours.ground_truth()
    assert list(truth) == ours.image_ids == ["VOC2012/a", "VOC2012/b", "VOC2012/c"]
    for index, image_id in enumerate(ours.image_ids):
        image, mask = theirs[index]
        record = ours.read(index)
        np.testing.assert_array_equal(record.image, np.asarray(image))
        np.testing.assert_array_equal(record.semantic, np.asarray(mask))
        np.testing.assert_array_equal(truth[image_id], np.asarray(mask))
        assert record.image_id == image_id and record.semantic.dtype == np.uint8


def test_generated_semantic_maps_are_read_back(shapes):
    """Law: a map has only classes that the scene's objects have in the COCO file of the same scenes, and its numbers
    begin at 1."""
    dataset = open_voc(shapes.parent / "voc", splits=("val",), background=True)
    boxes = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    names = {category["id"]: category["name"] for category in boxes["categories"]}
    seen = set()
    for index, image in enumerate(boxes["images"]):
        labels = dataset.read(index).semantic
        own = [each for each in boxes["annotations"] if each["image_id"] == image["id"]]
        present = {dataset.class_names[label] for label in np.unique(labels) if label not in (0, 255)}
        assert present <= {names[each["category_id"]] for each in own if not each["iscrowd"]}
        seen |= present
    assert len(seen) > 2 and dataset.class_names[0] == "background" and len(dataset.class_names) == 9


def test_gray_masks_and_masks_in_another_folder(root):
    """By hand: SBD's masks beside VOC's: 8-bit gray contains the class numbers; a palette of 4 bits too."""
    (root / "SegmentationClassAug").mkdir()
    for stem, mode in (("a", "L"), ("b", "L"), ("c", "P")):
        image = Image.fromarray(np.full((HEIGHT, WIDTH), 3, np.uint8), mode="L")
        if mode == "P":
            image.putpalette(bytes(range(48)))
        image.save(root / "SegmentationClassAug" / f"{stem}.png", **({"bits": 4} if mode == "P" else {}))
    dataset = open_voc(root, masks="SegmentationClassAug")
    assert all((dataset.read(index).semantic == 3).all() for index in range(3))


def test_background_must_be_stated(root):
    """By hand: a first class named ``background`` states what 0 means; otherwise the config must."""
    assert open_voc(root, class_names=VOC_21, background=False).class_names == VOC_21
    (root / "class_names.txt").write_text("".join(f"{name}\n" for name in VOC_CLASSES))
    message = r"the first class is 'aeroplane': is 0 in the masks this class, or the background\?.*dataset\.background"
    with pytest.raises(UsageError, match=message) as caught:
        open_voc(root)
    assert caught.value.exit_code == 2
    assert open_voc(root, background=True).class_names == VOC_21
    message = r"mask-value: .*png: image_id=.: the mask has the value 20 .*; if 0 is the background, set .* to true"
    with pytest.raises(DataError, match=message):
        open_voc(root, background=False)


def test_voc_segmentation_is_registered(root):
    """By hand: the registry builds it from plain data; class names in the config are complete without the files."""
    config = DATASETS.resolve({"name": "voc_segmentation", "root": str(root), "splits": ["train"], "subset": 2})
    assert len(build_dataset(config)) == 2
    with pytest.raises(UsageError, match="the classes of voc_segmentation are in its files"):
        config.classes()
    named = VocSegmentationConfig(root=root, splits=("train",), class_names=("sky", "road"), background=True)
    assert named.classes() == ("background", "sky", "road")


def test_ground_truth_maps_are_read_lazily(root):
    """Law: the ground truth has all image ids without reading a map."""
    truth = open_voc(root).ground_truth()
    (root / "SegmentationClass" / "a.png").unlink()
    assert "a" in set(truth) and len(truth) == 3
    with pytest.raises(DataError, match=r"missing-mask: .*does not exist"):
        truth["a"]


def test_ids_and_file_names_are_kept_as_arrays(root):
    """By hand: reading an image uses arrays of numbers and bytes only, whose pages forked workers share."""
    dataset = open_voc(root)
    for kept in (dataset._ids, dataset._files, dataset._masks):
        assert isinstance(kept, np.ndarray) and kept.dtype != object


MASK = "SegmentationClass/a.png"


def saved(mode: str, size: tuple[int, int] = (WIDTH, HEIGHT), **options) -> Callable[[Path], object]:
    """Return a change that saves the mask of image a in another mode, size or format."""
    return lambda root: Image.new(mode, size).save(root / MASK, **options)


def valued(value: int) -> Callable[[Path], object]:
    """Return a change that sets one pixel of the mask of image a to a value."""

    def spoil(root: Path) -> None:
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[5, 7] = value
        save_mask(root / MASK, labels)

    return spoil


# name: (how the mask of image a is changed, case, pattern of the message)
BAD_MASKS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda root: (root / MASK).unlink(), "missing-mask", "has no mask: add it"),
    "colors": (saved("RGB"), "color-mask", r"holds colors \(RGB\), not class numbers: convert each color"),
    "colors with alpha": (saved("RGBA"), "color-mask", r"holds colors \(RGBA\)"),
    "gray with alpha": (saved("LA"), "color-mask", r"holds colors \(gray with transparency\)"),
    "black and white": (saved("1"), "bad-mask-depth", "gray with 1 bits per pixel"),
    "16 bits": (saved("I;16"), "bad-mask-depth", "gray with 16 bits per pixel"),
    "JPEG": (saved("L", format="JPEG"), "not-a-mask", "is not a PNG file: save it as PNG"),
    "empty": (lambda root: (root / MASK).write_bytes(b""), "not-a-mask", "is not a PNG file"),
    "header alone": (
        lambda root: (root / MASK).write_bytes((root / MASK).read_bytes()[:20]),
        "not-a-mask",
        "not a PNG",
    ),
    "cut": (lambda root: (root / MASK).write_bytes((root / MASK).read_bytes()[:2000]), "damaged-mask", "damaged"),
    "other size": (
        saved("P", (WIDTH, 60)),
        "mask-size",
        "the mask is 60x96 .*, its image 64x96: save a mask of",
    ),
    "turned": (saved("P", (HEIGHT, WIDTH)), "mask-size", "is 96x64 .*, its image 64x96: rotate the mask by the image"),
    "a value beyond": (valued(21), "mask-value", r"the value 21 \(row 5, column 7\), .* the 21 classes \(0\.\.20\)"),
    "a value before 255": (valued(254), "mask-value", "the value 254"),
    "image missing": (lambda root: (root / "JPEGImages/a.jpg").unlink(), "missing-image", "no such .jpg"),
    "image damaged": (lambda root: (root / "JPEGImages/a.jpg").write_bytes(b"x"), "not-an-image", "not an image file"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_bad_mask_is_an_error_or_skipped_and_counted(name, root):
    """docs/faults.md row 41. By hand: exit code 3 naming file and image, before training; with skip it is counted in
    the report."""
    spoil, case, message = BAD_MASKS[name]
    spoil(root)
    with pytest.raises(DataError, match=rf"{case}: .*a.*: image_id=a: .*{message}") as caught:
        open_voc(root)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    dataset = open_voc(root, "skip")
    assert dataset.image_ids == ["b", "c"]
    assert dataset.report.as_json()["skipped"]["images"] == {case: {"count": 1, "ids": ["a"]}}
    assert dataset.report.as_json()["totals"] == {"images": {"read": 3, "used": 2, "skipped": 1}}


def test_bad_value_in_an_unchecked_mask_is_found_when_read(root):
    """By hand: the pixels of 32 masks are checked before training, those of the others when they are read."""
    stems = [f"{number:03}" for number in range(64)]
    for stem in stems:
        (root / "JPEGImages" / f"{stem}.jpg").hardlink_to(root / "JPEGImages" / "a.jpg")
        save_mask(root / "SegmentationClass" / f"{stem}.png", np.full((HEIGHT, WIDTH), 20 + (stem == "001")))
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(stems))
    dataset = open_voc(root)
    assert (dataset.read(0).semantic == 20).all()
    with pytest.raises(DataError, match=r"mask-value: .*001\.png: image_id=001: the mask has the value 21"):
        dataset.read(1)


def test_empty_data_set_after_skipping_is_an_error_with_reasons(root):
    """docs/faults.md row 24. By hand: exit code 3 with the counts by reason."""
    for path in (root / "SegmentationClass").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"empty-dataset: .*skipped images: 3 missing-mask"):
        open_voc(root, "skip")
