"""Decoding large photos at a fraction of their size, with their ground truth."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from vertebra.data import (
    CenterCropConfig,
    CocoConfig,
    CocoSemanticConfig,
    ImageFolderConfig,
    JointConfig,
    RandomCropConfig,
    ResizeConfig,
    ScaledCropConfig,
    VocConfig,
    build_dataset,
    build_transform,
)
from vertebra.engine import SplitConfig
from vertebra.formats import read_image, read_reduced_image
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import HEIGHT, WIDTH, tiny_content
from ..helpers.tiny_voc_folder import write_voc

BOX = (20, 12, 30, 28)  # x, y, width, height
ORIENTATION = 0x0112


def photo(height: int, width: int) -> Image.Image:
    """Return an image of smooth colors, which JPEG hardly changes."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize(
    ("short_side", "factor"), [(201, 1), (200, 1), (101, 1), (100, 2), (60, 2), (50, 4), (25, 8), (3, 8), (None, 1)]
)
def test_jpeg_is_decoded_at_the_smallest_sufficient_size(short_side, factor, tmp_path):
    """Oracle: OpenCV's reduced decoding of the same file, which is 200 x 328; equal up to a rounding of colors."""
    path = tmp_path / "a.jpg"
    photo(200, 328).save(path, quality=90)
    flags = {1: "COLOR", 2: "REDUCED_COLOR_2", 4: "REDUCED_COLOR_4", 8: "REDUCED_COLOR_8"}
    expected = cv2.cvtColor(cv2.imread(str(path), getattr(cv2, f"IMREAD_{flags[factor]}")), cv2.COLOR_BGR2RGB)
    image, size = read_reduced_image(path, None, short_side)
    assert size == (200, 328) and image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 3


def test_png_is_decoded_at_its_full_size(tmp_path):
    """Law: the PNG decoder cannot reduce, so the image is that of an ordinary decoding."""
    photo(64, 80).save(tmp_path / "a.png")
    assert np.array_equal(read_reduced_image(tmp_path / "a.png", None, 16)[0], read_image(tmp_path / "a.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_jpeg_is_turned_upright(orientation, tmp_path):
    """Oracle: the image decoded at full size and resized by averaging; any other of its eight orientations differs
    far more."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo(96, 160).save(tmp_path / "a.jpg", exif=exif, quality=95)
    full = read_image(tmp_path / "a.jpg")
    image, size = read_reduced_image(tmp_path / "a.jpg", None, 48)
    assert size == full.shape[:2] and image.shape[:2] == (size[0] // 2, size[1] // 2)
    small = cv2.resize(full, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - small).mean() < 2


@pytest.mark.parametrize(
    ("size", "factor"),
    [((403, 801), 1), ((402, 805), 1), ((402, 804), 2), ((404, 804), 4), ((808, 404), 4), ((408, 808), 8)],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_decoding_does_not_shift_pixels(size, factor, orientation, tmp_path):
    """Oracle: the image decoded at full size: the middle of a bright spot near each corner is the same to a tenth of
    a pixel of the reduced image, although libjpeg would round up a side that is no multiple of the factor."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for top, left in ((20, 20), (20, size[1] - 60), (size[0] - 60, 20), (size[0] - 60, size[1] - 60)):
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[top : top + 35, left : left + 35] = 255
        Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
        full = read_image(tmp_path / "a.jpg")
        image, upright = read_reduced_image(tmp_path / "a.jpg", None, 25)
        assert image.shape[:2] == (upright[0] // factor, upright[1] // factor) and upright == full.shape[:2]
        for axis in (0, 1):
            expected = middle_of(full)[axis] * image.shape[axis] / upright[axis]
            assert middle_of(image)[axis] == pytest.approx(expected, abs=0.1)


def middle_of(image: np.ndarray) -> list[float]:
    """Return y and x of the middle of the bright pixels."""
    bright = image[:, :, 0] * (image[:, :, 0] > 50.0)
    profiles = [bright.sum(axis=1), bright.sum(axis=0)]
    return [float((profile * (np.arange(len(profile)) + 0.5)).sum() / profile.sum()) for profile in profiles]


def test_truncated_jpeg_is_refused_in_reduced_decoding(tmp_path):
    """docs/faults.md rows 63, 64. By hand: a truncated file is refused; one that lacks only its end marker is used."""
    path = tmp_path / "a.jpg"
    photo(200, 300).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged-image"):
        read_reduced_image(path, 1, 50)
    path.write_bytes(content[:-2])
    assert read_reduced_image(path, 1, 50)[1] == (200, 300)


def write_files(folder: Path) -> dict:
    """Write a photo with one object, its box and its polygon; return the fields of a config that reads them."""
    x, y, width, height = BOX
    pixels = np.zeros((HEIGHT * 4, WIDTH * 4, 3), np.uint8)
    pixels[4 * y : 4 * (y + height), 4 * x : 4 * (x + width)] = 255
    Image.fromarray(pixels).save(folder / "1.jpg", quality=95)
    entry = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [4 * side for side in BOX], "iscrowd": 0}
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    content = tiny_content() | {
        "images": [{"id": 1, "file_name": "1.jpg", "height": HEIGHT * 4, "width": WIDTH * 4}],
        "annotations": [entry | {"segmentation": [[4 * number for number in corners]]}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return {"images": folder, "annotations": folder / "annotations.json", "decode_short_side": HEIGHT}


@pytest.mark.parametrize("form", ["bitmaps", "polygons"])
def test_annotations_fit_the_reduced_image(form, tmp_path):
    """By hand: at a quarter of the size, the object's pixels, its box, its mask and its semantic map agree."""
    fields = write_files(tmp_path)
    parts = {"detection": CocoConfig(**fields, masks=True, mask_format=form), "semantic": CocoSemanticConfig(**fields)}
    record = build_dataset(JointConfig(parts=parts)).read(0)
    assert record.image.shape == (HEIGHT, WIDTH, 3) and record.original_size == (HEIGHT * 4, WIDTH * 4)
    bright = record.image[:, :, 0] > 127
    x, y, width, height = BOX
    assert np.array_equal(np.argwhere(bright).min(axis=0), [y, x]) and bright.sum() == width * height
    assert record.objects.boxes.tolist() == [[x, y, x + width, y + height]]
    assert np.array_equal(record.semantic > 0, bright)
    if form == "bitmaps":
        assert np.array_equal(record.objects.masks[0] > 0, bright)
    else:
        edges = record.objects.polygon_masks[0].edges
        assert [*edges[:, :2].min(axis=0), *edges[:, :2].max(axis=0)] == [x, y, x + width, y + height]


def test_sample_has_the_original_size_of_the_file(tmp_path):
    """Law: ``original_size`` is the file's, to which predictions are converted, and the target equals that of the
    image decoded at full size."""
    fields = write_files(tmp_path)
    transform = build_transform(ResizeConfig(short_sides=(HEIGHT // 2,)))
    samples = [
        transform(build_dataset(CocoConfig(**fields | {"decode_short_side": side}, masks=True)).read(0), 0, 0)
        for side in (None, HEIGHT)
    ]
    for sample in samples:
        assert sample.original_size == (HEIGHT * 4, WIDTH * 4) and sample.image.shape == (3, HEIGHT // 2, WIDTH // 2)
    assert (samples[0].target.boxes - samples[1].target.boxes).abs().max() < 1e-4
    assert samples[0].target.masks.equal(samples[1].target.masks)


def test_voc_and_image_folders_decode_at_reduced_size(tmp_path):
    """By hand: half of 64 x 96, and half of the coordinates of VOC's boxes."""
    root = write_voc(tmp_path / "voc")
    full, half = (
        build_dataset(VocConfig(root=root, splits=("train",), decode_short_side=side)).read(0) for side in (None, 32)
    )
    assert half.image.shape == (32, 48, 3) and np.allclose(half.objects.boxes * 2, full.objects.boxes)
    folder = tmp_path / "folder" / "one"
    folder.mkdir(parents=True)
    photo(64, 96).save(folder / "a.jpg")
    record = build_dataset(ImageFolderConfig(root=tmp_path / "folder", decode_short_side=32)).read(0)
    assert record.image.shape == (32, 48, 3) and record.label == 0


@pytest.mark.parametrize(
    ("transform", "needed"),
    [
        (ResizeConfig(short_sides=(640, 800)), 800),
        (ResizeConfig(short_sides=(800,), long_side=640), 640),
        (RandomCropConfig(size=224), 224),
        (CenterCropConfig(resize=256, size=224), 256),
        (ScaledCropConfig(size=(600, 500)), 500),
        (ScaledCropConfig(size=(600, 500), short_side=520), 520),
    ],
)
def test_decoding_fewer_pixels_than_the_transform_resizes_to_is_refused(transform, needed):
    """By hand: the limit is the short side at a scale of 1; an image that is decoded smaller would be enlarged
    again."""
    for make in (photos, joint_photos):
        assert SplitConfig(dataset=make(needed), transform=transform).transform == transform
        assert SplitConfig(dataset=make(None), transform=transform).transform == transform
        expected = (
            f"decode_short_side={needed - 1} is below the {needed} px the transform resizes to: raise it or leave"
        )
        with pytest.raises(ValidationError, match=expected):
            SplitConfig(dataset=make(needed - 1), transform=transform)


def photos(short_side: int | None) -> ImageFolderConfig:
    """Return the config of a data set of photos."""
    return ImageFolderConfig(root=Path("photos"), decode_short_side=short_side)


def joint_photos(short_side: int | None) -> JointConfig:
    """Return the config of a joint data set, whose first part reads the photos."""
    first = CocoConfig(images=Path("photos"), annotations=Path("annotations.json"), decode_short_side=short_side)
    return JointConfig(parts={"detection": first, "classification": photos(1)})
