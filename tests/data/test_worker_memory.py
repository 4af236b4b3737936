"""What workers add to the memory of a data set: a fork shares it, and copies each page that is written to."""

import functools
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from vertebra.data import LoaderConfig, ResizeConfig, build_dataset, train_loader
from vertebra.data.subset import SubsetDataset
from vertebra.data.workers import frozen_heap

from ..helpers.big_coco_file import write_big

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of shared pages in /proc")


def megabytes(field: str, process: int | str = "self") -> float:
    """A line of the kernel's account: ``Pss`` shares a page out to the processes that have it."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _copied(look: Callable[[int], object], first: int, end: int, answer: Connection) -> None:
    gc.disable()  # its marks are written all over the heap, whatever a data set holds
    for index in range(first):
        look(index)
    before = megabytes("Private_Dirty")
    for index in range(first, end):
        look(index)
    answer.send(megabytes("Private_Dirty") - before)


def copied_by_a_fork(look: Callable[[int], object], count: int, first: int = 50) -> float:
    """The megabytes that become a forked process's own while it looks at so many things, but for the ``first`` ones:
    what is allocated for them is no copy."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_copied, args=(look, first, count, there))
    child.start()
    assert here.poll(100), "the child does not answer"
    child.join()
    return here.recv()


def test_reading_copies_no_pages(tmp_path):
    """The kernel's word. The same annotations as Python's dicts and lists, which pytorch's issue 13246 is about, cost
    every worker a copy of their own: that shows that the measure sees it."""
    whole = build_dataset(write_big(tmp_path, images=600, objects=6000))
    entries = whole.ground_truth()["annotations"]
    as_objects = copied_by_a_fork(lambda index: list(entries[index].items()), len(entries))
    for dataset in (whole, SubsetDataset(whole, whole.image_ids)):
        record = dataset.read_image(0)  # the pixels of one serve for all
        as_arrays = copied_by_a_fork(functools.partial(dataset.add_annotations, record), len(dataset))
        assert as_arrays < as_objects / 20


def test_a_search_for_garbage_copies_no_pages():
    """The kernel's word, beside a fork without the context."""
    plainly = copied_by_a_fork(lambda _: gc.collect(), 1, first=0)
    with frozen_heap():
        assert copied_by_a_fork(lambda _: gc.collect(), 1, first=0) < plainly / 10
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
def test_memory_is_flat_over_epochs(tmp_path):
    """The kernel's word: parent and four workers together take no more after six epochs than after the first."""
    dataset = build_dataset(write_big(tmp_path, images=4000, objects=29_000))
    steps = 4000 // 20
    batches = train_loader(
        dataset, ResizeConfig(short_sides=(32,)), LoaderConfig(workers=4), batch_size=20, divisor=32, seed=0,
        start_step=0, end_step=6 * steps,
    )  # fmt: skip
    taken = []
    for step, _ in enumerate(batches, start=1):
        if step % steps == 0:
            workers = [str(worker.pid) for worker in multiprocessing.active_children()]
            taken.append(sum(megabytes("Pss", process) for process in (str(os.getpid()), *workers)))
    assert len(taken) == 6 and max(taken) - taken[0] < 10
