"""Results files of all tasks: writing sorted and without loss of precision, reading and checking.

Results are checked before they are evaluated; :mod:`.detections` checks detections.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..structures import DataError
from .checks import KnownIds, Problem, id_problem
from .json_files import add_file_to_error, read_json
from .json_lines import encode_json_line
from .rle import rle_problem

FIX_RESULTS = "correct the results, or give their ground truth"
FIX_IMAGES = "give results with the image ids of the annotations, as `vertebra predict --annotations FILE` writes them"
IMAGES_FILE = "images.json"
"""The file beside the results in which ``vertebra predict`` writes the file name of each image id."""
GROUND_TRUTH = "the ground truth"
"""The name of the ground truth in error messages."""


class ResultError(DataError):
    """An entry of results that cannot be evaluated; a caller that reads entries from a file adds the file name."""

    @classmethod
    def of(cls, index: int, entry: Any, problem: Problem, fix: str = FIX_RESULTS) -> "ResultError":
        """Return the error for the entry at this index."""
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        return cls(
            f"entry {index} {problem.what}", fix, case=problem.case,
            image_id=image_id if isinstance(image_id, int | str) else None,
        )  # fmt: skip


def sort_results(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort results by image id, then by descending score, then by category, box, mask and keypoints.

    Metrics break ties by this order, so it must not depend on the batch size or the number of processes.
    """
    return sorted(results, key=_sort_key)


def _sort_key(result: dict[str, Any]) -> tuple:
    image_id, mask = result["image_id"], result.get("segmentation")
    return (
        isinstance(image_id, str),  # Python cannot compare numbers with strings
        image_id,
        -result.get("score", 0.0),
        result.get("category_id", 0),
        result.get("bbox", ()),
        "" if mask is None else str(mask["counts"]),
        result.get("keypoints", ()),
    )


def write_results(path: str | os.PathLike[str], results: Iterable[dict[str, Any]]) -> None:
    """Write results to a JSON file atomically: sorted, one per line, numbers without loss of precision.

    ``results`` is iterated twice; if it is sorted already, as by :func:`sort_results`, it is never in memory as a
    whole. Raises DataError if a number is not finite.
    """
    ordered = results if _is_sorted(results) else sort_results(list(results))
    with add_file_to_error(path):
        write_json_list(path, map(encode_json_line, ordered))


def write_json_list(path: str | os.PathLike[str], lines: Iterable[str]) -> None:
    """Write a JSON file with a list atomically; ``lines`` are its encoded entries, one per line."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for index, line in enumerate(lines):
            file.write(f",\n{line}" if index else line)
        file.write("]\n")
    temporary.replace(path)


def _is_sorted(results: Iterable[dict[str, Any]]) -> bool:
    """Return whether results are in the order of :func:`sort_results`."""
    return all(first <= second for first, second in itertools.pairwise(map(_sort_key, results)))


def write_vectors(path: str | os.PathLike[str], names: Sequence[str], vectors: Iterable[Sequence[float]]) -> None:
    """Write an ``.npz`` file with the arrays ``names`` (strings) and ``vectors`` (float32, one row per name).

    ``numpy.load`` reads it without ``allow_pickle``.
    """
    np.savez(
        path,
        names=np.array(names, np.str_),
        vectors=np.array([np.asarray(vector, np.float32) for vector in vectors], np.float32),
    )


@contextlib.contextmanager
def open_results(path: str | os.PathLike[str]) -> Iterator[list[dict[str, Any]]]:
    """Read a results file of any task and yield its entries; a ResultError inside the block gets the file's name.

    Raises DataError if the file is not a list of objects.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        what = f"expected a list of results at the top, found a {type(rows).__name__}"
        raise DataError(what, FIX_RESULTS, case="bad-results", file=path)
    with add_file_to_error(path, ResultError):
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                what = f"is not an object but {type(row).__name__}"
                raise ResultError.of(index, row, Problem("bad-results", what))
        yield rows


def check_image_results(
    results: Sequence[dict[str, Any]],
    image_ids: Iterable[int | str],
    fields: Sequence[str],
    find_problem: Callable[[dict[str, Any]], Problem | None],
) -> None:
    """Check results with at most one entry per image; raise ResultError for the first invalid entry.

    A valid entry has an ``image_id`` among ``image_ids`` and all ``fields``, and ``find_problem`` returns None for it.
    """
    known = KnownIds.of(image_ids, GROUND_TRUTH)
    seen: set[int | str] = set()
    for index, entry in enumerate(results):
        problem = (
            missing_field_problem(entry, "image_id", *fields)
            or id_problem("image", entry["image_id"], known)
            or find_problem(entry)
        )
        if problem is None and entry["image_id"] in seen:
            problem = Problem("duplicate-result", "is the second result of its image")
        if problem is not None:
            raise ResultError.of(index, entry, problem)
        seen.add(entry["image_id"])


def require_same_images(path: str | os.PathLike[str], file_names: Mapping[int | str, str]) -> None:
    """Refuse a results file whose image ids belong to other images than those of the ground truth.

    Two data sets may use the same ids for different images, and the scores would silently be near 0. So if
    ``images.json``, which ``vertebra predict`` writes, is beside the results, its file names are compared with
    ``file_names``, the file name of each image id of the ground truth, without folders and suffixes. Raises DataError.
    """
    images_file = Path(path).with_name(IMAGES_FILE)
    images = read_json(images_file) if images_file.exists() else []
    for image in images if isinstance(images, list) else []:
        if not isinstance(image, dict) or type(image.get("id")) not in (int, str):
            continue
        name, expected = str(image.get("file_name", "")), file_names.get(image["id"], "")
        if name and expected and _stem(name) != _stem(expected):
            raise DataError(
                f"the results are about other images: image {image['id']!r} is {name!r} in {IMAGES_FILE} beside them, "
                f"and {expected!r} in {GROUND_TRUTH}",
                f"{FIX_IMAGES}; if files were only renamed, remove {IMAGES_FILE}", case="other-images", file=path,
                image_id=image["id"],
            )  # fmt: skip


def _stem(file_name: str) -> str:
    return PurePath(file_name.replace("\\", "/")).stem


def missing_field_problem(entry: Mapping[str, Any], *fields: str) -> Problem | None:
    """Check that an entry has these fields."""
    missing = [field for field in fields if field not in entry]
    return Problem("bad-results", f"has no {' and no '.join(missing)}") if missing else None


def mask_problem(mask: Any, size: tuple[int, int] | None = None) -> Problem | None:
    """Check a predicted mask, which must be compressed RLE; ``size`` is the (height, width) of its image if known."""
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str | bytes) or "size" not in mask:
        what = f"has the segmentation {mask!r:.80}, which is not compressed run lengths (size and counts)"
        return Problem("bad-mask", what)
    what = rle_problem(mask, size)
    return None if what is None else Problem("bad-mask", f"has a segmentation that {what}")
