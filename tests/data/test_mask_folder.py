"""Folders of images and masks: values, colors and sizes as exporters write them, and a mask per object."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebra.data import (
    DataPath,
    HashSplitConfig,
    MaskFolderConfig,
    VocSegmentationConfig,
    build_dataset,
    pair_from_paths,
)
from vertebra.structures import DataError, UsageError

from ..helpers.labeled_images import HEIGHT, WIDTH, objects_of, open_labels, write_images, write_text
from ..helpers.tiny_voc_folder import save_mask, write_voc

LEFT = np.zeros((HEIGHT, WIDTH), np.uint8)
LEFT[:, :20] = 1
LEFT[0] = 255


def save(path: Path, pixels: np.ndarray) -> None:
    """Save a mask, and make the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_masks(root: Path, pixels: np.ndarray, name="{stem}.png") -> MaskFolderConfig:
    """Write two images and their masks, and return the config for two classes."""
    write_images(root / "images", "a.png", "b.png")
    for stem in "ab":
        save(root / "masks" / name.format(stem=stem), pixels)
    return MaskFolderConfig(
        images=root / "images", masks=root / "masks", class_names=("background", "cat"), mask_name=name
    )


COLORS = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
COLORS[LEFT == 1] = (128, 0, 64)
COLORS[LEFT == 255] = (224, 224, 192)


@pytest.mark.parametrize(
    ("pixels", "changes"),
    [
        (LEFT, {}),
        (
            np.where(LEFT == 1, 255, LEFT // 255 * 7).astype(np.uint8),
            {"values": ((0, "background"), (255, "cat")), "ignored": (7,)},
        ),
        (LEFT + np.uint8(40) * (LEFT == 1), {"values": ((0, "background"), (41, "cat"))}),  # other ids
        (np.where(LEFT == 1, 30_000, LEFT.astype(np.uint16)), {"values": ((0, "background"), (30_000, "cat"))}),
        (COLORS, {"values": (((0, 0, 0), "background"), ((128, 0, 64), "cat")), "ignored": ((224, 224, 192),)}),
        (COLORS, {"values": (((0, 0, 0), "background"), ((128, 0, 64), "cat")), "others": "ignore"}),
        (np.repeat(LEFT[..., None], 3, axis=2), {}),  # gray that is saved as three channels
    ],
)
def test_values_and_colors_are_classes_by_a_table(pixels, changes, tmp_path):
    """By hand: the same map from class numbers, 0 and 255, other ids, 16 bits and colors."""
    dataset = build_dataset(write_masks(tmp_path, pixels).replace(**changes))
    assert (dataset.read(0).semantic == LEFT).all() and dataset.image_ids == ["a.png", "b.png"]
    assert dataset.class_names == ("background", "cat") and (dataset.ground_truth()["b.png"] == LEFT).all()


def test_palette_mask_by_index_and_by_color(tmp_path):
    """By hand: the indices of a palette are values, its colors are colors."""
    config = write_masks(tmp_path, LEFT)
    for stem in "ab":
        save_mask(tmp_path / "masks" / f"{stem}.png", LEFT)
    assert (build_dataset(config).read(0).semantic == LEFT).all()
    with Image.open(tmp_path / "masks" / "a.png") as image:
        colors = [tuple(image.convert("RGB").getpixel(place)) for place in ((50, 1), (0, 1), (0, 0))]
    by_color = {"values": ((colors[0], "background"), (colors[1], "cat")), "ignored": (colors[2],)}
    assert (build_dataset(config.replace(**by_color)).read(0).semantic == LEFT).all()


@pytest.mark.parametrize(
    ("pixels", "changes", "message"),
    [
        (
            LEFT + np.uint8(2) * (LEFT == 1),
            {},
            r"mask-value: .*a\.png: image_id=a\.png: the mask has the value 3 \(row 1",
        ),
        (COLORS, {}, "color-mask"),
        (COLORS, {"values": (((0, 0, 0), "background"),)}, r"mask-value: .*color \(224, 224, 192\)"),
        (LEFT[:24, :40], {}, "mask-size: .*24x40.*48x80.*other_size"),
    ],
)
def test_bad_mask_is_an_error_or_skipped(pixels, changes, message, tmp_path):
    """docs/faults.md row 206. By hand: one line that names the mask and the image."""
    config = write_masks(tmp_path, LEFT).replace(**changes)
    save(tmp_path / "masks" / "a.png", pixels)
    with pytest.raises(DataError, match=message):
        build_dataset(config)
    if not changes:
        assert build_dataset(config, "skip").image_ids == ["b.png"]


def test_masks_of_another_size_are_resized_by_choice(tmp_path):
    """By hand: each pixel of a mask of half the size becomes 2 x 2 pixels, and no value is mixed."""
    config = write_masks(tmp_path, LEFT[::2, ::2]).replace(other_size="resize")
    found = build_dataset(config).read(0).semantic
    assert (found == np.kron(LEFT[::2, ::2], np.ones((2, 2), np.uint8))).all()


def test_missing_mask_is_an_error(tmp_path):
    """docs/faults.md row 206. By hand: the error names the mask that was looked for."""
    config = write_masks(tmp_path, LEFT)
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(DataError, match=r"missing-mask: .*masks/b\.png"):
        build_dataset(config)
    assert build_dataset(config, "skip").image_ids == ["a.png"]


def test_links_out_of_the_folder_need_allow_outside(tmp_path):
    """docs/faults.md row 79. By hand: a mask that is a link to a file elsewhere."""
    config = write_masks(tmp_path / "set", LEFT)
    save(tmp_path / "x.png", LEFT)
    (tmp_path / "set" / "masks" / "a.png").unlink()
    (tmp_path / "set" / "masks" / "a.png").symlink_to(tmp_path / "x.png")
    with pytest.raises(DataError, match="outside-root"):
        build_dataset(config)
    assert len(build_dataset(config.replace(allow_outside=True))) == 2


@pytest.mark.parametrize(
    "changes", [{"values": ((1, "dog"),)}, {"values": ((1, "cat"), ((0, 0, 0), "background"))}, {"mask_name": "x"}]
)
def test_table_that_cannot_be_used_is_refused(changes, tmp_path):
    """By hand: an unknown class, numbers beside colors, and a name without the stem of the image."""
    with pytest.raises((UsageError, ValueError)):
        write_masks(tmp_path, LEFT).replace(**changes)


def find(path: Path) -> MaskFolderConfig | VocSegmentationConfig:
    """Return the config of the class maps at a path."""
    train = pair_from_paths(DataPath(path, "semantic")).train
    config = train.dataset if isinstance(train, HashSplitConfig) else train
    assert isinstance(config, MaskFolderConfig | VocSegmentationConfig)
    return config


def test_folder_of_images_and_masks_is_found(tmp_path):
    """By hand: masks of 0 and 255, a list of classes, and colors of a label map."""
    write_masks(tmp_path, np.where(LEFT == 1, 255, 0).astype(np.uint8), "{stem}_mask.png")
    config = find(tmp_path)
    assert config.class_names == ("background", "foreground") and config.mask_name == "{stem}_mask.png"
    assert build_dataset(config).read(0).semantic.sum() == (HEIGHT - 1) * 20
    write_masks(tmp_path, LEFT + np.uint8(1) * (LEFT == 1), "{stem}_mask.png")
    with pytest.raises(UsageError, match=r"values 0, 2, 255, whose classes are unknown: write class_names\.txt"):
        find(tmp_path)
    write_text(tmp_path / "class_names.txt", "background\ndog\ncat\n")
    assert find(tmp_path).class_names == ("background", "dog", "cat")
    write_masks(tmp_path, COLORS, "{stem}_mask.png")
    write_text(
        tmp_path / "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,64::\nedge:224,224,192::\n",
    )
    assert np.unique(build_dataset(find(tmp_path)).read(0).semantic).tolist() == [0, 1, 2]


@pytest.mark.parametrize("order", ["{part}/{folder}", "{folder}/{part}"])
def test_folders_of_splits_are_its_parts(order, tmp_path):
    """By hand: ``train/images`` and ``images/train``."""
    for part in ("train", "val"):
        write_images(tmp_path / order.format(part=part, folder="images"), f"{part}.png")
        save(tmp_path / order.format(part=part, folder="masks") / f"{part}.png", LEFT // 255)
    pair = pair_from_paths(DataPath(tmp_path, "semantic"))
    assert [build_dataset(config).image_ids for config in (pair.train, pair.val)] == [["train.png"], ["val.png"]]


def test_color_masks_in_a_voc_folder(tmp_path):
    """By hand: labelmap.txt gives the colors, as CVAT and Datumaro export segmentation masks."""
    root = write_voc(tmp_path)
    with Image.open(root / "JPEGImages" / "a.jpg") as image:
        size = image.size[::-1]
    for stem in "abc":
        save(root / "SegmentationClass" / f"{stem}.png", np.full((*size, 3), (128, 0, 64), np.uint8))
    write_text(root / "labelmap.txt", "background:0,0,0::\ncat:128,0,64::\n")
    assert np.unique(build_dataset(find(root)).read(0).semantic).tolist() == [1]


def test_class_maps_are_refused_for_boxes(tmp_path):
    """docs/faults.md row 206. By hand: the error says what to choose."""
    write_masks(tmp_path, LEFT)
    with pytest.raises(UsageError, match="class maps, which have no objects: choose a model with a semantic head"):
        pair_from_paths(DataPath(tmp_path, "detection"))


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("images/a.png", ("masks/a/1.png", "masks/a/2.png")),
        ("images/a.png", ("masks/a_1.png", "masks/a_mask_2.png")),
        ("a/images/a.png", ("a/masks/x1.png", "a/masks/x2.png")),  # Data Science Bowl 2018
    ],
)
def test_a_mask_per_object(image, masks, tmp_path):
    """By hand: two masks of 0 and 255, whose boxes enclose their pixels."""
    write_images(tmp_path, image, image.replace("a.png", "b.png"))
    if image.startswith("a/"):
        (tmp_path / "a/images/b.png").unlink()
    for number, name in enumerate(masks):
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
        pixels[10:20, 30 * number : 30 * number + 5] = 255
        save(tmp_path / name, pixels)
    dataset = open_labels(tmp_path, "object_masks", masks=True)
    assert objects_of(dataset)[image] == [("object", [0, 10, 5, 20]), ("object", [30, 10, 35, 20])]
    assert [np.asarray(mask).sum() for mask in dataset.read(0).objects.masks] == [50, 50]
    assert pair_from_paths(DataPath(tmp_path, "detection")).train.dataset.format == "object_masks"
    save(tmp_path / masks[0], np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match="mask-size"):
        open_labels(tmp_path, "object_masks")
