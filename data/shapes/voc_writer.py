"""Writer of scenes in PASCAL VOC's layout: JPEG images, XML annotations, palette masks and image lists.

As in VOC, boxes are in whole pixels, counted from 1, with both ends included. The value 255 in a mask is void: a border
of two pixels around every object, and crowds. Crowds are not in the XML. An object is ``truncated`` if any of it is
hidden, and ``difficult`` if more than half of it is hidden.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ...formats.voc_writer import VocEntry, voc_annotation_xml
from .scene import Scene, SceneObject, Split
from .shape_polygons import CLASS_NAMES

VOID = 255

Mask = UInt8[np.ndarray, "h w"]


class VocWriter:
    """A writer of one split in VOC's layout, scene by scene."""

    def __init__(self, root: Path, split: Split) -> None:
        self._root, self._split = root, split
        self._stems: list[str] = []
        for folder in (
            "Annotations", "ImageSets/Main", "ImageSets/Segmentation",
            "JPEGImages", "SegmentationClass", "SegmentationObject",
        ):  # fmt: skip
            (root / folder).mkdir(parents=True, exist_ok=True)

    def add(self, scene: Scene) -> None:
        """Write the image, the annotation and the masks of the next scene."""
        stem = f"{self._split}_{len(self._stems):06d}"
        self._stems.append(stem)
        root = self._root
        Image.fromarray(scene.image).save(root / "JPEGImages" / f"{stem}.jpg", quality=95, subsampling=0)
        (root / "Annotations" / f"{stem}.xml").write_bytes(_annotation(scene, f"{stem}.jpg"))
        classes, objects = _masks(scene)
        _save_mask(root / "SegmentationClass" / f"{stem}.png", classes)
        _save_mask(root / "SegmentationObject" / f"{stem}.png", objects)

    def finish(self) -> None:
        """Write the image lists of the split, and the class names."""
        lines = "".join(f"{stem}\n" for stem in self._stems)
        for task in ("Main", "Segmentation"):
            (self._root / "ImageSets" / task / f"{self._split}.txt").write_text(lines, encoding="utf-8", newline="\n")
        names = "".join(f"{name}\n" for name in CLASS_NAMES)
        (self._root / "class_names.txt").write_text(names, encoding="utf-8", newline="\n")


def _annotation(scene: Scene, file_name: str) -> bytes:
    height, width, depth = scene.image.shape
    entries = [_entry(obj) for obj in scene.objects if not obj.crowd]
    return voc_annotation_xml(file_name, (height, width, depth), entries, segmented=True)


def _entry(obj: SceneObject) -> VocEntry:
    x1, y1, x2, y2 = obj.box
    truncated, difficult = obj.area < obj.full_area, 2 * obj.area < obj.full_area
    return VocEntry(CLASS_NAMES[obj.label], (x1 + 1, y1 + 1, x2, y2), truncated, difficult)


def _masks(scene: Scene) -> tuple[Mask, Mask]:
    """Return the class mask (label + 1) and the object mask (object index + 1); 0 is the background."""
    classes, objects = (np.zeros(scene.image.shape[:2], dtype=np.uint8) for _ in range(2))
    for number, obj in enumerate(scene.objects, start=1):
        classes[obj.mask] = VOID if obj.crowd else obj.label + 1
        objects[obj.mask] = VOID if obj.crowd else number
    neighbors = np.ones((3, 3), dtype=np.uint8)
    border = cv2.dilate(objects, neighbors) != cv2.erode(objects, neighbors)
    classes[border] = objects[border] = VOID
    return classes, objects


def voc_palette() -> UInt8[np.ndarray, "256 3"]:
    """Return VOC's palette: the bits of an index are distributed to red, green and blue in turn, from the lowest bit of
    the index to the highest bits of the colors."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    index = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((index >> (3 * bit + channel)) & 1).astype(np.uint8) << (7 - bit)
    return palette


def _save_mask(path: Path, mask: Mask) -> None:
    image = Image.fromarray(mask)
    image.putpalette(voc_palette().tobytes())
    image.save(path)
