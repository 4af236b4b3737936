"""Random panoptic segmentations, and a tiny panoptic data set in COCO's format."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vertebra.data import CocoPanopticConfig
from vertebra.formats import read_json, write_json
from vertebra.structures import Classes, PanopticSegmentation, Segment

CLASSES = Classes(("cat", "dog", "cow", "sky", "road"), (3, 8, 20, 100, 199), 3)
HEIGHT, WIDTH = 4, 6
IDS = np.array([[0, 0, 7, 7, 7, 7], [5, 5, 5, 7, 7, 7], [5, 5, 70_000, 7, 7, 7], [9, 9, 9, 9, 9, 9]], np.int32)
"""The segments of the tiny data set's images: 5 is a cat, 70,000 a crowd of dogs, 7 sky and 9 road; 0 is void."""


def random_segmentation(generator: np.random.Generator, *, crowds: bool = False) -> PanopticSegmentation:
    """Return up to eight rectangles on a void image of 20 x 24, of random classes, in front of one another."""
    ids = np.zeros((20, 24), np.int32)
    segments = []
    for _ in range(int(generator.integers(1, 9))):
        top, left, height, width = (int(value) for value in generator.integers(1, 14, 4))
        label, segment_id = int(generator.integers(0, 5)), int(generator.integers(1, 2**24))
        ids[top : top + height, left : left + width] = segment_id
        crowd = crowds and label < 3 and bool(generator.random() < 0.3)
        segments.append(Segment(segment_id, label, label < 3, crowd=crowd))
    visible = tuple(segment for segment in segments if (ids == segment.id).any())
    return PanopticSegmentation(torch.from_numpy(ids), visible)


def disturbed(truth: PanopticSegmentation, generator: np.random.Generator) -> PanopticSegmentation:
    """Return a prediction near the truth: shifted by up to two pixels, and a fifth of the segments with another
    label."""
    ids = np.roll(truth.ids.numpy(), tuple(generator.integers(-2, 3, 2)), (0, 1))
    segments = []
    for segment in truth.segments:
        label = int(generator.integers(0, 5)) if generator.random() < 0.2 else segment.label
        segments.append(Segment(segment.id, label, label < 3))
    return PanopticSegmentation(torch.from_numpy(ids), tuple(segments))


def write_tiny_panoptic(root: Path) -> CocoPanopticConfig:
    """Write two gray images with the same segments, and return the config of the data set."""
    (root / "images").mkdir(parents=True)
    (root / "panoptic").mkdir()
    areas = {5: [0, 1, 3, 2], 70_000: [2, 2, 1, 1], 7: [2, 0, 4, 3], 9: [0, 3, 6, 1]}
    categories = {5: 3, 70_000: 8, 7: 100, 9: 199}
    segments = [
        {"id": number, "category_id": categories[number], "iscrowd": int(number == 70_000), "bbox": box, "area": 1}
        for number, box in areas.items()
    ]
    colors = np.stack([IDS % 256, IDS // 256 % 256, IDS // 65_536], axis=2).astype(np.uint8)
    images, annotations = [], []
    for image_id in (1, 2):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 127, np.uint8)).save(root / "images" / f"{image_id}.png")
        Image.fromarray(colors).save(root / "panoptic" / f"{image_id}.png")
        images.append({"id": image_id, "file_name": f"{image_id}.png", "height": HEIGHT, "width": WIDTH})
        annotations.append({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments})
    named = zip(CLASSES.names, CLASSES.ids, strict=True)
    listed = [{"id": number, "name": name, "isthing": int(number < 100)} for name, number in named]
    write_json(root / "panoptic.json", {"images": images, "annotations": annotations, "categories": listed})
    return CocoPanopticConfig(images=root / "images", annotations=root / "panoptic.json")


def change_json(config: CocoPanopticConfig, change: Any) -> None:
    """Read the JSON file of a data set, call ``change`` with its content, and write it again."""
    content = read_json(config.annotations)
    change(content)
    write_json(config.annotations, content)
