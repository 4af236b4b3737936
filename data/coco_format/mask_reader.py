"""Reading of the masks of many annotations: checks, and conversion to the form that heads need."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from ...formats.coco import CocoMaskAnnotation, RunLengths
from ...formats.rle import are_valid_masks, encode_segmentations, mask_areas
from ...formats.segmentations import FlatPolygons, Polygons, is_near_image, is_well_formed, surely_covers_pixels
from ...structures import MaskFormat
from .masks import MaskCollector, MaskTable
from .polygons import PolygonCollector, PolygonMaskTable


class MaskReader:
    """Reader that checks and collects the masks of annotations in any order, and builds the tables of selected ones."""

    def __init__(self, count: int, mask_format: MaskFormat) -> None:
        self._bitmaps = MaskCollector(count)
        self._polygons = PolygonCollector(count) if mask_format == "polygons" else None
        self.empty: Bool[ndarray, " n"] = np.zeros(count, bool)
        """True for each annotation whose mask covers no pixel."""

    def read_block(
        self,
        indices: Int64[ndarray, " k"],
        annotations: Sequence[CocoMaskAnnotation],
        sizes: Int64[ndarray, "k 2"],
        wanted: Bool[ndarray, " k"],
    ) -> Bool[ndarray, " k"]:
        """Check the masks of annotations, and store the valid ones among those that are ``wanted``.

        ``indices`` are the indices of the annotations in the file, ``sizes`` the (height, width) of their images.
        Returns which masks are certainly valid; the others have to be checked by :func:`segmentation_problem`.
        """
        valid = np.zeros(len(indices), bool)
        masks = [annotation.segmentation for annotation in annotations]
        coded = np.array([position for position, mask in enumerate(masks) if isinstance(mask, RunLengths)], np.int64)
        run_lengths = [{"size": mask.size, "counts": mask.counts} for mask in masks if isinstance(mask, RunLengths)]
        valid[coded] = are_valid_masks(run_lengths, sizes[coded])
        stored = valid[coded] & wanted[coded]
        self._store_run_lengths(
            indices[coded[stored]], list(itertools.compress(run_lengths, stored)), sizes[coded[stored]]
        )
        positions = np.array([position for position, mask in enumerate(masks) if isinstance(mask, list)], np.int64)
        polygons: Any = [mask for mask in masks if isinstance(mask, list)]
        formed = is_well_formed(polygons)
        positions, polygons = positions[formed], list(itertools.compress(polygons, formed))
        flat = FlatPolygons.of(polygons)
        near = is_near_image(flat, sizes[positions])
        valid[positions] = near
        stored = near & wanted[positions]
        if not stored.all():
            positions, polygons = positions[stored], list(itertools.compress(polygons, stored))
            flat = FlatPolygons.of(polygons)
        self._store_polygons(indices[positions], polygons, flat, sizes[positions])
        return valid

    def read_one(self, index: int, segmentation: Any, size: tuple[int, int]) -> None:
        """Store the mask of one annotation, which must have passed :func:`segmentation_problem`."""
        if isinstance(segmentation, list):
            flat = FlatPolygons.of([segmentation])
            self._store_polygons(np.array([index]), [segmentation], flat, np.array([size], np.int64))
        else:
            self._store_run_lengths(np.array([index]), [segmentation], np.array([size], np.int64))

    def tables(self, chosen: Int64[ndarray, " k"]) -> tuple[MaskTable | None, PolygonMaskTable | None]:
        """Return the table of the chosen annotations' masks, in their order: (bitmaps, None) or (None, polygons)."""
        if self._polygons is None:
            return self._bitmaps.table(chosen), None
        return None, self._polygons.table(chosen, self._bitmaps)

    def _store_run_lengths(
        self, indices: Int64[ndarray, " k"], masks: Sequence[Any], sizes: Int64[ndarray, "k 2"]
    ) -> None:
        self._bitmaps.add(indices.tolist(), masks, [(height, width) for height, width in sizes.tolist()])
        self.empty[indices] = self._bitmaps.areas[indices] == 0

    def _store_polygons(
        self,
        indices: Int64[ndarray, " k"],
        polygons: Sequence[Polygons],
        flat: FlatPolygons,
        sizes: Int64[ndarray, "k 2"],
    ) -> None:
        pairs = [(height, width) for height, width in sizes.tolist()]
        if self._polygons is None:
            self._bitmaps.add(indices.tolist(), polygons, pairs)
            self.empty[indices] = self._bitmaps.areas[indices] == 0
            return
        self._polygons.add(indices, flat)
        doubtful = ~surely_covers_pixels(flat, sizes)
        encoded = encode_segmentations(
            list(itertools.compress(polygons, doubtful)), list(itertools.compress(pairs, doubtful))
        )
        self.empty[indices[doubtful]] = mask_areas(encoded) == 0
