"""A COCO annotation file as checked, flat arrays: nothing native ever sees an unchecked number.

Memory stays flat in data-loading workers: a fork shares arrays as they are, while reading a Python object writes its
reference count and so copies its page.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from ...structures import DataError, MaskFormat, UsageError, suggest
from ..pillow import MAX_PIXELS
from ..report import DataReport
from .boxes import BoxTable, check_boxes
from .keys import as_key, is_text
from .masks import MaskTable
from .outlines import OutlineTable


@dataclass(frozen=True, slots=True, eq=False)
class CocoAnnotations:
    """Images and their objects; those of image ``i`` are ``starts[i]:starts[i + 1]``. Boxes are xyxy, clipped."""

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_rows: ndarray  # where the image stands in the file
    image_ids: ndarray
    file_names: ndarray  # UTF-8 bytes
    sizes: ndarray  # declared (height, width)
    starts: ndarray
    rows: ndarray  # where the object stands in the file
    boxes: ndarray
    labels: ndarray
    crowd: ndarray
    masks: MaskTable | None = None
    outlines: OutlineTable | None = None


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file; DataError with the place where it breaks."""

    def fault(what: str, fix: str = "write it anew") -> DataError:
        return DataError(what, fix, case="bad-json", file=path)

    try:
        value = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise DataError("the file does not exist", "check the path", case="missing-file", file=path) from None
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            raise fault("the file is empty") from None
        raise fault(f"no valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise fault(f"no valid UTF-8 at byte {error.start}", "save it as UTF-8") from None
    except ValueError as error:
        raise fault(f"no valid JSON: {error}") from None
    except RecursionError:
        raise fault("nested too deeply to be an annotation file") from None
    except OSError as error:
        raise fault(f"cannot be read: {error.strerror}", "check the path") from error
    if not isinstance(value, dict):
        raise fault(f"expected an object at the top, found a {type(value).__name__}", "give a COCO annotation file")
    return value


def read_annotations(
    path: str | os.PathLike[str],
    report: DataReport,
    *,
    class_names: Sequence[str] | None = None,
    min_box: float = 0.0,
    masks: MaskFormat | None = None,
    subset: int | None = None,
) -> CocoAnnotations:
    """Read and check a COCO file; what is unusable goes to the report, which raises or counts it.

    ``class_names`` chooses and orders the classes, ``min_box`` drops objects with a shorter side (pixels), ``masks``
    reads their masks too, in one form or the other, ``subset`` takes the first images only.
    """
    data = read_json(path)
    sections = {}
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise DataError(f"there is no list {key!r}", "give a COCO annotation file", case=f"no-{key}", file=path)
        sections[key] = data[key]
    names, category_ids, known_categories = _read_categories(sections["categories"], class_names, path)
    image_rows, image_ids, file_names, sizes, refused = _read_images(sections["images"], report, path)
    outside = set(image_ids[subset:].tolist()) if subset is not None else set()
    image_rows, image_ids, file_names, sizes = (x[:subset] for x in (image_rows, image_ids, file_names, sizes))
    places = {identity: place for place, identity in enumerate(image_ids.tolist())}
    wanted = []
    for row, annotation in enumerate(sections["annotations"]):
        owner = as_key(annotation.get("image_id")) if isinstance(annotation, dict) else None
        if owner in refused:
            report.skip("annotations", "on-skipped-image", f"row {row}")
        if owner not in refused and owner not in outside:
            wanted.append((row, annotation))
    report.read["images"] += len(image_ids) + report.skipped_count("images")
    report.read["annotations"] += len(wanted) + report.skipped_count("annotations")
    objects = check_boxes(
        wanted, places, sizes, dict(zip(category_ids, range(len(category_ids)), strict=True)), known_categories,
        report=report, min_box=min_box, masks=masks is not None, path=path,
    )  # fmt: skip
    order = np.argsort(objects.images, kind="stable")
    starts = np.searchsorted(objects.images[order], np.arange(len(image_ids) + 1))
    objects = objects.take(order)
    tables = _read_masks(sections["annotations"], objects, sizes, report, masks) if masks else (None, None)
    return CocoAnnotations(
        names, category_ids, image_rows, image_ids, file_names, sizes, starts,
        objects.rows, objects.boxes, objects.labels, objects.crowd, *tables,
    )  # fmt: skip


def _read_masks(
    annotations: Sequence[dict[str, Any]], objects: BoxTable, sizes: ndarray, report: DataReport, kind: MaskFormat
) -> tuple[MaskTable | None, OutlineTable | None]:
    """The masks of the usable objects; an empty one is noted: its object teaches boxes only."""
    shapes: list[tuple[int, int]] = [tuple(size) for size in sizes[objects.images].tolist()]
    wanted = [annotations[row]["segmentation"] for row in objects.rows.tolist()]
    pairs = list(zip(wanted, shapes, strict=True))
    table = MaskTable.encode(pairs)
    for row in objects.rows[table.areas == 0].tolist():
        report.note("empty-mask", f"row {row}")
    return (table, None) if kind == "bitmaps" else (None, OutlineTable.encode(pairs))


def _read_categories(
    categories: list[Any], wanted: Sequence[str] | None, path: str | os.PathLike[str]
) -> tuple[tuple[str, ...], tuple[int, ...], set[int]]:
    """Names and file ids of the wanted classes, in order of label; and every id the file has."""

    def fault(case: str, what: str) -> DataError:
        return DataError(what, "correct the categories", case=case, file=path)

    if not categories:
        raise fault("no-categories", "the list of categories is empty")
    by_id: dict[int, str] = {}
    for category in categories:
        identity, name = (category.get("id"), category.get("name")) if isinstance(category, dict) else (None, None)
        identity = as_key(identity)
        if not isinstance(identity, int) or not is_text(name):
            raise fault("bad-category", f"a category needs an integer id and a name; found {category!r:.80}")
        if identity in by_id:
            raise fault("duplicate-category", f"two categories have the id {identity}")
        by_id[identity] = name
    ids = {name: identity for identity, name in by_id.items()}
    if len(ids) < len(by_id):
        twice = sorted({name for name in by_id.values() if list(by_id.values()).count(name) > 1})
        raise fault("duplicate-category", f"several categories are named {', '.join(map(repr, twice))}")
    if wanted is None:
        wanted = [by_id[identity] for identity in sorted(by_id)]
    for name in wanted:
        if name not in ids:
            raise UsageError(f"there is no class {name!r} in the annotations", suggest(name, ids), file=path)
    return tuple(wanted), tuple(ids[name] for name in wanted), set(by_id)


def _read_images(
    images: list[Any], report: DataReport, path: str | os.PathLike[str]
) -> tuple[ndarray, ndarray, ndarray, ndarray, set[int | str | None]]:
    """Rows, ids, file names and declared sizes of the usable images; and the ids of the others."""
    names: dict[int | str, str] = {}
    refused: set[int | str | None] = set()
    rows, sizes = [], []
    for row, image in enumerate(images):
        error = _image_fault(image, path)
        if error is not None:
            report.fault("images", error)
            refused.add(error.image_id)
            continue
        identity = image["id"]
        if identity in names:
            raise DataError(
                f"two images have this id: {names[identity]!r} and {image['file_name']!r}",
                "give every image an id of its own", case="duplicate-image-id", file=path, image_id=identity,
            )  # fmt: skip
        names[identity] = image["file_name"]
        rows.append(row)
        sizes.append((image["height"], image["width"]))
    if len({type(identity) for identity in names}) > 1:
        raise DataError("some image ids are numbers and some text", "use one kind", case="mixed-image-ids", file=path)
    ids = np.array(list(names)) if names else np.zeros(0, np.int64)
    file_names = np.array([name.encode() for name in names.values()], dtype=bytes)
    return np.array(rows, np.int64), ids, file_names, np.array(sizes, np.int64).reshape(-1, 2), refused - {None}


def _image_fault(image: Any, path: str | os.PathLike[str]) -> DataError | None:
    """What is wrong with an entry of ``images``, if anything."""
    identity = as_key(image.get("id")) if isinstance(image, dict) else None

    def fault(case: str, what: str) -> DataError:
        return DataError(what, "correct the entry", case=case, file=path, image_id=identity)

    if identity is None:
        return fault("bad-image", f"an image needs an id, a number of 64 bits or text; found {image!r:.80}")
    if not is_text(image.get("file_name")) or not image["file_name"]:
        return fault("bad-image", f"an image needs a file_name; found {image.get('file_name')!r:.80}")
    height, width = image.get("height"), image.get("width")
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        return fault("bad-size", f"height and width must be positive whole numbers; got {height!r} and {width!r}")
    if height * width > MAX_PIXELS:
        return fault("too-many-pixels", f"an image of {height}x{width} is more than {MAX_PIXELS:,} pixels")
    return None
