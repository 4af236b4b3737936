"""Opening a COCO data set: its annotations and image files are checked once a machine, and kept in the cache."""

import functools
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray
from pydantic import Field

from ...formats.coco import digest_file, paused_garbage_collection, read_coco_file
from ...formats.images import check_image
from ...structures import DataError, MaskFormat
from ..cache import Contents, open_cached
from ..file_checks import FileListing, check_files, list_files
from ..image_files import ImageFilesConfig
from ..report import DataReport
from .annotations import CocoAnnotations, read_annotations

VERSION = 2
"""Counted up when the same files come to give other contents, so that none kept before are taken for them."""
KEPT_FROM = 2**20
"""Bytes of an annotation file from which on what was found in it is kept: reading a smaller one takes no longer."""


class CocoConfig(ImageFilesConfig):
    """A folder of images and a COCO annotation file."""

    name: Literal["coco"] = "coco"
    images: Path
    annotations: Path
    class_names: tuple[str, ...] | None = None
    """Which classes, in which order; None takes all of the file, by id."""
    masks: bool = False
    """Read the objects' masks too, and score predicted ones; then an object without a mask is bad data."""
    mask_format: MaskFormat = "bitmaps"
    """The form in which a head gets the masks: pixels, or the polygons, exact at any size, which a mask branch with
    ``truth="polygons"`` learns from. Run lengths become the outlines of their pixels. Until an image is resized its
    bitmaps take a byte for each object and each of its pixels, beside those of the resized image: 1.2 GB, at times
    1.6, for 100 objects in 12 million pixels, in every worker. Polygons take next to nothing."""
    min_box: float = Field(default=1.0, ge=0)
    """Objects with a shorter side, in original pixels, are not trained on."""
    subset: int | None = Field(default=None, gt=0)
    """The first images of the file only."""
    keep_empty: bool = True
    """Keep images without objects: they teach what background is."""
    allow_outside: bool = False
    """Accept file names that lead out of the image folder."""

    def classes(self) -> tuple[str, ...]:
        """Return the class names, as far as the config states them."""
        return self.class_names if self.class_names is not None else super().classes()


def open_coco(config: CocoConfig, boxes: bool, report: DataReport) -> tuple[CocoAnnotations, Int64[ndarray, " n"], str]:
    """Return the annotations of a COCO file, the indices of the images to use, and the digest of the file.

    What was found goes to the report. Without ``boxes`` nothing is asked of them, and none are read.
    """
    digest = digest_file(config.annotations)
    build = functools.partial(_build, config, boxes, DataReport(report.policy, report.source), digest)
    if config.annotations.stat().st_size < KEPT_FROM:
        contents, why_not_kept = build(), ""
    else:
        contents, why_not_kept = open_cached("coco", _key(config, boxes, report, digest), build, _FolderCheck(config))
    report.add(contents.facts["report"])
    report.warnings += [why_not_kept] if why_not_kept else []
    return CocoAnnotations.of_contents(contents), contents.arrays["used"], digest


def _key(config: CocoConfig, boxes: bool, report: DataReport, digest: str) -> dict[str, Any]:
    """Return all that the contents depend on, but for the image files."""
    return {
        "version": VERSION,
        "annotations": digest,
        "images": str(config.images.absolute()),
        "policy": report.policy,
        "class_names": config.class_names,
        "masks": config.mask_format if config.masks else None,
        "min_box": config.min_box if boxes else None,
        "subset": config.subset,
        "keep_empty": config.keep_empty,
        "allow_outside": config.allow_outside,
    }


class _FolderCheck:
    """Tells whether the image files are those that an entry of the cache was made of."""

    def __init__(self, config: CocoConfig) -> None:
        self._folder = config.images
        self._listing: FileListing | None = None

    def __call__(self, contents: Contents) -> bool:
        arrays = contents.arrays
        if self._listing is None:  # the same names in every entry for the same annotations
            self._listing = list_files(self._folder, arrays["file_names"].tolist())
        return self._listing.is_same(arrays["file_sizes"], arrays["file_times"])


def _build(config: CocoConfig, boxes: bool, report: DataReport, digest: str) -> Contents:
    with paused_garbage_collection():
        file = read_coco_file(config.annotations)
        if file.digest != digest:
            raise DataError(
                "the file was changed while it was read", "open it again", case="changed-file", file=config.annotations
            )
        annotations = read_annotations(
            file,
            config.annotations,
            report,
            class_names=config.class_names,
            min_box=config.min_box if boxes else None,
            masks=config.mask_format if config.masks else None,
            subset=config.subset,
        )
        del file
        listing = list_files(config.images, annotations.file_names.tolist())
        usable = _check_image_files(config, annotations, listing, report)
    _count_objects(annotations, usable, report)
    if not config.keep_empty:
        without = np.diff(annotations.starts) == 0
        for index in np.flatnonzero(usable & without).tolist():
            report.skip("images", "without-objects", annotations.image_ids[index].item())
        usable &= ~without
    used = np.flatnonzero(usable)
    report.require_images(len(used), "check the paths and classes")
    arrays = annotations.arrays() | {"used": used, "file_sizes": listing.sizes, "file_times": listing.times}
    names = {"class_names": annotations.class_names, "category_ids": annotations.category_ids}
    return Contents(arrays, {**names, "report": report.state()})


def _check_image_files(
    config: CocoConfig, annotations: CocoAnnotations, listing: FileListing, report: DataReport
) -> Bool[ndarray, " n"]:
    """Return which image files are there and are what the annotations say."""
    folder, root = os.fspath(config.images), config.images.resolve()
    ids, names, sizes = annotations.image_ids.tolist(), annotations.file_names.tolist(), annotations.sizes.tolist()

    def check(index: int) -> list[str]:
        path = os.path.join(folder, names[index].decode())  # noqa: PTH118 - a Path takes longer than the look
        if not (config.allow_outside or listing.inside[index] or Path(path).resolve().is_relative_to(root)):
            raise DataError(
                f"the file name leads out of the image folder {folder}", "set allow_outside if it may",
                case="outside-root", file=path, image_id=ids[index],
            )  # fmt: skip
        height, width = sizes[index]
        return check_image(path, (height, width), ids[index])

    return check_files(ids, check, report)


def _count_objects(annotations: CocoAnnotations, usable: Bool[ndarray, " n"], report: DataReport) -> None:
    """Count what a person would want to know: objects on images that are skipped, images without objects, crowds."""
    starts, rows = annotations.starts, annotations.rows
    for index in np.flatnonzero(~usable).tolist():
        for row in rows[starts[index] : starts[index + 1]].tolist():
            report.skip("annotations", "on-skipped-image", f"row {row}")
    for index in np.flatnonzero(usable & (np.diff(starts) == 0)).tolist():
        report.note("image-without-objects", annotations.image_ids[index].item())
    for row in rows[annotations.crowd].tolist():
        report.note("crowd", f"row {row}")
