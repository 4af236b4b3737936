"""The user's cache folder, and in it what opening a data set found: flat arrays that all processes map.

An entry is a folder of ``.npy`` files and ``facts.json``, written under another name and then renamed, and never
changed afterwards. The first process of a machine that asks for it makes it while the others wait at a lock; then all
map the same files, so that their memory is shared. An entry is used only if its files have the checksums that they
were written with. Where the folder cannot be written everything works without it.
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

from ..formats.json_files import write_json
from ..structures import DataError, UsageError

FACTS = "facts.json"
KEPT_FOR = 30 * 24 * 3600.0
"""Seconds for which an entry is kept after it was last used."""
KEPT_WHEN_REPLACED = 24 * 3600.0
"""Seconds for which it is kept where a newer one has taken its place: processes may still be using it."""
_UNFINISHED = ".writing-"
_FAILURE = "failure.json"
_ERROR_FIELDS = ("what", "fix", "case", "file", "image_id", "annotation_id")


def cache_folder() -> Path:
    """Return the folder for what can be made anew: ``$VERTEBRA_CACHE``, else ``vertebra`` in ``$XDG_CACHE_HOME`` or
    ``~/.cache``."""
    chosen = os.environ.get("VERTEBRA_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vertebra"


def short_digest(value: Any) -> str:
    """Return a short name for a value of JSON's types; equal values have equal names."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The result of opening a data set: arrays, and facts of JSON's types."""

    arrays: Mapping[str, ndarray]
    facts: Mapping[str, Any]
    entry: Path | None = None
    """The folder whose files are mapped; None where the arrays are in the memory of this process alone."""


def open_cached(
    kind: str, key: Mapping[str, Any], build: Callable[[], Contents], is_current: Callable[[Contents], bool]
) -> tuple[Contents, str]:
    """Return the contents for a key from the cache; where it has none that ``is_current``, build and keep them.

    ``kind`` begins the name of the entries, ``key`` has all that the contents depend on beside what ``is_current``
    looks at. The second value says why the contents could not be kept, and is empty where they were. What ``build``
    raises is raised in the processes that waited for it too.
    """
    folder = cache_folder() / "datasets" / f"{kind}-{short_digest(key)}"
    asked = time.time_ns()
    while True:
        seen = _entries(folder)
        contents = _first_current(seen, is_current)
        if contents is not None:
            return contents, ""
        lock = filelock.FileLock(folder / "lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (OSError, NotImplementedError) as error:
            return build(), _why_not_kept(error)
        try:
            if _entries(folder) != seen:
                continue  # another process was quicker: all that waited look at its entry at the same time
            _raise_failure_since(asked, folder)
            return _build_and_keep(build, folder)
        finally:
            lock.release()


def _build_and_keep(build: Callable[[], Contents], folder: Path) -> tuple[Contents, str]:
    """Build, write an entry and map it; to be called by the holder of the lock."""
    contents = _build_noting_failure(build, folder)
    try:
        _remove_damaged(folder)
        entry = _write(folder, contents)
        _remove_unused(folder.parent, entry)
        return map_entry(entry), ""
    except (OSError, ValueError) as error:
        return contents, _why_not_kept(error)


def map_entry(folder: Path, verified: bool = False) -> Contents:
    """Map the files of an entry; ValueError or OSError where one is missing or, unless they were ``verified`` before,
    is not what was written."""
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
    """Return the entries of a folder, the newest first."""
    return sorted(folder.glob("[0-9]*"), reverse=True)


def _first_current(entries: Iterable[Path], is_current: Callable[[Contents], bool]) -> Contents | None:
    """Return the first entry that is sound and current."""
    for entry in entries:
        contents = _try_entry(entry)
        if contents is not None and is_current(contents):
            with contextlib.suppress(OSError):  # the time of the file says when the entry was last used
                os.utime(entry / FACTS)
            return contents
    return None


def _try_entry(entry: Path) -> Contents | None:
    try:
        return map_entry(entry)
    except Exception:  # damaged bytes make numpy's reader of headers raise anything
        return None


def _map(path: Path) -> ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False).view(ndarray)


def _describe(array: ndarray) -> list[Any]:
    """Return what tells an array from others: its type, shape and checksum."""
    return [array.dtype.str, list(array.shape), zlib.crc32(np.ascontiguousarray(array).data)]


def _write(folder: Path, contents: Contents) -> Path:
    """Write an entry, and return its folder. Only the holder of the lock writes: any other unfinished entry is dead."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
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
    """Remove the entries that nobody has used for long, and soon those that the newest one replaces."""
    now = time.time()
    for facts in datasets.glob(f"*/[0-9]*/{FACTS}"):
        kept_for = KEPT_WHEN_REPLACED if facts.parent.parent == newest.parent else KEPT_FOR
        with contextlib.suppress(OSError):
            if facts.parent != newest and now - facts.stat().st_mtime > kept_for:
                shutil.rmtree(facts.parent, ignore_errors=True)


def _build_noting_failure(build: Callable[[], Contents], folder: Path) -> Contents:
    """Call ``build``; write its error to the folder, so that the processes that wait fail at once and not in turn."""
    try:
        return build()
    except (DataError, UsageError) as error:
        failure = {name: getattr(error, name) for name in _ERROR_FIELDS}
        with contextlib.suppress(OSError):
            write_json(folder / _FAILURE, {"time": time.time_ns(), "usage": isinstance(error, UsageError), **failure})
        raise


def _raise_failure_since(asked: int, folder: Path) -> None:
    """Raise the error that another process met while this one, which ``asked`` at that time, waited for it."""
    try:
        failure = json.loads((folder / _FAILURE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if failure["time"] > asked:
        error_type = UsageError if failure["usage"] else DataError
        fields = {name: failure[name] for name in _ERROR_FIELDS}
        raise error_type(fields.pop("what"), fields.pop("fix"), **fields)


def _why_not_kept(error: Exception) -> str:
    return f"what was found is not kept for the next time, {cache_folder()} cannot be written: {error}"
