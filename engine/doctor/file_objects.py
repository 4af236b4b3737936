"""The annotations of a COCO file, or of one in a format that is read as COCO's, as they are written.

Opening a data set corrects, clips and leaves out; the checks here need the boxes, areas and outlines as given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from ...data.coco_format.opening import ObjectsConfig
from ...formats.coco import CocoAnnotation, CocoFile, CocoImage, CocoMaskAnnotation, decode_blocks
from ...formats.json_files import paused_garbage_collection
from ...formats.segmentations import FlatPolygons, is_well_formed

LOOKED_AT = 200
"""The number of annotations, from the beginning of a file, in which a ``segmentation`` is looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class FileObjects:
    """The readable annotations of a file; fields that are missing or have another type are NaN."""

    image_ids: list[int | str]
    file_names: list[str]
    sizes: Int64[ndarray, "m 2"]
    """The declared (height, width) of each image."""
    rows: Int64[ndarray, " n"]
    """The index of each annotation in the file."""
    ids: list[int | str | None]
    """The id of each annotation; for formats other than COCO's, its place in the files."""
    images: Int64[ndarray, " n"]
    """The index of the image of each annotation."""
    categories: Int64[ndarray, " n"]
    boxes: Float64[ndarray, "n 4"]
    """x, y, width, height."""
    areas: Float64[ndarray, " n"]
    crowd: Bool[ndarray, " n"]
    extents: Float64[ndarray, "n 4"]
    """xyxy of the points of the polygons; NaN without polygons."""
    polygon_areas: Float64[ndarray, " n"]
    """The sum of the areas of the polygons; NaN without polygons."""

    @property
    def corners(self) -> Float64[ndarray, "n 4"]:
        """The boxes as xyxy."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)

    @property
    def sizes_of_objects(self) -> Int64[ndarray, "n 2"]:
        """The declared (height, width) of the image of each annotation."""
        return self.sizes[self.images]


def has_masks(file: CocoFile) -> bool:
    """Return whether one of the first annotations has a segmentation that is not empty."""
    for _, block in decode_blocks(file.annotations[:LOOKED_AT], CocoMaskAnnotation):
        if any(row is not None and row.segmentation for row in block):
            return True
    return False


def read_file_objects(config: ObjectsConfig, with_polygons: bool) -> FileObjects:
    """Read the annotations of a data set again as they are written; raise DataError if the files have changed."""
    source = config.source()
    with paused_garbage_collection():
        return tabulate_objects(source.read(source.fingerprint()), with_polygons)


def tabulate_objects(file: CocoFile, with_polygons: bool) -> FileObjects:
    """Return the readable annotations of a file; those of unknown images are left out."""
    with paused_garbage_collection():
        images = [row for _, block in decode_blocks(file.images, CocoImage) for row in block if row is not None]
        index_of = {image.id: index for index, image in enumerate(images)}
        row_type = CocoMaskAnnotation if with_polygons else CocoAnnotation
        blocks = [
            _read_block(first, [(index, row) for index, row in enumerate(block) if row is not None], index_of)
            for first, block in decode_blocks(file.annotations, row_type)
        ]
    numbers = np.concatenate([block[0] for block in blocks]) if blocks else np.zeros((0, 14))
    rows = numbers[:, 0].astype(np.int64)
    ids = [annotation_id for block in blocks for annotation_id in block[1]]
    if file.origin is not None:
        ids = [str(file.origin.places[row]) for row in rows.tolist()]
    known = numbers[:, 1] >= 0
    numbers, rows = numbers[known], rows[known]
    return FileObjects(
        image_ids=[image.id for image in images],
        file_names=[image.file_name for image in images],
        sizes=np.array([(image.height, image.width) for image in images], np.int64).reshape(-1, 2),
        rows=rows,
        ids=[annotation_id for annotation_id, kept in zip(ids, known.tolist(), strict=True) if kept],
        images=numbers[:, 1].astype(np.int64),
        categories=numbers[:, 2].astype(np.int64),
        boxes=numbers[:, 3:7],
        areas=numbers[:, 7],
        crowd=numbers[:, 8] == 1,
        extents=numbers[:, 9:13],
        polygon_areas=numbers[:, 13],
    )


def _read_block(
    first: int, rows: Sequence[tuple[int, CocoAnnotation]], index_of: dict[int | str, int]
) -> tuple[Float64[ndarray, "k 14"], list[int | str | None]]:
    """Return the numbers of a block of annotations, a row each, and their ids."""
    nan = float("nan")
    numbers = np.full((len(rows), 14), nan)
    for position, (index, row) in enumerate(rows):
        box = row.bbox or (nan,) * 4
        area = nan if row.area is None else row.area
        image = index_of.get(row.image_id, -1)
        numbers[position, :9] = (first + index, image, row.category_id, *box, area, row.iscrowd)
    polygons: list[Any] = [getattr(row, "segmentation", None) for _, row in rows]
    chosen = [position for position, value in enumerate(polygons) if isinstance(value, list) and value]
    objects = [polygons[position] for position in chosen]
    formed = is_well_formed(objects) if objects else np.zeros(0, bool)
    if formed.any():
        kept = np.array(chosen)[formed]
        numbers[kept, 9:14] = _measure([value for value, good in zip(objects, formed, strict=True) if good])
    return numbers, [row.id for _, row in rows]


def _measure(objects: Sequence[list[list[float]]]) -> Float64[ndarray, "k 5"]:
    """Return the extent (xyxy) of the polygons of each object, and the sum of their areas."""
    flat = FlatPolygons.of(objects)
    x, y = flat.points.T
    begins = np.cumsum(flat.lengths) - flat.lengths
    following = np.arange(1, len(x) + 1)
    following[begins + flat.lengths - 1] = begins
    areas = np.abs(np.add.reduceat(x * y[following] - x[following] * y, begins)) / 2
    of_object = np.cumsum(flat.counts) - flat.counts
    first_points = begins[of_object]
    low = np.minimum.reduceat(flat.points, first_points, axis=0)
    high = np.maximum.reduceat(flat.points, first_points, axis=0)
    return np.concatenate([low, high, np.add.reduceat(areas, of_object)[:, None]], axis=1)
