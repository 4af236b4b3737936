"""Scenes as a PASCAL VOC folder: JPEG images, XML boxes, palette masks and the lists of both splits.

As in VOC, boxes are whole pixels counted from 1 with both ends included, and 255 in a mask is void: a border of two
pixels around every object, and the crowds. Crowds are not in the XML. An object is truncated where a part of it
cannot be seen, and difficult where that is more than half of it.
"""

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from .scene import Scene, SceneObject, Split
from .shape_polygons import CLASS_NAMES

VOID = 255

Mask = UInt8[np.ndarray, "h w"]


class VocWriter:
    """Writes one split, scene by scene."""

    def __init__(self, root: Path, split: Split) -> None:
        self._root, self._split = root, split
        self._stems: list[str] = []
        for folder in (
            "Annotations", "ImageSets/Main", "ImageSets/Segmentation",
            "JPEGImages", "SegmentationClass", "SegmentationObject",
        ):  # fmt: skip
            (root / folder).mkdir(parents=True, exist_ok=True)

    def add(self, scene: Scene) -> None:
        """Write the next scene's image, boxes and masks."""
        stem = f"{self._split}_{len(self._stems):06d}"
        self._stems.append(stem)
        root = self._root
        Image.fromarray(scene.image).save(root / "JPEGImages" / f"{stem}.jpg", quality=95, subsampling=0)
        (root / "Annotations" / f"{stem}.xml").write_bytes(_annotation(scene, f"{stem}.jpg"))
        classes, objects = _masks(scene)
        _save_mask(root / "SegmentationClass" / f"{stem}.png", classes)
        _save_mask(root / "SegmentationObject" / f"{stem}.png", objects)

    def finish(self) -> None:
        """Write the lists of what is in the split, and the class names."""
        lines = "".join(f"{stem}\n" for stem in self._stems)
        for task in ("Main", "Segmentation"):
            (self._root / "ImageSets" / task / f"{self._split}.txt").write_text(lines, encoding="utf-8", newline="\n")
        names = "".join(f"{name}\n" for name in CLASS_NAMES)
        (self._root / "class_names.txt").write_text(names, encoding="utf-8", newline="\n")


def _annotation(scene: Scene, file_name: str) -> bytes:
    height, width, depth = scene.image.shape
    root = ElementTree.Element("annotation")
    _fill(root, folder="voc", filename=file_name)
    _fill(ElementTree.SubElement(root, "size"), width=width, height=height, depth=depth)
    _fill(root, segmented=1)
    for thing in scene.objects:
        if not thing.crowd:
            _describe(ElementTree.SubElement(root, "object"), thing)
    ElementTree.indent(root)
    return ElementTree.tostring(root) + b"\n"


def _describe(element: ElementTree.Element, thing: SceneObject) -> None:
    _fill(element, name=CLASS_NAMES[thing.label], pose="Unspecified")
    _fill(element, truncated=int(thing.area < thing.whole_area), difficult=int(2 * thing.area < thing.whole_area))
    x1, y1, x2, y2 = thing.box
    _fill(ElementTree.SubElement(element, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)


def _fill(element: ElementTree.Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(element, tag).text = str(text)


def _masks(scene: Scene) -> tuple[Mask, Mask]:
    """Per pixel the class (label + 1) and the object (counted from 1)."""
    classes, objects = (np.zeros(scene.image.shape[:2], dtype=np.uint8) for _ in range(2))
    for number, thing in enumerate(scene.objects, start=1):
        classes[thing.mask] = VOID if thing.crowd else thing.label + 1
        objects[thing.mask] = VOID if thing.crowd else number
    around = np.ones((3, 3), dtype=np.uint8)
    border = cv2.dilate(objects, around) != cv2.erode(objects, around)
    classes[border] = objects[border] = VOID
    return classes, objects


def voc_palette() -> UInt8[np.ndarray, "256 3"]:
    """VOC's colours: the bits of the index, dealt to red, green and blue from the highest bit of each down."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    index = np.arange(256)
    for place in range(8):
        for channel in range(3):
            palette[:, channel] |= ((index >> (3 * place + channel)) & 1).astype(np.uint8) << (7 - place)
    return palette


def _save_mask(path: Path, mask: Mask) -> None:
    image = Image.fromarray(mask)
    image.putpalette(voc_palette().tobytes())
    image.save(path)
