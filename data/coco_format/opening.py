"""Opening of data sets of objects: annotations and image files are checked once per machine, and the results cached."""

import functools
import os
from abc import abstractmethod
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray
from pydantic import Field

from ...formats.images import check_image, image_size
from ...formats.json_files import paused_garbage_collection
from ...structures import DataError, MaskFormat
from ..cache import Contents, open_cached
from ..file_checks import FileListing, check_files, list_files
from ..image_files import ImageFilesConfig
from ..report import DataReport
from .annotations import CocoAnnotations, read_annotations
from .keypoints import CocoKeypointsConfig
from .source import AnnotationSource, CocoFilesSource, CocoSource

VERSION = 4
"""Cache version: increase it when the same files would give different contents, so that old entries are not reused."""
MIN_CACHED_BYTES = 2**20
"""The results are cached for annotation files of at least this size; smaller ones are read as fast as the cache."""


class ObjectsConfig(ImageFilesConfig):
    """Base class of the configs of detection data sets whose annotations have what COCO's have."""

    class_names: tuple[str, ...] | None = None
    """The classes to use, in the order of their labels; None takes all classes of the file, sorted by id."""
    masks: bool = False
    """Read the masks of objects, and evaluate predicted masks; an object without a mask is then bad data."""
    mask_format: MaskFormat = "bitmaps"
    """The form in which a head receives the masks: bitmaps, or polygons, which are exact at any size, for a mask branch
    with ``truth="polygons"``. RLE masks become the outlines of their pixels. Bitmaps take one byte per object and pixel
    of the original image until it is resized: 1.2 GB, at times 1.6 GB, for 100 objects in 12 million pixels, in every
    worker. Polygons take almost no memory."""
    keypoints: CocoKeypointsConfig | None = None
    """How to read the keypoints of objects, which are then also evaluated; a category of the file must declare them.
    None: do not read keypoints."""
    min_box: float = Field(default=1.0, ge=0)
    """Objects with a side shorter than this, in original pixels, are not used for training."""
    subset: int | None = Field(default=None, gt=0)
    """Use only this number of images, from the beginning of the file."""
    keep_empty: bool = True
    """Keep images without objects, which are pure background."""
    allow_outside: bool = False
    """Accept file names that point outside the image folder."""

    def classes(self) -> tuple[str, ...]:
        """Return ``class_names``; raise UsageError if it is None."""
        return self.class_names if self.class_names is not None else super().classes()

    @abstractmethod
    def source(self) -> AnnotationSource:
        """Return the files with the annotations."""

    @abstractmethod
    def image_folder(self) -> Path:
        """Return the folder to which the file names of the images refer."""


class CocoConfig(ObjectsConfig):
    """A detection data set: a folder of images and a COCO annotation file, ``.json`` or ``.json.gz``."""

    name: Literal["coco"] = "coco"
    images: Path
    annotations: Path
    more_annotations: tuple[Path, ...] = ()
    """Further files about the same or other images in the folder. Images with the same ``file_name`` are one image, and
    categories with the same name are one class."""

    def source(self) -> AnnotationSource:
        if self.more_annotations:
            return CocoFilesSource(self.annotations, self.more_annotations)
        return CocoSource(self.annotations)

    def image_folder(self) -> Path:
        return self.images


def open_objects(
    config: ObjectsConfig, source: AnnotationSource, boxes: bool, report: DataReport
) -> tuple[CocoAnnotations, Int64[ndarray, " n"], str]:
    """Return the annotations of a source, the indices of the usable images, and the SHA-256 of the annotations.

    The findings of the checks go to the report. With ``boxes=False`` boxes are neither read nor checked.
    """
    fingerprint = source.fingerprint()
    build = functools.partial(_build, config, source, boxes, DataReport(report.policy, report.source), fingerprint)
    if source.size() < MIN_CACHED_BYTES:
        contents, not_stored_message = build(), ""
    else:
        key = _cache_key(config, boxes, report, fingerprint)
        contents, not_stored_message = open_cached("coco", key, build, _FolderCheck(config))
    report.add(contents.facts["report"])
    report.warnings += [not_stored_message] if not_stored_message else []
    return CocoAnnotations.of_contents(contents), contents.arrays["used"], contents.facts["digest"]


def _cache_key(config: ObjectsConfig, boxes: bool, report: DataReport, fingerprint: str) -> dict[str, Any]:
    """Return everything that the contents depend on, except for the image files."""
    return {
        "version": VERSION,
        "annotations": fingerprint,
        "images": str(config.image_folder().absolute()),
        "policy": report.policy,
        "class_names": config.class_names,
        "masks": config.mask_format if config.masks else None,
        "keypoints": None if config.keypoints is None else config.keypoints.model_dump(mode="json"),
        "min_box": config.min_box if boxes else None,
        "subset": config.subset,
        "keep_empty": config.keep_empty,
        "allow_outside": config.allow_outside,
    }


class _FolderCheck:
    """Callable that returns whether the image files are unchanged since a cache entry was built."""

    def __init__(self, config: ObjectsConfig) -> None:
        self._folder = config.image_folder()
        self._listing: FileListing | None = None

    def __call__(self, contents: Contents) -> bool:
        arrays = contents.arrays
        if self._listing is None:  # all entries for the same annotations have the same file names
            self._listing = list_files(self._folder, arrays["file_names"].tolist())
        return self._listing.is_same(arrays["file_sizes"], arrays["file_times"])


def _build(
    config: ObjectsConfig, source: AnnotationSource, boxes: bool, report: DataReport, fingerprint: str
) -> Contents:
    with paused_garbage_collection():
        file = source.read(fingerprint)
        digest = file.digest
        annotations = read_annotations(
            file,
            source.path,
            report,
            class_names=config.class_names,
            min_box=config.min_box if boxes else None,
            masks=config.mask_format if config.masks else None,
            keypoints=config.keypoints,
            subset=config.subset,
            read_size=functools.partial(read_size, config.image_folder(), config.allow_outside),
        )
        del file
        annotations, listing = _find_files(config.image_folder(), annotations, report)
        usable = _check_image_files(config, annotations, listing, report)
    _count_objects(annotations, usable, report)
    unwanted = {"without-objects": (np.diff(annotations.starts) == 0) & (not config.keep_empty)}
    if config.keypoints is not None:
        unwanted["few-keypoints"] = _labeled_keypoints(annotations) < config.keypoints.min_labeled
    for case, images in unwanted.items():
        for index in np.flatnonzero(usable & images).tolist():
            report.skip("images", case, annotations.image_ids[index].item())
        usable &= ~images
    used = np.flatnonzero(usable)
    report.require_usable(len(used), "check the paths and classes")
    arrays = annotations.arrays() | {"used": used, "file_sizes": listing.sizes, "file_times": listing.times}
    skeleton = None if annotations.skeleton is None else asdict(annotations.skeleton)
    names = {"class_names": annotations.class_names, "category_ids": annotations.category_ids, "skeleton": skeleton}
    return Contents(arrays, {**names, "digest": digest, "report": report.state()})


def _labeled_keypoints(annotations: CocoAnnotations) -> Int64[ndarray, " n"]:
    """Return the number of labeled keypoints of the objects of each image."""
    labeled = (annotations.keypoints[..., 2] > 0).sum(axis=1)
    return np.diff(np.concatenate([[0], np.cumsum(labeled)])[annotations.starts])


def _find_files(folder: Path, annotations: CocoAnnotations, report: DataReport) -> tuple[CocoAnnotations, FileListing]:
    """List the image files, also if all names have backslashes for slashes, or folders that are not in ``folder``.

    The names are only changed if none of the files exists under its own name and all exist under the changed one.
    """
    names = annotations.file_names.tolist()
    listing = list_files(folder, names)
    if not len(names) or (listing.sizes >= 0).any():
        return annotations, listing
    slashes = [name.replace(b"\\", b"/") for name in names]
    for changed, case in (
        (slashes, "backslash-in-name"),
        ([name.rpartition(b"/")[2] for name in slashes], "other-folder"),
    ):
        found = list_files(folder, changed)
        if len(set(changed)) == len(names) and (found.sizes >= 0).all():
            for image_id in annotations.image_ids.tolist():
                report.note(case, image_id)
            return replace(annotations, file_names=np.array(changed, dtype=bytes)), found
    return annotations, listing


def _check_image_files(
    config: ObjectsConfig, annotations: CocoAnnotations, listing: FileListing, report: DataReport
) -> Bool[ndarray, " n"]:
    """Return which image files exist and match the sizes in the annotations; the others are rejected in the report."""
    ids, names, sizes = annotations.image_ids.tolist(), annotations.file_names.tolist(), annotations.sizes.tolist()
    folder = config.image_folder()

    def check(index: int) -> list[str]:
        known_inside = config.allow_outside or bool(listing.inside[index])
        path = join_inside(folder, names[index].decode(), known_inside, ids[index])
        height, width = sizes[index]
        return check_image(path, (height, width), ids[index])

    return check_files(ids, check, report)


def read_size(folder: Path, allow_outside: bool, name: str, image_id: int | str) -> tuple[int, int]:
    """Return the (height, width) of an image file; raise DataError if it cannot be read."""
    return image_size(join_inside(folder, name, allow_outside, image_id), image_id)


def join_inside(folder: Path, name: str, known_inside: bool, image_id: int | str) -> str:
    """Return the path of a file in a folder; unless ``known_inside`` is set, raise DataError if it is outside."""
    path = os.path.join(folder, name)  # noqa: PTH118 - a Path takes longer than the check
    if not known_inside and not Path(path).resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"the file name points outside the image folder {folder}", "set allow_outside to allow it",
            case="outside-root", file=path, image_id=image_id,
        )  # fmt: skip
    return path


def _count_objects(annotations: CocoAnnotations, usable: Bool[ndarray, " n"], report: DataReport) -> None:
    """Count in the report: objects on skipped images, images without objects, and crowds."""
    starts, rows = annotations.starts, annotations.rows
    for index in np.flatnonzero(~usable).tolist():
        for row in rows[starts[index] : starts[index + 1]].tolist():
            report.skip("annotations", "on-skipped-image", f"row {row}")
    for index in np.flatnonzero(usable & (np.diff(starts) == 0)).tolist():
        report.note("image-without-objects", annotations.image_ids[index].item())
    for row in rows[annotations.crowd].tolist():
        report.note("crowd", f"row {row}")
