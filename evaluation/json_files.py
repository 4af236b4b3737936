"""JSON files read with errors that name the file."""

import json
import os
from pathlib import Path
from typing import Any

from ..structures import DataError


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
    except RecursionError:
        raise fault("nested too deeply for this kind of file") from None
    except OSError as error:
        raise fault(f"cannot be read: {error.strerror}", "check the path", case="unreadable-file") from error


def read_ground_truth(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A COCO annotation file; DataError when it cannot be read or lacks one of its three lists."""
    ground_truth = read_json(path)
    if not isinstance(ground_truth, dict):
        found = type(ground_truth).__name__
        raise DataError(
            f"expected an object at the top, found {found}", "give a COCO annotation file", case="bad-json", file=path
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(ground_truth.get(key), list):
            raise DataError(f"there is no list {key!r}", "give a COCO annotation file", case=f"no-{key}", file=path)
    return ground_truth
