"""Checks of all image files before training, and detection of files that have changed since they were checked."""

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

VERSION = 2
"""Cache version: increase it when checks of the same files would give other results, so that old entries are not
reused."""
MIN_CACHED_FILES = 20_000
"""The results are cached for at least this number of files; fewer are checked in a second or two."""
_IMAGES_PER_TASK = 64
"""Number of images that a thread checks per task."""
_MAX_IN_FLIGHT = 64 * _IMAGES_PER_TASK
"""Maximum number of images submitted to the threads at a time, which limits memory."""


@dataclass(frozen=True, slots=True, eq=False)
class FileListing:
    """The sizes and modification times of files; if either differs later, the file has changed."""

    sizes: Int64[ndarray, " n"]
    """Size in bytes; -1 for a file that does not exist."""
    times: Int64[ndarray, " n"]
    """Modification time in nanoseconds."""
    inside: Bool[ndarray, " n"]
    """True for each file that is certainly inside the root; False if its path has a symbolic link to follow."""

    def is_same(self, sizes: Int64[ndarray, " n"], times: Int64[ndarray, " n"]) -> bool:
        """Return whether no file has changed since an earlier listing of the same names with these sizes and times."""
        return np.array_equal(self.sizes, sizes) and np.array_equal(self.times, times)


def list_files(root: str | os.PathLike[str], names: Sequence[bytes]) -> FileListing:
    """List the sizes and times of files, given by their encoded paths below ``root``.

    Each folder is listed as a whole, which on network disks is many times faster than one request per file.
    """
    first_index_of: dict[bytes, int] = {}
    first_indices = [first_index_of.setdefault(name, index) for index, name in enumerate(names)]
    folders: dict[bytes, dict[bytes, int]] = defaultdict(dict)
    for name, index in first_index_of.items():
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
        for file, index in files.items():  # missing, or listed with another case on a case-insensitive file system
            sizes[index], times[index] = _size_and_time(os.path.join(path, file))  # noqa: PTH118
    return FileListing(
        np.array(sizes, np.int64)[first_indices],
        np.array(times, np.int64)[first_indices],
        np.array(inside, bool)[first_indices],
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
    """Check every image file in threads, and return which files are usable.

    ``check(index)`` returns the cases to count for an image, or raises DataError; both go to the report, in the order
    of the images.
    """

    def check_range(indices: range) -> list[DataError | list[str]]:
        return [_outcome(check, index) for index in indices]

    usable = np.ones(len(image_ids), bool)
    with ThreadPoolExecutor(max_workers=min(16, 4 * (os.cpu_count() or 1))) as pool:
        for first in range(0, len(image_ids), _MAX_IN_FLIGHT):
            end = min(first + _MAX_IN_FLIGHT, len(image_ids))
            starts = range(first, end, _IMAGES_PER_TASK)
            tasks = [range(start, min(start + _IMAGES_PER_TASK, end)) for start in starts]
            outcomes = list(itertools.chain.from_iterable(pool.map(check_range, tasks)))
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
    """Check image files as :func:`check_files` does, and cache the results if there are many files.

    ``names`` are the paths of the files below ``root`` and also their image ids. With cached results the files are not
    opened again until one of them changes.
    """

    def build() -> Contents:
        build_report = DataReport(report.policy, report.source, kinds=tuple(report.read))
        arrays = {"usable": check_files(names, check, build_report), "sizes": listing.sizes, "times": listing.times}
        return Contents(arrays, {"report": build_report.state()})

    encoded = [os.fsencode(name) for name in names]
    listing = list_files(root, encoded)
    if len(names) < MIN_CACHED_FILES:
        contents, not_stored_message = build(), ""
    else:
        key = {
            "version": VERSION,
            "root": os.path.abspath(root),  # noqa: PTH100 - resolve would follow links
            "names": hashlib.sha256(b"\0".join(encoded)).hexdigest(),
            "policy": report.policy,
        }
        contents, not_stored_message = open_cached(
            "files", key, build, lambda cached: listing.is_same(cached.arrays["sizes"], cached.arrays["times"])
        )
    report.add(contents.facts["report"])
    report.warnings += [not_stored_message] if not_stored_message else []
    return np.array(contents.arrays["usable"])


def _outcome(check: Callable[[int], list[str]], index: int) -> DataError | list[str]:
    try:
        return check(index)
    except DataError as error:
        return error
