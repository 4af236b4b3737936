"""Drawing predictions: masks, boxes, colors and text."""

import cv2
import numpy as np
import pytest
import torch

from vertebra.inference import (
    ColoredMask,
    DrawingConfig,
    blend_masks,
    class_color,
    draw_boxes,
    draw_classes,
    draw_lines,
    draw_panoptic,
    render_text,
)
from vertebra.inference.drawing import text as text_module
from vertebra.structures import IGNORE, PanopticSegmentation, Segment, UsageError

RNG = np.random.default_rng(0)


def ragged_masks(count: int, shape: tuple[int, int]) -> list[np.ndarray]:
    """Return masks with holes, some of them across the border of the image, and an empty one."""
    masks = [np.zeros(shape, bool)]
    for top, left in RNG.integers(-10, 50, (count, 2)).tolist():
        mask = np.zeros(shape, bool)
        part = mask[max(0, top) : top + 25, max(0, left) : left + 30]
        part[:] = RNG.random(part.shape) < 0.9
        masks.append(mask)
    return masks


@pytest.mark.parametrize("opacity", [0.5, 0.25, 0.0, 1.0])
def test_masks_are_blended_and_outlined(opacity):
    """Oracle: rounded floating-point arithmetic and OpenCV's contours on full-size bitmaps, one mask after the other.

    The input image is not changed, and a mask may be given as a part of the image.
    """
    image = RNG.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    before, expected, pairs = image.copy(), image.copy(), []
    for label, mask in enumerate(ragged_masks(12, image.shape[:2])):
        color = class_color(label)
        pairs.append(ColoredMask(mask[5:, 7:], color, (7, 5)))
        mask[:5], mask[:, :7] = False, False
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(expected, outlines, -1, [value // 3 for value in color], 3)
        expected[mask] = np.floor(before[mask] * (1 - opacity) + np.array(color) * opacity + 0.5)
        for x, y in (point for outline in outlines for point in outline[:, 0]):
            expected[y, x] = color
    drawn = blend_masks(image, iter(pairs), DrawingConfig(opacity=opacity))
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(image, before)


def test_overlapping_masks_of_one_class_do_not_melt_together():
    """Symptom: by hand, two overlapping squares of one class: both have the same color inside, and between them are
    the full color and a dark line."""
    masks = np.zeros((2, 100, 100), bool)
    masks[0, 10:60, 10:60], masks[1, 30:90, 30:90] = True, True
    drawn = blend_masks(np.full((100, 100, 3), 200, np.uint8), [ColoredMask(mask, (240, 30, 30)) for mask in masks])
    inside, outline, dark = [220, 115, 115], [240, 30, 30], [80, 10, 10]
    assert [drawn[20, 20].tolist(), drawn[45, 45].tolist()] == [inside, inside]
    assert drawn[45, 29:33].tolist() == [dark, outline, inside, inside]


def test_every_label_has_another_color():
    """Law: for all labels of a semantic map; the first ones differ much, and black text is readable on all of them."""
    colors = np.array([class_color(label) for label in range(IGNORE)], int)
    assert len(np.unique(colors, axis=0)) == IGNORE
    distances = np.abs(colors[:8, None] - colors[None, :8]).sum(axis=2)
    assert distances[~np.eye(8, dtype=bool)].min() > 60
    assert colors.max(axis=1).min() >= 200


def test_boxes_are_drawn_in_the_colors_of_their_classes():
    """By hand: the corner of the labels of two boxes, whose classes share a hue with others; by object, both boxes of
    a class differ."""
    image = np.full((400, 600, 3), 128, np.uint8)
    boxes = torch.tensor([[10.0, 100.0, 200.0, 300.0], [300.0, 100.0, 500.0, 300.0]])
    names = [str(label) for label in range(90)]
    drawn = draw_boxes(image, boxes, torch.tensor([0, 81]), names)
    assert tuple(drawn[98, 10].tolist()) == class_color(0)
    assert tuple(drawn[98, 300].tolist()) == class_color(81)
    assert len({class_color(0), class_color(1), class_color(80), class_color(81)}) == 4
    drawn = draw_boxes(image, boxes, torch.tensor([7, 7]), names, config=DrawingConfig(color_by="object"))
    assert [tuple(drawn[98, column].tolist()) for column in (10, 300)] == [class_color(0), class_color(1)]


def test_labels_cover_neither_small_objects_nor_each_other():
    """Symptom: labels covered the small objects that they name. By hand: objects of 20 pixels, nearer to each other
    than a label is wide, are as they were inside the boxes, and every label is seen as a whole."""
    image = np.full((480, 640, 3), 128, np.uint8)
    corners = [(40 + 30 * column, 60 + 80 * row) for row in range(3) for column in range(9)]
    corners += [(500, 300), (500, 278), (500, 322)]  # above each other, without a place for a label between them
    boxes = torch.tensor([[x, y, x + 20, y + 20] for x, y in corners], dtype=torch.float32)
    labels = torch.arange(len(corners))
    drawn = draw_boxes(image, boxes, labels, ["car"] * len(corners), torch.full((len(corners),), 0.5))
    assert all((drawn[y + 2 : y + 19, x + 2 : x + 19] == 128).all() for x, y in corners)
    height, width = (side + extra for side, extra in zip(render_text("car 0.50", 12).shape, (0, 4), strict=True))
    for label in labels.tolist():
        outline = 4 * 21 - 4  # the pixels of the box
        covered = (drawn == class_color(label)).all(axis=2).sum() - outline
        assert 0.5 * height * width < covered < height * width


def test_sizes_follow_the_image():
    """By hand: lines and text of images of 500 and 2000 pixels, beside a small object, and as they are set."""
    small, large, config = np.zeros((500, 700, 3), np.uint8), np.zeros((2000, 3000, 3), np.uint8), DrawingConfig()
    assert [config.line_width(image) for image in (small, large)] == [1, 4]
    assert config.line_width(large, (10, 10, 60, 60)) == 2 and config.line_width(large, (10, 10, 20, 20)) == 1
    assert [config.text_height(image) for image in (small, large)] == [12, 44]
    assert config.text_height(large, [0, 0, 100, 100]) == 20 and config.text_height(large, [0, 0, 9, 9]) == 12
    chosen = DrawingConfig(thickness=7, text_size=31)
    assert (chosen.line_width(large), chosen.text_height(large, [0, 0, 9, 9])) == (7, 31)


def test_text_is_below_the_image_and_small_images_are_enlarged():
    """By hand: an image of 60 pixels is drawn three times as wide, one of 400 at its size; the text below is black
    on white."""
    line = len(render_text("dog", 12))
    assert draw_lines(np.full((40, 60, 3), 200, np.uint8), ["dog"]).shape == (120 + line + 4, 180, 3)
    wide = np.full((50, 400, 3), 7, np.uint8)
    picture = draw_lines(wide, ["dog", "cat"])
    np.testing.assert_array_equal(picture[:50], wide)
    strip = picture[50:]
    assert len(strip) == 2 * line + 4 and strip.max() == 255
    assert strip[: line + 2].min() < 50 and strip[line + 2 :].min() < 50


def ink(text: str, size: int = 40) -> int:
    """Return the sum of the coverage of a rendered text."""
    return int(render_text(text, size).astype(int).sum())


def test_text_has_accents_and_greek_and_cyrillic_letters():
    """Symptom: OpenCV drew ``?`` for each of them. By hand: each letter differs from an unknown one and from the
    others, and no warning is logged; an accent adds ink."""
    letters = "éeŽZЖжΩß€ñğș"
    images = {render_text(letter, 40).tobytes() for letter in (*letters, "\uffff")}
    assert len(images) == len(letters) + 1
    assert all(text_module.has_glyph(text_module.SHIPPED_FONT, letter) for letter in letters)
    assert ink("é") > ink("e")


def test_missing_characters_are_reported_once_and_the_others_are_drawn(monkeypatch, caplog):
    """docs/faults.md row 190. By hand: on a system without fonts, a Chinese word between Latin ones."""
    monkeypatch.setattr(text_module, "system_fonts", lambda: ())
    text_module._find_font.cache_clear()
    render_text.cache_clear()
    wide, narrow = render_text("cat 猫猫 dog", 20), render_text("cat  dog", 20)
    assert wide.shape[1] > narrow.shape[1] + 10
    np.testing.assert_array_equal(wide[:, :30], render_text("cat 1", 20)[:, :30])
    render_text("another 猫", 20)
    (record,) = caplog.records
    assert "no font has 猫 (U+732B): drawn as boxes" in record.getMessage()
    text_module._find_font.cache_clear()
    render_text.cache_clear()


def test_fonts_of_the_system_are_used_for_what_the_shipped_font_lacks(monkeypatch):
    """By hand: a font that has everything (the shipped one under another name) stands for a font of the system."""
    other = text_module.SHIPPED_FONT.with_name("System.ttf")
    load = text_module._load
    monkeypatch.setattr(text_module, "system_fonts", lambda: (other,))
    monkeypatch.setattr(text_module, "_load", lambda font, size: load(text_module.SHIPPED_FONT, size))
    monkeypatch.setattr(
        text_module, "has_glyph", lambda font, letter: font == other or letter.isascii() or letter == "\u0301"
    )
    text_module._find_font.cache_clear()
    parts = list(text_module._split_by_font("cat हिन्दी 猫e\u0301x", None))
    text_module._find_font.cache_clear()
    shipped = text_module.SHIPPED_FONT
    assert parts == [(shipped, "cat"), (shipped, " "), (other, "हिन्दी 猫"), (shipped, "e\u0301x")]


def test_a_file_that_is_no_font_is_refused(tmp_path):
    """docs/faults.md row 190. By hand: UsageError, with the file."""
    (tmp_path / "font.ttf").write_text("no font")
    with pytest.raises(UsageError, match=r"font\.ttf: this is not a font file"):
        render_text("dog", 20, tmp_path / "font.ttf")


def test_class_maps_are_blended_with_a_legend_of_several_columns():
    """By hand: three classes of an image of 400 pixels stand in one line; ignored and background pixels stay."""
    image, classes = np.full((30, 400, 3), 100, np.uint8), np.zeros((30, 400), np.uint8)
    classes[:, 100:200], classes[:, 200:300], classes[:10, 300:], classes[10:, 300:] = 1, 2, 3, IGNORE
    names = ["background", "cat", "Жираф", "étoile"]
    drawn = draw_classes(image, classes, names, DrawingConfig(opacity=0.75))
    assert (drawn[:30, :100] == 100).all() and (drawn[10:30, 300:] == 100).all()
    for column, label in ((150, 1), (250, 2)):
        assert drawn[20, column].tolist() == [(100 + 3 * value + 2) // 4 for value in class_color(label)]
    legend = drawn[30:]
    assert len(legend) == len(render_text("", 12)) + 4
    assert all((legend == class_color(label)).all(axis=2).any() for label in (1, 2, 3))


def test_panoptic_segments_are_drawn_with_a_legend():
    """By hand: stuff is blended by half, a thing is outlined in its color too, void is unchanged, and below there is a
    line with a square for each class."""
    image = np.full((40, 400, 3), 100, np.uint8)
    ids = torch.zeros(40, 400, dtype=torch.int32)
    ids[:, 100:], ids[10:30, 200:240] = 7, 3
    drawn = draw_panoptic(
        image, PanopticSegmentation(ids, (Segment(7, 2, False), Segment(3, 0, True))), ("cat", "dog", "sky")
    )
    assert (drawn[:40, :100] == 100).all() and (image == 100).all()
    for row, column, label in ((5, 300, 2), (20, 220, 0)):
        assert drawn[row, column].tolist() == [(100 + value + 1) // 2 for value in class_color(label)]
    assert tuple(drawn[10, 220].tolist()) == class_color(0)
    legend = drawn[40:]
    assert len(legend) == len(render_text("", 12)) + 4
    assert all((legend == class_color(label)).all(axis=2).sum() == 12 * 12 for label in (0, 2))
