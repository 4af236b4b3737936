"""Opening of panoptic data sets in COCO's format, which are checked once per machine; the results are cached."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field, model_validator

from ...formats.checks import KnownIds, as_id, id_problem
from ...formats.coco import Row, digest_file, read_coco_file
from ...formats.images import check_image
from ...formats.json_files import parse_json, paused_garbage_collection
from ...formats.panoptic import annotation_problem, check_segment_png, read_segment_ids
from ...structures import Classes, DataError, panoptic_classes
from ..cache import Contents, open_cached
from ..file_checks import FileListing, check_files, list_files
from ..image_files import ImageFilesConfig
from ..report import DataReport
from .categories import Categories, read_categories
from .images import UNKNOWN, ImageTable, read_images
from .opening import MIN_CACHED_BYTES, join_inside, read_size

VERSION = 2
"""Cache version: increase it when the same files would give different contents, so that old entries are not reused."""
DECODED_AT_START = 32
"""Number of PNG files, evenly spaced over all, whose pixels are checked before training. The pixels of the others are
checked when they are read."""


class CocoPanopticConfig(ImageFilesConfig):
    """The options of a panoptic data set in COCO's format: image folder, JSON file and folder of PNG files."""

    name: Literal["coco_panoptic"] = "coco_panoptic"
    images: Path
    annotations: Path
    segments: Path | None = None
    """The folder of the PNG files; None: the path of ``annotations`` without its suffix ``.json``."""
    things: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The thing classes to use, in the order of their labels; None: all categories with an ``isthing`` of 1, sorted by
    id. Segments of other classes become void."""
    stuff: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The stuff classes to use, in the order of their labels; None: all with an ``isthing`` of 0, sorted by id."""
    semantic_things: Literal["one", "each"] = "one"
    """Whether the class map has ``one`` class for all things, as in the paper and in detectron2, or one for ``each``
    thing class. Stuff classes come first in either case."""
    crowd: Literal["ignore", "class"] = "ignore"
    """The value of crowd pixels in the class map. ``ignore``: 255; ``class``: their class, as in detectron2. For
    detection, crowds are ignore regions in either case."""
    subset: int | None = Field(default=None, gt=0)
    """Use only this number of images from the beginning of the file. None: all images."""
    allow_outside: bool = False
    """Accept file names that point outside the folders."""

    @model_validator(mode="after")
    def _check_names(self) -> "CocoPanopticConfig":
        names = (*(self.things or ()), *(self.stuff or ()))
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"these classes are named twice: {', '.join(twice)}")
        return self

    @property
    def folder(self) -> Path:
        """The folder of the PNG files."""
        return self.segments or self.annotations.with_suffix("")

    def classes(self) -> dict[str, Any]:
        """Return the class names by task; raise UsageError if ``things`` or ``stuff`` is None."""
        if self.things is None or self.stuff is None:
            return super().classes()
        things, stuff = (Classes(names, tuple(range(len(names)))) for names in (self.things, self.stuff))
        return {task: known.names for task, known in panoptic_classes(things, stuff, self.semantic_things).items()}


def open_panoptic(config: CocoPanopticConfig, report: DataReport) -> tuple[Contents, str]:
    """Return the images and segments of a panoptic file as arrays, and the SHA-256 of the file.

    What the checks find goes to the report. Arrays with an entry per image are ``image_ids``, ``file_names``,
    ``png_names`` and ``sizes`` (height, width); ``used`` holds the indices of the usable images. Arrays with an entry
    per segment are ``segment_ids``, ``labels`` (-1 for a class that is not selected) and ``crowd``; the segments of
    image ``i`` are ``starts[i]:starts[i + 1]``. The facts are ``things`` and ``stuff``, each (names, category ids).
    """
    digest = digest_file(config.annotations)
    build = functools.partial(_build, config, DataReport(report.policy, report.source, kinds=("images",)), digest)
    if config.annotations.stat().st_size < MIN_CACHED_BYTES:
        contents, not_stored_message = build(), ""
    else:
        key = {
            "version": VERSION,
            "annotations": digest,
            "policy": report.policy,
            "images": str(config.images.absolute()),
            "segments": str(config.folder.absolute()),
            **config.model_dump(mode="json", include={"things", "stuff", "subset", "allow_outside"}),
        }
        contents, not_stored_message = open_cached("panoptic", key, build, functools.partial(_is_current, config))
    report.add(contents.facts["report"])
    report.warnings += [not_stored_message] if not_stored_message else []
    return contents, digest


def _is_current(config: CocoPanopticConfig, contents: Contents) -> bool:
    """Return whether the images and PNG files are unchanged since a cache entry was built."""
    arrays = contents.arrays
    listings = _list_files(config, arrays["file_names"], arrays["png_names"])
    return all(listing.is_same(arrays[f"{name}_bytes"], arrays[f"{name}_times"]) for name, listing in listings.items())


def _list_files(config: CocoPanopticConfig, file_names: ndarray, png_names: ndarray) -> dict[str, FileListing]:
    return {
        "image": list_files(config.images, file_names.tolist()),
        "png": list_files(config.folder, png_names.tolist()),
    }


def _build(config: CocoPanopticConfig, report: DataReport, digest: str) -> Contents:
    with paused_garbage_collection():
        file = read_coco_file(config.annotations)
        if file.digest != digest:
            raise DataError(
                "the file was changed while it was read", "open it again", case="changed-file", file=config.annotations
            )
        things, stuff = _read_categories(file.categories, config)
        images = read_images(
            file.images,
            report,
            config.annotations,
            config.subset,
            functools.partial(read_size, config.images, config.allow_outside),
        )
        report.read["images"] += len(images) + report.skipped_count("images")
        entries = _read_entries(file.annotations, images, things, config.annotations, report)
        arrays = _as_arrays(entries, images, [*things.ids, *stuff.ids])
        del file, entries
    listings = _list_files(config, arrays["file_names"], arrays["png_names"])
    for name, listing in listings.items():
        arrays |= {f"{name}_bytes": listing.sizes, f"{name}_times": listing.times}
    arrays["used"] = np.flatnonzero(_check_files(config, arrays, listings, report))
    report.require_usable(len(arrays["used"]), "check the paths")
    facts = {"things": (things.names, things.ids), "stuff": (stuff.names, stuff.ids), "report": report.state()}
    return Contents(arrays, facts)


def _read_categories(categories: list[Any], config: CocoPanopticConfig) -> tuple[Categories, Categories]:
    """Return the selected thing and stuff classes; ``label_of`` of both covers all categories of the file."""
    path = config.annotations
    all_classes = read_categories(categories, None, path)
    for category in categories:
        if category.get("isthing") not in (0, 1):
            raise DataError(
                f"the category {category['name']!r} has the isthing {category.get('isthing')!r:.80}",
                "set it to 1 for a class of objects and to 0 for stuff", case="bad-category", file=path,
            )  # fmt: skip
    selected = []
    for is_thing, wanted in ((1, config.things), (0, config.stuff)):
        chosen = [category for category in categories if category["isthing"] == is_thing]
        if not chosen:
            raise DataError(
                f"no category has an isthing of {is_thing}, but a panoptic data set needs things and stuff",
                "correct the categories", case="no-categories", file=path,
            )  # fmt: skip
        known = read_categories(chosen, wanted, path)
        selected.append(replace(known, label_of=all_classes.label_of))
    return selected[0], selected[1]


def _read_entries(
    rows: Sequence[Row], images: ImageTable, categories: Categories, path: Path, report: DataReport
) -> dict[int, dict[str, Any]]:
    """Return the valid entries of ``annotations`` by image index; reject images without a valid entry."""
    image_ids = KnownIds.of(images.index_of, "the file")
    category_ids = KnownIds.of(categories.label_of, "the file")
    entries: dict[int, dict[str, Any]] = {}
    rejected: set[int] = set()
    for row in rows:
        value = parse_json(bytes(row), path)
        entry = value if isinstance(value, dict) else {}
        unknown = id_problem("image", entry.get("image_id"), image_ids)
        if unknown is not None:
            if report.policy == "error":
                raise _error(path, unknown.case, unknown.what, as_id(entry.get("image_id")))
            report.note(unknown.case, str(entry.get("image_id")))
            continue
        index = images.index_of[entry["image_id"]]
        if index in entries or index in rejected:
            raise _error(path, "duplicate-annotation", "is the second entry about its image", entry["image_id"])
        found = annotation_problem(entry, category_ids)
        if index > UNKNOWN and found is not None:
            problem, segment_id = found
            report.reject("images", _error(path, problem.case, problem.what, entry["image_id"], segment_id))
            rejected.add(index)
        elif index > UNKNOWN:
            entries[index] = entry
    for index in sorted({*range(len(images))} - entries.keys() - rejected):
        what = "the image has no entry in annotations"
        report.reject("images", _error(path, "missing-annotation", what, images.ids[index].item()))
    return entries


def _error(
    path: Path, case: str, what: str, image_id: int | str | None, segment_id: int | str | None = None
) -> DataError:
    return DataError(what, "correct it", case=case, file=path, image_id=image_id, annotation_id=segment_id)


def _as_arrays(entries: dict[int, dict[str, Any]], images: ImageTable, ids: Sequence[int]) -> dict[str, ndarray]:
    """Convert the entries to flat arrays of images and segments; ``ids`` holds the category id of each label."""
    label_of = {category_id: label for label, category_id in enumerate(ids)}
    order = sorted(entries)
    segments = [segment for index in order for segment in entries[index]["segments_info"]]
    counts = [len(entries[index]["segments_info"]) for index in order]
    return {
        "image_ids": images.ids[order],
        "file_names": images.file_names[order],
        "png_names": np.array([entries[index]["file_name"].encode() for index in order], dtype=bytes),
        "sizes": images.sizes[order],
        "starts": np.cumsum([0, *counts]),
        "segment_ids": np.array([segment["id"] for segment in segments], np.int32),
        "labels": np.array([label_of.get(segment["category_id"], -1) for segment in segments], np.int64),
        "crowd": np.array([segment.get("iscrowd", 0) == 1 for segment in segments], bool),
    }


def _check_files(
    config: CocoPanopticConfig, arrays: dict[str, ndarray], listings: dict[str, FileListing], report: DataReport
) -> Bool[ndarray, " n"]:
    """Return which images have a usable image file and PNG file; the others are rejected in the report."""
    ids, sizes, count = arrays["image_ids"].tolist(), arrays["sizes"].tolist(), len(arrays["image_ids"])
    decoded = {number * count // DECODED_AT_START for number in range(DECODED_AT_START)}

    def locate(name: str, folder: Path, names: ndarray, index: int) -> str:
        known_inside = config.allow_outside or bool(listings[name].inside[index])
        return join_inside(folder, names[index].item().decode(), known_inside, ids[index])

    def check(index: int) -> list[str]:
        image = locate("image", config.images, arrays["file_names"], index)
        png = Path(locate("png", config.folder, arrays["png_names"], index))
        height, width = sizes[index]
        cases = check_image(image, (height, width), ids[index])
        check_segment_png(png, (height, width), ids[index])
        if index in decoded:
            start, end = arrays["starts"][index : index + 2].tolist()
            read_segment_ids(png, arrays["segment_ids"][start:end].tolist(), (height, width), ids[index])
        return cases

    return check_files(ids, check, report)
