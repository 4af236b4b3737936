"""Files of results, whatever their task: rows in one order, written and read back to the last digit."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..structures import DataError
from .checks import FIX_RESULTS, ResultError
from .json_files import add_file_to_error, read_json


def sort_results(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By image, best score first, equal scores by category, box and mask: the order in which they came leaves no trace.

    The metric breaks ties by this order, so it must not depend on batch size or the number of processes.
    """
    return sorted(results, key=_sort_key)


def _sort_key(result: dict[str, Any]) -> tuple:
    image_id, mask = result["image_id"], result.get("segmentation")
    return (
        isinstance(image_id, str),  # numbers and text cannot be compared with each other
        image_id,
        -result.get("score", 0.0),
        result.get("category_id", 0),
        result.get("bbox", ()),
        "" if mask is None else str(mask["counts"]),
    )


def write_results(path: str | os.PathLike[str], results: Sequence[dict[str, Any]]) -> None:
    """Sorted, one result a line, every number to its last digit; DataError if one is not finite.

    Through a temporary file, so that a reader never sees half of it.
    """
    try:
        lines = [json.dumps(result, allow_nan=False) for result in sort_results(results)]
    except ValueError:
        raise DataError(
            "a score or box is NaN or infinite, which JSON cannot hold", "train anew or lower the learning rate",
            case="non-finite-result", file=path,
        ) from None  # fmt: skip
    path = Path(path)
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text("[" + ",\n".join(lines) + "]\n", encoding="utf-8")
    temporary.replace(path)


@contextlib.contextmanager
def open_results(path: str | os.PathLike[str]) -> Iterator[list[dict[str, Any]]]:
    """The rows of a results file of any task; what an evaluator finds wrong with one is told with the file's name.

    DataError for a file that does not hold a list of objects.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        what = f"expected a list of results at the top, found {type(rows).__name__}"
        raise DataError(what, FIX_RESULTS, case="bad-results", file=path)
    with add_file_to_error(path, ResultError):
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                raise ResultError.of(index, row, ("bad-results", f"is not an object but {type(row).__name__}"))
        yield rows
