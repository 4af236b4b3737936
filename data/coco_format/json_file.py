"""A COCO annotation file as Python's json reads it, with errors that name the file."""

import json
import os
from pathlib import Path
from typing import Any

from ...structures import DataError

SECTIONS = ("images", "annotations", "categories")


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


def read_sections(path: str | os.PathLike[str]) -> dict[str, list[Any]]:
    """The file's lists of images, annotations and categories; DataError where one is missing."""
    data = read_json(path)
    for key in SECTIONS:
        if not isinstance(data.get(key), list):
            raise DataError(f"there is no list {key!r}", "give a COCO annotation file", case=f"no-{key}", file=path)
    return {key: data[key] for key in SECTIONS}
