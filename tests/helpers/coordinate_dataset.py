"""A data set whose pixels say where they come from: red is the index of the image, green is y and blue is x."""

from dataclasses import replace

import numpy as np

from vertebra.data import (
    Dataset,
    MixConfig,
    Objects,
    PolygonMask,
    Record,
    ResizeConfig,
    Sample,
    build_mix,
    build_transform,
)
from vertebra.structures import Classes

HEIGHT, WIDTHS = 60, (60, 84, 72, 100, 66)
OBJECTS = 3
AS_IT_IS = ResizeConfig(short_sides=(HEIGHT,))
FILL = (124, 116, 104)  # where no image is


class CoordinateDataset(Dataset):
    """Five images with three objects and a region to ignore each; the label of an object is 10 times the image's
    index plus the object's number."""

    task = "detection"

    def __init__(self, form: str | None = "bitmaps", tasks: tuple[str, ...] = ("detection",)) -> None:
        """``form`` is that of the masks; None for boxes alone."""
        self.masks, self.mask_format = form is not None, form or "bitmaps"
        self.tasks, self.image_ids = tasks, list(range(len(WIDTHS)))
        self.indices_read: list[int] = []

    @property
    def classes(self):
        return {task: Classes(("a",), (1,)) for task in self.tasks}

    def __len__(self) -> int:
        return len(WIDTHS)

    def read_image(self, index: int) -> Record:
        self.indices_read.append(index)
        y, x = np.mgrid[:HEIGHT, : WIDTHS[index]]
        image = np.stack([np.full_like(x, index), y, x], axis=2).astype(np.uint8)
        return Record(image, image_id=index, file=f"{index}.png")

    def add_annotations(self, record: Record, index: int) -> Record:
        semantic = semantic_of(index) if "semantic" in self.tasks else None
        return replace(record, objects=self._objects(index) if "detection" in self.tasks else None, semantic=semantic)

    def ground_truth(self):
        raise NotImplementedError

    def _objects(self, index: int) -> Objects:
        masks = masks_of(index)
        objects = Objects(boxes_of(masks), 10 * index + np.arange(OBJECTS), ignored_of(index))
        if not self.masks:
            return objects
        if self.mask_format == "bitmaps":
            return objects.replace(masks=masks)
        return objects.replace(polygon_masks=tuple(PolygonMask.of_bitmap(mask) for mask in masks))


def masks_of(index: int) -> np.ndarray:
    """Return a disk, random pixels along the diagonal, and a stripe that runs from border to border."""
    generator = np.random.default_rng(index)
    y, x = np.mgrid[:HEIGHT, : WIDTHS[index]]
    (top, left), radius = generator.integers(15, 45, 2), generator.integers(8, 20)
    disk = (y - top) ** 2 + (x - left) ** 2 < radius**2
    grains = generator.random(y.shape) < 0.5
    stripe = abs(y + x // 2 - generator.integers(20, 70)) < 4
    return np.stack([disk, grains & (abs(y - x) < 12), stripe]).astype(np.uint8)


def ignored_of(index: int) -> np.ndarray:
    """Return the regions to ignore of an image: none for the first image, one for any other."""
    return np.array([[5.5, 8, 20.25 + index, 30]], np.float32)[: index > 0]


def semantic_of(index: int) -> np.ndarray:
    """Return the semantic map of an image; each image has another pattern."""
    y, x = np.mgrid[:HEIGHT, : WIDTHS[index]]
    return ((x // 7 + y // (5 + index)) % 4).astype(np.uint8)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Return the box of each mask, from its first pixel to the end of its last."""
    boxes = [(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) for rows, columns in map(np.nonzero, masks)]
    return np.array(boxes, np.float32).reshape(-1, 4)


def mix_sample(
    config: MixConfig, dataset: Dataset | None = None, epoch: int = 0, index: int = 0, transform=AS_IT_IS
) -> Sample:
    """Return the mixed sample of an index in an epoch."""
    dataset = dataset or CoordinateDataset()
    return build_mix(config, dataset)(dataset.read, build_transform(transform), epoch, index)


def pixels_of(sample: Sample) -> np.ndarray:
    return sample.image.permute(1, 2, 0).numpy().astype(int)
