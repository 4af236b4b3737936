"""Large photos decoded no larger than they are needed, and what is known of them."""

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

from ..helpers.tiny_coco_file import HEIGHT, WIDTH, truth
from ..helpers.tiny_voc_folder import write_voc

BOX = (20, 12, 30, 28)  # x, y, width, height
ORIENTATION = 0x0112


def photo(height: int, width: int) -> Image.Image:
    """Smooth colours, which survive JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize(
    ("short_side", "factor"), [(201, 1), (200, 1), (101, 1), (100, 2), (60, 2), (50, 4), (25, 8), (3, 8), (None, 1)]
)
def test_the_short_side_keeps_what_is_asked_for(short_side, factor, tmp_path):
    """OpenCV's own reduced decoding of the same file, which is 200 x 328: equal to a rounding of its colours."""
    path = tmp_path / "a.jpg"
    photo(200, 328).save(path, quality=90)
    flags = {1: "COLOR", 2: "REDUCED_COLOR_2", 4: "REDUCED_COLOR_4", 8: "REDUCED_COLOR_8"}
    expected = cv2.cvtColor(cv2.imread(str(path), getattr(cv2, f"IMREAD_{flags[factor]}")), cv2.COLOR_BGR2RGB)
    image, size = read_reduced_image(path, None, short_side)
    assert size == (200, 328) and image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 3


def test_other_formats_are_decoded_whole(tmp_path):
    """A law: their decoders have no short cut."""
    photo(64, 80).save(tmp_path / "a.png")
    assert np.array_equal(read_reduced_image(tmp_path / "a.png", None, 16)[0], read_image(tmp_path / "a.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_stays_upright(orientation, tmp_path):
    """The whole image, resized by averaging: each of the eight turns of it is far away."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo(96, 160).save(tmp_path / "a.jpg", exif=exif, quality=95)
    whole = read_image(tmp_path / "a.jpg")
    image, size = read_reduced_image(tmp_path / "a.jpg", None, 48)
    assert size == whole.shape[:2] and image.shape[:2] == (size[0] // 2, size[1] // 2)
    small = cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - small).mean() < 2


@pytest.mark.parametrize(
    ("size", "factor"),
    [((403, 801), 1), ((402, 805), 1), ((402, 804), 2), ((404, 804), 4), ((808, 404), 4), ((408, 808), 8)],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_truth_is_where_it_was_whatever_the_size(size, factor, orientation, tmp_path):
    """The whole image: the middle of a bright spot near each corner, in the file's pixels, is the same to a tenth of a
    pixel of the reduced one, though libjpeg would round a side that is no multiple up."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for top, left in ((20, 20), (20, size[1] - 60), (size[0] - 60, 20), (size[0] - 60, size[1] - 60)):
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[top : top + 35, left : left + 35] = 255
        Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
        whole = read_image(tmp_path / "a.jpg")
        image, upright = read_reduced_image(tmp_path / "a.jpg", None, 25)
        assert image.shape[:2] == (upright[0] // factor, upright[1] // factor) and upright == whole.shape[:2]
        for found, there, side, full in zip(middle_of(image), middle_of(whole), image.shape, upright, strict=False):
            assert found == pytest.approx(there * side / full, abs=0.1)


def middle_of(image: np.ndarray) -> list[float]:
    """That of what is bright, down and to the right."""
    bright = image[:, :, 0] * (image[:, :, 0] > 50.0)
    sums = [bright.sum(axis=1), bright.sum(axis=0)]
    return [float((own * (np.arange(len(own)) + 0.5)).sum() / own.sum()) for own in sums]


def test_damage_is_found_as_ever(tmp_path):
    """FAULTS 60-63: cut is refused, without its end marker a whole one is used."""
    path = tmp_path / "a.jpg"
    photo(200, 300).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged-image"):
        read_reduced_image(path, 1, 50)
    path.write_bytes(whole[:-2])
    assert read_reduced_image(path, 1, 50)[1] == (200, 300)


def files(folder: Path) -> dict:
    """One photo, black but for one object, of which box and polygon are known."""
    x, y, width, height = BOX
    pixels = np.zeros((HEIGHT * 4, WIDTH * 4, 3), np.uint8)
    pixels[4 * y : 4 * (y + height), 4 * x : 4 * (x + width)] = 255
    Image.fromarray(pixels).save(folder / "1.jpg", quality=95)
    entry = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [4 * side for side in BOX], "iscrowd": 0}
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    content = truth() | {
        "images": [{"id": 1, "file_name": "1.jpg", "height": HEIGHT * 4, "width": WIDTH * 4}],
        "annotations": [entry | {"segmentation": [[4 * number for number in corners]]}],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return {"images": folder, "annotations": folder / "truth.json", "decode_short_side": HEIGHT}


@pytest.mark.parametrize("form", ["bitmaps", "polygons"])
def test_boxes_masks_and_maps_follow(form, tmp_path):
    """A drawn case: in an image of a quarter the object's pixels, its box, its mask or outline and its map agree."""
    given = files(tmp_path)
    parts = {"detection": CocoConfig(**given, masks=True, mask_format=form), "semantic": CocoSemanticConfig(**given)}
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


def test_a_sample_remembers_the_file(tmp_path):
    """A law: what is predicted goes back to the size of the file, and the target is that of the whole image."""
    given = files(tmp_path)
    transform = build_transform(ResizeConfig(short_sides=(HEIGHT // 2,)))
    samples = [
        transform(build_dataset(CocoConfig(**given | {"decode_short_side": side}, masks=True)).read(0), 0, 0)
        for side in (None, HEIGHT)
    ]
    for sample in samples:
        assert sample.original_size == (HEIGHT * 4, WIDTH * 4) and sample.image.shape == (3, HEIGHT // 2, WIDTH // 2)
    assert (samples[0].target.boxes - samples[1].target.boxes).abs().max() < 1e-4
    assert samples[0].target.masks.equal(samples[1].target.masks)


def test_other_data_sets_decode_reduced_too(tmp_path):
    """Half of 64 x 96; the truth of VOC's boxes is half of what it was."""
    root = write_voc(tmp_path / "voc")
    whole, half = (
        build_dataset(VocConfig(root=root, splits=("train",), decode_short_side=side)).read(0) for side in (None, 32)
    )
    assert half.image.shape == (32, 48, 3) and np.allclose(half.objects.boxes * 2, whole.objects.boxes)
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
def test_fewer_pixels_than_the_transform_shows_are_refused(transform, needed):
    """By hand: what the short side gets at a scale of 1. Images that are decoded smaller would be blown up again."""
    for make in (photos, joint_photos):
        assert SplitConfig(dataset=make(needed), transform=transform).transform == transform
        assert SplitConfig(dataset=make(None), transform=transform).transform == transform
        expected = (
            f"decode_short_side={needed - 1} is below the {needed} px the transform resizes to: raise it or leave"
        )
        with pytest.raises(ValidationError, match=expected):
            SplitConfig(dataset=make(needed - 1), transform=transform)


def photos(short_side: int | None) -> ImageFolderConfig:
    return ImageFolderConfig(root=Path("photos"), decode_short_side=short_side)


def joint_photos(short_side: int | None) -> JointConfig:
    """The first part reads them."""
    first = CocoConfig(images=Path("photos"), annotations=Path("truth.json"), decode_short_side=short_side)
    return JointConfig(parts={"detection": first, "classification": photos(1)})
