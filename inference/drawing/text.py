"""Text in any script.

Latin, Greek and Cyrillic are drawn with the font that is part of Vertebra (Roboto, Apache-2.0), so that they look alike
on every system. A character that it lacks is drawn with the first font of the system that has it; fonts for Chinese,
Japanese and Korean alone are tens of megabytes, too large to be part of a package.
"""

import functools
import logging
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from ...structures import UsageError
from .style import Color, Picture

logger = logging.getLogger("vertebra")

SHIPPED_FONT = Path(__file__).with_name("Roboto-Regular.ttf")
_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "mono", "serif", "symbol", "math")
"""Words in the names of fonts that are tried after plain ones."""
_ATTACHED = ("Mn", "Mc", "Me", "Cf")  # marks and joiners, which are drawn with the character before them
_UNASSIGNED = "\uffff"  # no font has a glyph for it
_reported: set[str] = set()  # characters without a font that a warning has listed


@functools.lru_cache(maxsize=1024)
def render_text(text: str, size: int, font: Path | None = None) -> UInt8[ndarray, "_ _"]:
    """Return the coverage (0..255) of a line of text of ``size`` pixels; do not change it, since it is cached.

    Characters that cannot be printed become spaces. A warning lists the characters that no font has, once.
    Raises UsageError if ``font`` is not a font file.
    """
    line = "".join(character if character.isprintable() else " " for character in text)
    _warn_of_missing(line, font or SHIPPED_FONT)
    runs = [(_load(path, size), part) for path, part in _split_by_font(line, font)]
    metrics = [run_font.getmetrics() for run_font, _ in runs] or [_load(SHIPPED_FONT, size).getmetrics()]
    ascent, descent = (max(values) for values in zip(*metrics, strict=True))
    widths = [-(-run_font.getlength(part) // 1) for run_font, part in runs]
    canvas = Image.new("L", (int(sum(widths)) + 2, ascent + descent))
    draw, left = ImageDraw.Draw(canvas), 1.0
    for (run_font, part), width in zip(runs, widths, strict=True):
        draw.text((left, ascent), part, fill=255, font=run_font, anchor="ls")
        left += width
    return np.asarray(canvas)


def draw_text(image: Picture, corner: tuple[int, int], coverage: UInt8[ndarray, "_ _"], color: Color) -> None:
    """Draw rendered text into an image, in place, with its top left ``corner`` (x, y); parts outside are cut off."""
    left, top = corner
    above, before = max(0, -top), max(0, -left)
    region = image[top + above : top + coverage.shape[0], left + before : left + coverage.shape[1]]
    weight = coverage[above : above + region.shape[0], before : before + region.shape[1], None].astype(np.uint16)
    region[:] = (region * (255 - weight) + np.array(color, np.uint16) * weight + 127) // 255


def _split_by_font(text: str, preferred: Path | None) -> Iterator[tuple[Path, str]]:
    """Yield the parts of a text with the font of each; a part is as long as its font has the characters."""
    first = SHIPPED_FONT if preferred is None else preferred
    current, start = first, 0
    for index, character in enumerate(text):
        font = current
        if character != " " and unicodedata.category(character) not in _ATTACHED:
            font = next((font for font in (first, current) if has_glyph(font, character)), None)
            font = font or _find_font(character) or first
        if font != current and index > start:
            words = text[start:index].rstrip()
            if words:
                yield current, words
            start += len(words)
            if start < index and font != first:  # in right-to-left text, a space at its end would be on the wrong side
                yield first, text[start:index]
                start = index
        current = font
    if text:
        yield current, text[start:]


@functools.cache
def has_glyph(font: Path, character: str) -> bool:
    """Return whether a font has a glyph for a character: whether it is drawn in another way than an unknown one."""
    return _draw_glyph(font, character) != _draw_glyph(font, _UNASSIGNED)


def _draw_glyph(font: Path, character: str) -> bytes:
    """Return the pixels of a character on a small canvas."""
    canvas = Image.new("L", (48, 48))
    ImageDraw.Draw(canvas).text((16, 24), character, fill=255, font=_load(font, 16), anchor="ls")
    return canvas.tobytes()


@functools.cache
def _find_font(character: str) -> Path | None:
    """Return a font that has a character; None if there is none."""
    for font in (SHIPPED_FONT, *system_fonts()):
        try:
            if has_glyph(font, character):
                return font
        except (OSError, UsageError):  # fonts of bitmaps of one size, and damaged files
            continue
    return None


def _warn_of_missing(text: str, first: Path) -> None:
    """Log a warning that lists the characters of a text that no font has, each once in the life of the process."""
    unknown = [letter for letter in dict.fromkeys(text) if letter not in _reported and not has_glyph(first, letter)]
    missing = [letter for letter in unknown if letter != " " and _find_font(letter) is None]
    if missing:
        _reported.update(missing)
        logger.warning(
            "no font has %s: drawn as boxes; install a font for the script, such as one of the Noto fonts, or set the "
            "drawing option font to a font file",
            ", ".join(f"{letter} (U+{ord(letter):04X})" for letter in missing),
        )


@functools.cache
def _load(font: Path, size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(font, size)
    except OSError as error:
        raise UsageError(f"this is not a font file: {error}", "give a TrueType or OpenType font", file=font) from None


@functools.cache
def system_fonts() -> tuple[Path, ...]:
    """Return the font files of the system and of the user, plain ones first."""
    files = {
        Path(folder, name)
        for root in _font_folders()
        for folder, _, names in os.walk(root)
        for name in names
        if name.lower().endswith(_SUFFIXES)
    }
    return tuple(sorted(files, key=lambda file: (sum(word in file.name.lower() for word in _STYLES), file.name, file)))


def _font_folders() -> list[Path]:
    """Return the folders where the system keeps fonts."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111, since Path.home() fails without a home folder
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
        return [Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts"), local / "Microsoft" / "Windows" / "Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    shared = os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    own = os.environ.get("XDG_DATA_HOME", home / ".local" / "share")
    return [Path(own, "fonts"), home / ".fonts", *(Path(folder, "fonts") for folder in shared)]
