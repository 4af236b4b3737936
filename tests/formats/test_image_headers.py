"""The fast reader of image headers: if it gives a size, it is the size that Pillow gives."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from vertebra.formats import images, pillow
from vertebra.formats.image_headers import plain_image_size
from vertebra.structures import DataError

HEIGHT, WIDTH = 24, 40
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def encoded(mode: str = "RGB", file_format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, file_format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


PLAIN = {
    "jpeg": encoded(),
    "gray jpeg": encoded("L"),
    "print jpeg": encoded("CMYK"),
    "progressive jpeg": encoded(progressive=True),
    "jpeg with a profile and a comment": encoded(icc_profile=bytes(3000), comment="a comment"),
    "png": encoded(file_format="PNG"),
    "palette png": encoded("P", "PNG"),
    "png of one bit": encoded("1", "PNG"),
    "gray png": encoded("L", "PNG"),
    "png with a resolution": encoded(file_format="PNG", dpi=(72, 72)),
}
OTHER = {
    "turned jpeg": encoded(exif=exif(6)),
    "jpeg with metadata": encoded(exif=exif(1)),
    "turned png": encoded(file_format="PNG", exif=exif(6)),
    "jpeg without its end": encoded()[:-2],
    "cut jpeg": encoded()[:300],
    "cut png": encoded(file_format="PNG")[:-5],
    "png with bytes after its end": encoded(file_format="PNG") + b"0",
    "gif": encoded(file_format="GIF"),
    "bmp": encoded(file_format="BMP"),
    "text": b"<html>",
    "nothing": b"",
}


@pytest.mark.parametrize("name", PLAIN)
def test_size_of_an_ordinary_file_equals_pillows(name, tmp_path):
    """Oracle: Pillow: height and width."""
    path = tmp_path / "file"
    path.write_bytes(PLAIN[name])
    with Image.open(path) as image:
        assert plain_image_size(path) == (image.height, image.width) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", OTHER)
def test_unusual_files_are_left_to_pillow(name, tmp_path):
    """By hand: metadata, which may rotate the image; damage; other formats."""
    path = tmp_path / "file"
    path.write_bytes(OTHER[name])
    assert plain_image_size(path) is None
    assert plain_image_size(tmp_path / "gone") is None
    assert plain_image_size(tmp_path) is None


def test_large_image_is_left_to_pillow(tmp_path, monkeypatch):
    """docs/faults.md row 75. By hand: the limit of pixels is checked as for any file."""
    path = tmp_path / "file.jpg"
    path.write_bytes(PLAIN["jpeg"])
    monkeypatch.setattr("vertebra.formats.image_headers.MAX_PIXELS", HEIGHT * WIDTH - 1)
    monkeypatch.setattr(pillow, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(DataError, match="too-many-pixels"):
        images.check_image(path)


@pytest.mark.parametrize("name", PLAIN)
def test_size_of_a_damaged_file_equals_pillows(name, tmp_path):
    """Oracle: Pillow, on files with a few changed bytes at either end: a size is that of the upright image."""
    rng, path, answers = np.random.default_rng(1), tmp_path / "file", 0
    for _ in range(400):
        data = np.frombuffer(PLAIN[name], np.uint8).copy()
        places = np.r_[: min(200, len(data)), max(0, len(data) - 20) : len(data)]
        chosen = rng.choice(places, rng.integers(1, 3))
        data[chosen] = rng.choice([0, 255, 1, 0xE1, 6, 128, rng.integers(256)], len(chosen))
        path.write_bytes(data.tobytes())
        size = plain_image_size(path)
        if size is not None:
            answers += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path) as image:
                    assert size == (image.height, image.width)
                    assert image.format != "JPEG" or image.getexif().get(0x0112, 1) == 1
    assert answers > 20


def test_exif_orientation_is_applied_to_the_size(tmp_path):
    """Oracle: Pillow's own rotation."""
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.jpg"
        path.write_bytes(encoded(exif=exif(orientation)))
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
        assert images.image_size(path) == (upright.height, upright.width)
