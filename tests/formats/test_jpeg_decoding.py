"""Decoding of ordinary JPEG files by OpenCV: pixels and refusals are those of Pillow."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebra.formats import images, read_image
from vertebra.formats.image_headers import plain_jpeg_size
from vertebra.structures import DataError


def jpeg(generator: random.Random) -> bytes:
    """Return a JPEG file of noise and smooth areas, with options drawn at random."""
    size = generator.randrange(8, 120), generator.randrange(8, 120)
    noise = np.random.default_rng(generator.randrange(2**32)).integers(0, 256, (5, 4, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    if generator.random() < 0.3:
        image = image.convert("L")
    options = {} if image.mode == "L" else {"subsampling": generator.choice([0, 1, 2])}
    buffer = io.BytesIO()
    image.save(
        buffer, "JPEG", quality=generator.randrange(20, 100), progressive=generator.random() < 0.2,
        restart_marker_rows=generator.choice([0, 1]), optimize=generator.random() < 0.5, **options,
    )  # fmt: skip
    return buffer.getvalue()


def damage(data: bytes, generator: random.Random) -> bytes:
    """Change, remove and insert some bytes, but keep the end marker."""
    spoilt = bytearray(data)
    if generator.random() < 0.2:  # a comment that is longer than the file
        place = generator.randrange(len(spoilt) * 3 // 4, len(spoilt) - 2)
        spoilt[place:place] = b"\xff\xfe\x7f\xff"
    for _ in range(generator.choice([1, 2, 20])):
        place = generator.randrange(2, len(spoilt) - 2)
        spoilt[place : place + generator.choice([0, 1, 1, 9])] = generator.randbytes(generator.choice([0, 1, 1, 5]))
    return bytes(spoilt if spoilt.endswith(b"\xff\xd9") else spoilt + b"\xff\xd9")


def read(path: Path) -> np.ndarray | str:
    """Return the pixels of an image, or the name of the reason why it is refused."""
    try:
        return read_image(path)
    except DataError as error:
        return str(error.case)


@pytest.mark.parametrize("damaged", [False, True])
def test_pixels_and_refusals_equal_pillows(damaged, tmp_path, monkeypatch):
    """Oracle: Pillow, on 300 files: gray and color, all subsamplings, with restart markers; intact and damaged."""
    generator, path, by_opencv = random.Random(0), tmp_path / "image.jpg", 0
    for _ in range(300):
        data = jpeg(generator)
        path.write_bytes(damage(data, generator) if damaged else data)
        found = read(path)
        by_opencv += plain_jpeg_size(path) is not None and images._decode_plain_jpeg(path) is not None
        with monkeypatch.context() as patch:
            patch.setattr(images, "_decode_plain_jpeg", lambda path: None)
            expected = read(path)
        assert type(found) is type(expected)
        assert np.array_equal(found, expected) if isinstance(found, np.ndarray) else found == expected
    assert by_opencv > (50 if damaged else 200)


def test_cmyk_and_progressive_files_are_left_to_pillow(tmp_path):
    """By hand: OpenCV converts CMYK differently, and fills in gray where a scan of a progressive file is damaged."""
    for name, mode, options in (("cmyk", "CMYK", {}), ("progressive", "RGB", {"progressive": True})):
        path = tmp_path / f"{name}.jpg"
        Image.new(mode, (9, 7)).save(path, **options)
        assert plain_jpeg_size(path) is None and read_image(path).shape == (7, 9, 3)
    Image.new("RGB", (9, 7)).save(tmp_path / "plain.jpg")
    assert plain_jpeg_size(tmp_path / "plain.jpg") == (7, 9)
