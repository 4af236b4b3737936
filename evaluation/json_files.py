"""JSON files read with errors that name the file."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..structures import DataError

FIELDS = {"images": {"id": (int, str)}, "annotations": {}, "categories": {"id": (int,), "name": (str,)}}
"""The lists of a COCO annotation file, and what each of their entries must have."""


@contextlib.contextmanager
def add_file_to_error(path: str | os.PathLike[str], kind: type[DataError] = DataError) -> Iterator[None]:
    """An error of this kind that tells no file is about this one: what evaluates knows no files."""
    try:
        yield
    except kind as error:
        if error.file is None:
            error.file = os.fspath(path)
        raise


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds; DataError naming the file, and where its text breaks, when it cannot be read."""

    def fault(what: str, fix: str = "write it anew", case: str = "bad-json") -> DataError:
        return DataError(what, fix, case=case, file=path)

    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise fault("the file does not exist", "check the path", case="missing-file") from None
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            raise fault("the file is empty") from None
        raise fault(f"no valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise fault(f"no valid UTF-8 at byte {error.start}", "save it as UTF-8") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise fault(f"no valid JSON: {error}") from None
    except RecursionError:
        raise fault("nested too deeply for this kind of file") from None
    except OSError as error:
        raise fault(f"cannot be read: {error.strerror}", "check the path", case="unreadable-file") from error


def read_ground_truth(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A COCO annotation file; DataError when it cannot be read, or lacks what tells its entries apart."""

    def fault(case: str, what: str) -> DataError:
        return DataError(what, "give a COCO annotation file", case=case, file=path)

    ground_truth = read_json(path)
    if not isinstance(ground_truth, dict):
        raise fault("bad-json", f"expected an object at the top, found {type(ground_truth).__name__}")
    for key, fields in FIELDS.items():
        if not isinstance(ground_truth.get(key), list):
            raise fault(f"no-{key}", f"there is no list {key!r}")
        for row, entry in enumerate(ground_truth[key]):
            if not isinstance(entry, dict):
                raise fault("bad-entry", f"entry {row} of {key} is not an object but {type(entry).__name__}")
            for field, kinds in fields.items():
                if type(entry.get(field)) not in kinds:
                    raise fault("bad-entry", f"entry {row} of {key} has the {field} {entry.get(field)!r:.80}")
    return ground_truth
