"""The user's cache folder, and the cache of opened data sets in it: flat arrays that all processes memory-map.

A cache entry is a folder of ``.npy`` files and ``facts.json``. It is written under a temporary name, renamed, and never
changed afterwards. The first process of a machine that needs an entry builds it while the others wait for a lock; then
all map the same files and share their memory. An entry is used only if its files match their checksums. If the cache
folder is not writable, everything works without it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy import ndarray

from ..formats.cache_folder import cache_folder
from ..formats.json_files import write_json
from ..structures import DataError, UsageError

FACTS = "facts.json"
MAX_UNUSED_SECONDS = 30 * 24 * 3600.0
"""An entry that was not used for this time is removed."""
MAX_REPLACED_SECONDS = 24 * 3600.0
"""Seconds after its last use until a replaced entry is removed; it is not 0 since processes may still be using it."""
_UNFINISHED = ".writing-"
_FAILURE = "failure.json"
_ERROR_FIELDS = ("what", "fix", "case", "file", "image_id", "annotation_id")


def short_digest(value: Any) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of a value of JSON types."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The contents of a cache entry: named arrays, and named values of JSON types."""

    arrays: Mapping[str, ndarray]
    facts: Mapping[str, Any]
    entry: Path | None = None
    """The folder of the entry whose files are mapped; None if the arrays are in the memory of this process."""


def open_cached(
    kind: str, key: Mapping[str, Any], build: Callable[[], Contents], is_current: Callable[[Contents], bool]
) -> tuple[Contents, str]:
    """Return the contents for a key from the cache; build and store them if no entry satisfies ``is_current``.

    ``kind`` is the prefix of the entry's folder name. ``key`` holds everything that the contents depend on, except for
    what ``is_current`` checks. The second return value is a message if the contents could not be stored, and otherwise
    empty. An error of ``build`` is also raised in the processes that were waiting for it.
    """
    folder = cache_folder() / "datasets" / f"{kind}-{short_digest(key)}"
    requested_at = time.time_ns()
    while True:
        entries = _entries(folder)
        contents = _first_current(entries, is_current)
        if contents is not None:
            return contents, ""
        lock = filelock.FileLock(folder / "lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (OSError, NotImplementedError) as error:  # filelock 3 raises the latter if the file system has no locks
            return build(), _not_stored_message(error)
        try:
            if _entries(folder) != entries:
                continue  # another process has built one; releasing the lock lets all waiting processes check it too
            _raise_failure_since(requested_at, folder)
            return _build_and_store(build, folder)
        finally:
            lock.release()


def _build_and_store(build: Callable[[], Contents], folder: Path) -> tuple[Contents, str]:
    """Build the contents, write an entry and map it; the caller must hold the lock."""
    contents = _build_recording_failure(build, folder)
    try:
        _remove_damaged(folder)
        entry = _write(folder, contents)
        _remove_unused(folder.parent, entry)
        return map_entry(entry), ""
    except (OSError, ValueError) as error:
        return contents, _not_stored_message(error)


def map_entry(folder: Path, verified: bool = False) -> Contents:
    """Map the files of an entry into memory; raise ValueError or OSError if one is missing or damaged.

    With ``verified`` the checksums of the arrays, which were verified before, are not computed again.
    """
    checksum, _, text = (folder / FACTS).read_text(encoding="utf-8").partition("\n")
    if checksum != f"{zlib.crc32(text.encode()):08x}":
        raise ValueError(f"{folder / FACTS} is damaged")
    written = json.loads(text)
    arrays = {name: _map(folder / f"{name}.npy") for name in written["arrays"]}
    if not verified:
        for name, expected in written["arrays"].items():
            if _describe(arrays[name]) != expected:
                raise ValueError(f"{folder / name}.npy is damaged")
    return Contents(arrays, written["facts"], folder)


def _entries(folder: Path) -> list[Path]:
    """Return the entries of a folder, newest first."""
    return sorted(folder.glob("[0-9]*"), reverse=True)


def _first_current(entries: Iterable[Path], is_current: Callable[[Contents], bool]) -> Contents | None:
    """Return the contents of the first entry that is undamaged and current; None if there is none."""
    for entry in entries:
        contents = _try_entry(entry)
        if contents is not None and is_current(contents):
            with contextlib.suppress(OSError):  # the file's modification time records when the entry was last used
                os.utime(entry / FACTS)
            return contents
    return None


def _try_entry(entry: Path) -> Contents | None:
    try:
        return map_entry(entry)
    except Exception:  # damaged bytes make numpy's header parser raise exceptions of any type
        return None


def _map(path: Path) -> ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False).view(ndarray)


def _describe(array: ndarray) -> list[Any]:
    """Return the dtype, shape and checksum of an array, as values of JSON types."""
    return [array.dtype.str, list(array.shape), zlib.crc32(np.ascontiguousarray(array).data)]


def _write(folder: Path, contents: Contents) -> Path:
    """Write an entry and return its folder; the caller must hold the lock.

    Only the holder of the lock writes, so unfinished entries are left from processes that ended, and are removed.
    """
    for unfinished in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    temporary = folder / f"{_UNFINISHED}{os.getpid()}"
    temporary.mkdir()
    try:
        for name, array in contents.arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        described = {name: _describe(array) for name, array in contents.arrays.items()}
        text = json.dumps({"arrays": described, "facts": contents.facts})
        (temporary / FACTS).write_text(f"{zlib.crc32(text.encode()):08x}\n{text}", encoding="utf-8", newline="\n")
        return temporary.rename(folder / f"{time.time_ns():020d}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_damaged(folder: Path) -> None:
    for entry in _entries(folder):
        if _try_entry(entry) is None:
            shutil.rmtree(entry, ignore_errors=True)


def _remove_unused(datasets: Path, newest: Path) -> None:
    """Remove the entries in all ``datasets`` folders that were not used for long, or that ``newest`` replaces."""
    now = time.time()
    for facts in datasets.glob(f"*/[0-9]*/{FACTS}"):
        max_age = MAX_REPLACED_SECONDS if facts.parent.parent == newest.parent else MAX_UNUSED_SECONDS
        with contextlib.suppress(OSError):
            if facts.parent != newest and now - facts.stat().st_mtime > max_age:
                shutil.rmtree(facts.parent, ignore_errors=True)


def _build_recording_failure(build: Callable[[], Contents], folder: Path) -> Contents:
    """Call ``build``; write its error to the folder, so that waiting processes raise it and do not build in turn."""
    try:
        return build()
    except (DataError, UsageError) as error:
        failure = {name: getattr(error, name) for name in _ERROR_FIELDS}
        with contextlib.suppress(OSError):
            write_json(folder / _FAILURE, {"time": time.time_ns(), "usage": isinstance(error, UsageError), **failure})
        raise


def _raise_failure_since(requested_at: int, folder: Path) -> None:
    """Raise the recorded error of another process if it occurred after ``requested_at`` (nanoseconds)."""
    try:
        failure = json.loads((folder / _FAILURE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if failure["time"] > requested_at:
        error_type = UsageError if failure["usage"] else DataError
        fields = {name: failure[name] for name in _ERROR_FIELDS}
        raise error_type(fields.pop("what"), fields.pop("fix"), **fields)


def _not_stored_message(error: Exception) -> str:
    return f"the checks are not cached, since {cache_folder()} cannot be written: {error}"
