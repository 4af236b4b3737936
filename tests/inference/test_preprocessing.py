"""Preprocessing of photos: which values are accepted, and that the model gets what an evaluation would give it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.data import CenterCropConfig, Record, ResizeConfig, ScaledCropConfig, build_transform
from vertebra.data.transforms import as_preprocessing
from vertebra.formats import read_image
from vertebra.inference import load_photo, preprocess_image
from vertebra.structures import DataError, ResizedCenterCrop, ShortSideResize

SIZES = [(1, 1), (1, 90), (33, 47), (64, 64), (97, 61), (255, 341), (480, 639), (500, 1400)]
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (33, 47, 3), dtype=np.uint8)


def photo(size: tuple[int, int]) -> np.ndarray:
    """Return an image of noise."""
    return RNG.integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "transform",
    [
        ResizeConfig(),
        ResizeConfig(short_sides=(64,), long_side=96),
        ResizeConfig(short_sides=(37,), long_side=1000, boxes_from_masks=True),
        CenterCropConfig(),
        CenterCropConfig(resize=33, size=32),
        CenterCropConfig(resize=65, size=64),
    ],
    ids=str,
)
def test_photo_is_preprocessed_like_a_validation_image(transform, size):
    """Oracle: the transform of the validation images, which is albumentations', bit for bit."""
    preprocessing = as_preprocessing(transform)
    assert preprocessing is not None
    image = photo(size)
    expected = build_transform(transform)(Record(image), epoch=0, index=0).image
    prepared = preprocess_image(image, preprocessing)
    assert torch.equal(torch.from_numpy(np.ascontiguousarray(prepared.transpose(2, 0, 1))), expected)


@pytest.mark.parametrize(
    "transform",
    [
        ResizeConfig(flip=0.5),
        ResizeConfig(short_sides=(64, 72)),
        ResizeConfig(crop=0.5),
        ResizeConfig(color_jitter=0.5),
        ScaledCropConfig(),
    ],
    ids=str,
)
def test_random_transform_is_no_preprocessing(transform):
    """By hand: transforms that give an image in different forms."""
    assert as_preprocessing(transform) is None


def test_transform_without_randomness_is_preprocessing():
    """By hand: one short side given twice, and a jitter that changes nothing."""
    transform = ResizeConfig(short_sides=(64, 64), long_side=96, color_jitter={"probability": 0.5})
    assert as_preprocessing(transform) == ShortSideResize(short_side=64, long_side=96)


def test_crop_larger_than_the_photo_is_refused():
    """By hand: ValueError with both sizes."""
    with pytest.raises(ValueError, match="a crop of 65 px does not fit into a short side of 64 px"):
        ResizedCenterCrop(short_side=64, size=65)


def encoded(image: Image.Image, **options) -> bytes:
    """Return the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


GRAY = RGB[:, :, 0]
DEEP = GRAY.astype(np.uint16) << 8 | 77
ALPHA = np.dstack([RGB, GRAY])

TAKEN = {
    "RGB array": (RGB, RGB),
    "gray array": (GRAY, GRAY),
    "gray array with an axis": (GRAY[:, :, None], GRAY),
    "RGBA array": (ALPHA, RGB),
    "16-bit RGB array": (RGB.astype(np.uint16) << 8 | 77, RGB),
    "16-bit gray array": (DEEP, GRAY),
    "RGB tensor": (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
    "gray tensor": (torch.from_numpy(GRAY)[None], GRAY),
    "RGBA tensor": (torch.from_numpy(ALPHA).permute(2, 0, 1), RGB),
    "PIL image": (Image.fromarray(RGB), RGB),
    "gray PIL image": (Image.fromarray(GRAY), GRAY),
    "RGBA PIL image": (Image.fromarray(ALPHA), RGB),
    "16-bit PIL image": (Image.fromarray(DEEP), GRAY),
    "bytes of a PNG": (encoded(Image.fromarray(RGB)), RGB),
    "bytes of a 16-bit PNG": (bytearray(encoded(Image.fromarray(DEEP))), GRAY),
    "a view of bytes": (memoryview(encoded(Image.fromarray(ALPHA))), RGB),
}


@pytest.mark.parametrize("name", TAKEN)
def test_every_common_image_type_is_accepted(name):
    """By hand: gray is repeated, alpha dropped, and of 16 bits the high byte is used."""
    image, expected = TAKEN[name]
    rgb = load_photo(image)
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, expected if expected.ndim == 3 else np.repeat(expected[:, :, None], 3, axis=2))


def test_bytes_are_decoded_like_a_file(tmp_path):
    """Law: a JPEG with an EXIF orientation, and one without its end marker, from a path and from its bytes."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = tmp_path / "turned.jpg"
    Image.fromarray(RGB).save(path, exif=exif)
    assert load_photo(path).shape == (47, 33, 3)
    for data in (path.read_bytes(), path.read_bytes()[:-2]):
        path.write_bytes(data)
        for image in (path, str(path), data):
            np.testing.assert_array_equal(load_photo(image), read_image(path))


def test_pil_image_is_not_rotated():
    """By hand: predictions are in the pixels of the image that was given, which Pillow did not rotate."""
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(load_photo(image), RGB)


REFUSED = {
    "nothing": (None, TypeError, "an image must be a path, .* got NoneType"),
    "a number": (3, TypeError, "got int"),
    "floats": (RGB / 255, TypeError, r"got float64 of shape \(33, 47, 3\): scale its values to 0..255"),
    "booleans": (GRAY > 9, TypeError, r"got bool of shape \(33, 47\)"),
    "channels first": (RGB.transpose(2, 0, 1), ValueError, r"got uint8 of shape \(3, 33, 47\): transpose it"),
    "two channels": (RGB[:, :, :2], ValueError, r"\(height, width, 1, 3 or 4\); got uint8 of shape \(33, 47, 2\)"),
    "a batch": (RGB[None], ValueError, r"got uint8 of shape \(1, 33, 47, 3\): give a list of images"),
    "no pixels": (RGB[:0], ValueError, r"at least one pixel; got uint8 of shape \(0, 47, 3\)"),
    "a tensor without pixels": (torch.zeros(3, 0, 4, dtype=torch.uint8), ValueError, "at least one pixel"),
    "a float tensor": (torch.rand(3, 4, 5), TypeError, r"dtype uint8, .* got float32 of shape \(3, 4, 5\)"),
    "a tensor with channels last": (torch.from_numpy(RGB), ValueError, r"\(1, 3 or 4, height, width\); got uint8 of"),
    "a PIL image of floats": (Image.fromarray(np.ones((4, 5), np.float32)), DataError, "mode F have no known range"),
    "bytes of no image": (b"photo", DataError, "this is not an image file"),
    "a path to nothing": ("no/such.png", DataError, "no/such.png: the image file does not exist"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_value_that_is_no_image_is_refused(name):
    """By hand: the message has its type and shape, and what is accepted."""
    image, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        load_photo(image)
