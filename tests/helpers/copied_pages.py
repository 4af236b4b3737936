"""Measures the shared memory that a forked process copies, with the kernel's accounting in /proc.

As a script it measures what reading a data set copies, in a process whose heap no test has used: in the free gaps of an
old heap, new values of the child would copy pages too.
"""

import functools
import gc
import json
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from vertebra.data import CocoConfig, build_dataset
from vertebra.data.subset import SubsetDataset


def megabytes(field: str, process: int | str = "self") -> float:
    """Return a field of the kernel's memory accounting; ``Pss`` divides a page among the processes that share it."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _copied(read: Callable[[int], object], first: int, end: int, answer: Connection) -> None:
    """Send the megabytes that this process copies while it reads the items from ``first`` to ``end``."""
    gc.disable()  # garbage collection writes to all objects, and would hide what reading copies
    for index in range(first):
        read(index)
    before = megabytes("Private_Dirty")
    for index in range(first, end):
        read(index)
    answer.send(megabytes("Private_Dirty") - before)


def megabytes_copied_by_fork(read: Callable[[int], object], count: int, first: int = 50) -> float:
    """Return the megabytes that a forked process copies while it reads ``count`` items.

    The first items are not measured, since memory that is allocated once is not a copy.
    """
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_copied, args=(read, first, count, there))
    child.start()
    assert here.poll(100), "the child does not answer"
    child.join()
    return here.recv()


def main(folder: Path) -> None:
    """Print the megabytes copied by reading annotations as Python objects, and as a data set and a subset have them."""
    whole = build_dataset(CocoConfig(images=folder, annotations=folder / "annotations.json", masks=True))
    entries = whole.ground_truth()["annotations"]
    copied = [megabytes_copied_by_fork(lambda index: list(entries[index].items()), len(entries))]
    for dataset in (whole, SubsetDataset(whole, whole.image_ids)):
        record = dataset.read_image(0)  # all records can use the pixels of one image
        read = functools.partial(dataset.add_annotations, record)
        copied.append(megabytes_copied_by_fork(read, len(dataset)))
    print(json.dumps(copied))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
