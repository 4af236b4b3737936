"""Image files of every kind: compared with Pillow, OpenCV and files that were corrected by hand."""

import contextlib
import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from vertebra.formats import IMAGE_SUFFIXES, check_image, pillow, read_class_map, read_image
from vertebra.structures import DataError

HEIGHT, WIDTH = 64, 96


def photo(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return smooth colors, which JPEG hardly changes."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def save(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(orientation, tmp_path):
    """docs/faults.md row 67. Oracle: the same file rotated by Pillow beforehand: equal pixels, and the size that
    annotations must declare."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    Image.fromarray(photo()).save(path, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(read_image(path), upright)
    assert check_image(path, upright.shape[:2]) == []
    if orientation >= 5:
        with pytest.raises(DataError, match="EXIF rotation"):
            check_image(path, (HEIGHT, WIDTH))


def test_gray_image_becomes_three_equal_channels(tmp_path):
    """docs/faults.md row 69. By hand."""
    gray = photo()[:, :, 0]
    found = read_image(save(tmp_path / "gray.png", Image.fromarray(gray)))
    assert all(np.array_equal(found[:, :, channel], gray) for channel in range(3))


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_images_are_scaled_as_in_opencv(channels, tmp_path):
    """docs/faults.md row 70. Oracle: cv2.imread: the high byte, never clipped."""
    ramp = np.linspace(0, 65535, HEIGHT * WIDTH * channels).astype(np.uint16).reshape(HEIGHT, WIDTH, channels).squeeze()
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), ramp)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_channel_is_dropped(mode, tmp_path):
    """docs/faults.md row 71. By hand: the colors of a half-transparent image, unchanged."""
    colors = Image.fromarray(photo()).convert({"RGBA": "RGB", "LA": "L", "PA": "P"}[mode])
    image = colors.convert(mode)
    image.putalpha(Image.new("L", image.size, 100))
    path = save(tmp_path / "alpha.tif", image)
    assert np.array_equal(read_image(path), np.asarray(colors.convert("RGB")))


def test_palette_with_a_transparent_color(tmp_path):
    """docs/faults.md row 71. By hand: the palette's colors."""
    image = Image.fromarray(photo()).convert("P")
    path = save(tmp_path / "palette.png", image, transparency=b"\x00\x80\xff" * 50)
    assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))


def test_cmyk_is_converted_as_in_pillow(tmp_path):
    """docs/faults.md row 72. Oracle: Pillow's own conversion; OpenCV's differs."""
    path = save(tmp_path / "print.jpg", Image.fromarray(photo()).convert("CMYK"))
    assert np.array_equal(read_image(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_first_frame_of_an_animation_is_used(ending, tmp_path):
    """docs/faults.md row 74. Oracle: the first frame saved alone."""
    frames = [Image.fromarray(photo()), Image.fromarray(255 - photo())]
    many = save(tmp_path / f"many.{ending}", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(many) as first:
        assert np.array_equal(read_image(many), np.asarray(first.convert("RGB")))
    assert np.abs(read_image(many).astype(int) - photo()).mean() < 20


@pytest.mark.parametrize("mode", ["F", "I"])
def test_float_images_are_refused(mode, tmp_path):
    """docs/faults.md row 73. By hand: the range of the values is unknown; a float TIFF would become black."""
    path = save(tmp_path / "depth.tif", Image.new(mode, (WIDTH, HEIGHT), 1))
    for look in (read_image, check_image):
        with pytest.raises(DataError, match="no known range"):
            look(path)


def bomb() -> bytes:
    """Return a PNG whose header says 60000 x 60000 pixels."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def first_half(ending: str) -> bytes:
    """Return the first half of a file of a format without an end marker."""
    file = io.BytesIO()
    Image.fromarray(photo()).save(file, ending)
    return file.getvalue()[: len(file.getvalue()) // 2]


def offsets_as_text() -> bytes:
    """Return a TIFF file with the offsets of its rows as text, for which Pillow raises a TypeError."""
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "TIFF")
    data = bytearray(file.getvalue())
    place = data.index((273).to_bytes(2, "little"))  # StripOffsets; its type follows
    data[place + 2] = 2
    return bytes(data)


JPEG, PNG = jpeg(photo()), cv2.imencode(".png", photo())[1].tobytes()
# name: (file, pattern of the message)
DAMAGED = {
    "empty.jpg": (b"", "not-an-image"),
    "page.jpg": (b"<html>not found</html>", "not-an-image"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "damaged-image"),
    "cut late.jpg": (JPEG[:-40], "damaged-image"),
    "cut progressive.jpg": (jpeg(photo(), progressive=True)[: len(JPEG) // 2], "damaged-image"),
    "cut.png": (PNG[: len(PNG) // 2], "damaged-image"),
    "bomb.png": (bomb(), "too-many-pixels"),
    "text.tiff": (offsets_as_text(), "damaged-image"),
    **{f"cut.{ending}": (first_half(ending), "damaged-image") for ending in ("bmp", "gif", "ppm", "tiff", "webp")},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_found_before_training(name, tmp_path):
    """docs/faults.md rows 62, 63, 65, 75. By hand: exit code 3 naming file and image, from the check of headers and
    from reading."""
    data, case = DAMAGED[name]
    path = tmp_path / name
    path.write_bytes(data)
    for look in (read_image, lambda path, image_id: check_image(path, None, image_id)):
        with pytest.raises(DataError, match=rf"{case}: .*{name}: image_id=5: ") as caught:
            look(path, 5)
        assert caught.value.exit_code == 3


@pytest.mark.parametrize("ending", ["tif", "ico", "png"])
def test_pillows_own_pixel_limit_is_not_used(ending, tmp_path, monkeypatch):
    """docs/faults.md row 75. By hand: there is one limit, the documented one; Pillow's setting, which TIFF checks
    when decoding too, is not changed."""
    path = save(tmp_path / f"photo.{ending}", Image.fromarray(photo()))
    whole = read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert np.array_equal(read_image(path), whole)
    assert check_image(path, whole.shape[:2]) == []
    assert Image.MAX_IMAGE_PIXELS == 50


def test_semantic_maps_have_the_same_pixel_limit(tmp_path, monkeypatch):
    """docs/faults.md row 75. By hand: a semantic map above the limit is refused."""
    path = save(tmp_path / "map.png", Image.new("P", (WIDTH, HEIGHT), 1))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert (read_class_map(path, 2, "map", "") == 1).all()
    monkeypatch.setattr(pillow, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(DataError, match=r"too-many-pixels: .*map\.png: .*more than 6,143 pixels"):
        read_class_map(path, 2, "map", "")
    with pytest.raises(DataError, match=r"too-many-pixels: .*map\.png"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about tags that it skips
@pytest.mark.parametrize("ending", ["TIFF", "PNG", "GIF", "BMP", "WEBP", "JPEG"])
def test_random_damage_gives_pixels_or_one_line(ending, tmp_path, monkeypatch):
    """docs/faults.md row 66. Law: a file with a few changed bytes gives pixels or a DataError, although Pillow's
    decoders raise errors of many types."""
    monkeypatch.setattr(pillow, "MAX_PIXELS", 10_000)  # decoding a wrong, huge size would be slow
    file, generator = io.BytesIO(), np.random.default_rng(0)
    Image.fromarray(photo(24, 32)).save(file, ending)
    for number in range(100):
        data = np.frombuffer(file.getvalue(), np.uint8).copy()
        places = np.r_[: min(200, len(data)), max(0, len(data) - 200) : len(data)]
        data[generator.choice(places, 3)] = generator.integers(0, 256, 3)
        path = tmp_path / f"{number}"
        path.write_bytes(data.tobytes())
        for look in (read_image, check_image):
            with contextlib.suppress(DataError):
                look(path)


def test_missing_file_and_folder_are_refused(tmp_path):
    """docs/faults.md rows 61, 62. By hand: exit code 3."""
    with pytest.raises(DataError, match=r"missing-image: .*does not exist"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"missing-image: .*a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_after_the_end_of_a_jpeg_are_no_fault(progressive, tmp_path, monkeypatch):
    """docs/faults.md row 181. By hand: phones append data of their own; the file is neither noted nor decoded."""
    path = tmp_path / "phone.jpg"
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path, progressive=progressive)
    path.write_bytes(path.read_bytes() + b"SEFH" * 30)
    expected = read_image(path)
    monkeypatch.setattr("vertebra.formats.images.read_image", None)  # decoding would fail
    assert check_image(path, (HEIGHT, WIDTH)) == [] and expected.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("suffix", [".avif", ".jp2"])
def test_other_image_formats_are_read(suffix, tmp_path):
    """By hand: a gray image in the formats of newer phones and of satellites."""
    path = tmp_path / f"image{suffix}"
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(path)
    assert suffix in IMAGE_SUFFIXES and check_image(path, (HEIGHT, WIDTH)) == []
    assert np.abs(read_image(path).astype(int) - 90).max() <= 2


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_without_end_marker_is_used_and_counted(progressive, tmp_path):
    """docs/faults.md row 64. By hand: the same pixels as with the marker. Pillow would refuse it, and OpenCV would
    accept a truncated file too."""
    whole = jpeg(photo(), progressive=progressive)
    path = tmp_path / "photo.jpg"
    path.write_bytes(whole[:-2])
    assert np.array_equal(read_image(path), np.asarray(Image.open(io.BytesIO(whole))))
    assert check_image(path, (HEIGHT, WIDTH)) == ["jpeg-without-end"]


def test_reading_an_image_imports_no_training_modules(tmp_path):
    """By hand: the list of loaded modules of a new process."""
    path = save(tmp_path / "photo.jpg", Image.fromarray(photo()))
    heavy = ("hotcoco", "pycocotools", "albumentations", "tensorboard", "rich", "timm", "torchvision")
    code = (
        "import sys; from vertebra import formats; "
        f"formats.read_image({str(path)!r}); formats.check_image({str(path)!r}); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
