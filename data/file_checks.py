"""Looking at every image file before the first step, and noticing later that one has changed."""

import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from ..structures import DataError
from .cache import Contents, open_cached
from .report import DataReport

VERSION = 1
"""Counted up when the same files come to be judged in another way, so that no outcome of before is taken."""
KEPT_FROM = 20_000
"""Files from which on the outcome is kept: fewer are looked at in a second or two."""
_PER_TASK = 64
"""Images that a thread looks at before it hands over what it found."""
_IN_FLIGHT = 64 * _PER_TASK
"""Images handed to the threads at a time: each that waits costs memory."""


@dataclass(frozen=True, slots=True, eq=False)
class FileListing:
    """The sizes and times of files as their folders list them; a change of either means that the file has changed."""

    sizes: Int64[ndarray, " n"]
    """Bytes; -1 where there is no such file."""
    times: Int64[ndarray, " n"]
    """When each file was last written, in nanoseconds."""
    inside: Bool[ndarray, " n"]
    """Which files certainly lie below the root: where a link is on the path, only following it tells."""

    def is_same(self, sizes: Int64[ndarray, " n"], times: Int64[ndarray, " n"]) -> bool:
        """Return whether no file was changed, added or removed since a listing of the same names gave these."""
        return np.array_equal(self.sizes, sizes) and np.array_equal(self.times, times)


def list_files(root: str | os.PathLike[str], names: Sequence[bytes]) -> FileListing:
    """List files by their paths below ``root`` (UTF-8), a whole folder at a time, which disks of a network answer many
    times faster than single questions."""
    first_of: dict[bytes, int] = {}
    listed_at = [first_of.setdefault(name, index) for index, name in enumerate(names)]
    folders: dict[bytes, dict[bytes, int]] = defaultdict(dict)
    for name, index in first_of.items():
        folder, slash, file = name.rpartition(b"/")
        folders[folder or slash][file] = index
    sizes, times, inside = [-1] * len(names), [0] * len(names), [False] * len(names)
    base = os.fsencode(root)
    real_base = os.path.realpath(base)
    for folder, files in folders.items():
        path = os.path.join(base, folder)  # noqa: PTH118 - pathlib takes no bytes
        real_path = os.path.realpath(path)
        is_inside = real_path == real_base or real_path.startswith(os.path.join(real_base, b""))  # noqa: PTH118
        for entry in _entries(path):
            index = files.pop(entry.name, None)
            if index is not None:
                sizes[index], times[index] = _size_and_time(entry)
                inside[index] = is_inside and not entry.is_symlink()
        for file, index in files.items():  # absent, or found by a file system that ignores case
            sizes[index], times[index] = _size_and_time(os.path.join(path, file))  # noqa: PTH118
    return FileListing(
        np.array(sizes, np.int64)[listed_at], np.array(times, np.int64)[listed_at], np.array(inside, bool)[listed_at]
    )


def _entries(folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _size_and_time(file: os.DirEntry[bytes] | bytes) -> tuple[int, int]:
    try:
        stat = file.stat() if isinstance(file, os.DirEntry) else os.stat(file)  # noqa: PTH116
    except (OSError, ValueError):
        return -1, 0
    return stat.st_size, stat.st_mtime_ns


def check_files(
    image_ids: Sequence[int | str], check: Callable[[int], list[str]], report: DataReport
) -> Bool[ndarray, " n"]:
    """Look at every image file by threads, and return which can be used.

    ``check(index)`` returns what is worth counting of an image, or raises DataError; both go to the report, in the
    order of the images.
    """

    def look(indices: range) -> list[DataError | list[str]]:
        return [_outcome(check, index) for index in indices]

    usable = np.ones(len(image_ids), bool)
    with ThreadPoolExecutor(max_workers=min(16, 4 * (os.cpu_count() or 1))) as pool:
        for first in range(0, len(image_ids), _IN_FLIGHT):
            end = min(first + _IN_FLIGHT, len(image_ids))
            tasks = [range(start, min(start + _PER_TASK, end)) for start in range(first, end, _PER_TASK)]
            outcomes = list(itertools.chain.from_iterable(pool.map(look, tasks)))
            for index, outcome in enumerate(outcomes, start=first):
                if isinstance(outcome, DataError):
                    report.reject("images", outcome)
                    usable[index] = False
                else:
                    for case in outcome:
                        report.note(case, image_ids[index])
    return usable


def check_files_once(
    root: str | os.PathLike[str], names: Sequence[str], check: Callable[[int], list[str]], report: DataReport
) -> Bool[ndarray, " n"]:
    """Return what :func:`check_files` does for files below ``root``, whose names are their ids.

    Of many files the outcome is kept in the cache, and the files are not opened again while none of them changes.
    """

    def look() -> Contents:
        outcome = DataReport(report.policy, report.source, kinds=tuple(report.read))
        arrays = {"usable": check_files(names, check, outcome), "sizes": listing.sizes, "times": listing.times}
        return Contents(arrays, {"report": outcome.state()})

    encoded = [os.fsencode(name) for name in names]
    listing = list_files(root, encoded)
    if len(names) < KEPT_FROM:
        contents, why_not_kept = look(), ""
    else:
        key = {
            "version": VERSION,
            "root": os.path.abspath(root),  # noqa: PTH100 - resolve would follow links
            "names": hashlib.sha256(b"\0".join(encoded)).hexdigest(),
            "policy": report.policy,
        }
        contents, why_not_kept = open_cached(
            "files", key, look, lambda kept: listing.is_same(kept.arrays["sizes"], kept.arrays["times"])
        )
    report.add(contents.facts["report"])
    report.warnings += [why_not_kept] if why_not_kept else []
    return np.array(contents.arrays["usable"])


def _outcome(check: Callable[[int], list[str]], index: int) -> DataError | list[str]:
    try:
        return check(index)
    except DataError as error:
        return error
