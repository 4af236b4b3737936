"""What workers add to a data set's memory: a fork copies each page that is written to, the others map one copy."""

import functools
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest

from vertebra.data import Dataset, LoaderConfig, ResizeConfig, build_dataset, train_loader
from vertebra.data.subset import SubsetDataset
from vertebra.data.workers import StartMethod, frozen_heap

from ..helpers.big_coco_file import write_big

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of shared pages in /proc")


def megabytes(field: str, process: int | str = "self") -> float:
    """Return a line of the kernel's account: ``Pss`` divides a page among the processes that have it."""
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
    """Return the megabytes that a forked process copies while it looks at ``count`` things, but for the ``first`` ones.

    What is allocated for those is no copy.
    """
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_copied, args=(look, first, count, there))
    child.start()
    assert here.poll(100), "the child does not answer"
    child.join()
    return here.recv()


def test_reading_copies_no_pages(tmp_path):
    """The kernel's account. The same annotations as Python's dicts and lists, which pytorch's issue 13246 is about, are
    copied by every worker: that shows that the measure sees it."""
    whole = build_dataset(write_big(tmp_path, images=2000, objects=20_000))
    entries = whole.ground_truth()["annotations"]
    as_objects = copied_by_a_fork(lambda index: list(entries[index].items()), len(entries))
    for dataset in (whole, SubsetDataset(whole, whole.image_ids)):
        record = dataset.read_image(0)  # the pixels of one serve for all
        as_arrays = copied_by_a_fork(functools.partial(dataset.add_annotations, record), len(dataset))
        assert as_arrays < as_objects / 5  # what is allocated for a while takes a megabyte or two


def test_a_search_for_garbage_copies_no_pages():
    """The kernel's account, beside a fork without the context."""
    plainly = copied_by_a_fork(lambda _: gc.collect(), 1, first=0)
    with frozen_heap():
        assert copied_by_a_fork(lambda _: gc.collect(), 1, first=0) < plainly / 10
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_memory_is_flat_over_epochs(method, tmp_path):
    """The kernel's account: parent, four workers and a fork server take no more after six epochs than after two.

    In the first ones the parent's memory for batches, and what a fork copies once, still grow by some ten megabytes.
    """
    dataset = build_dataset(write_big(tmp_path, images=4000, objects=29_000))
    steps = 4000 // 20
    batches = train_loader(
        dataset, ResizeConfig(short_sides=(32,)), LoaderConfig(workers=4, start_method=method), batch_size=20,
        divisor=32, seed=0, start_step=0, end_step=6 * steps,
    )  # fmt: skip
    taken = []
    for step, _ in enumerate(batches, start=1):
        if step % steps == 0:
            processes = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
            # without the files of libraries, a page of which counts for more when another program that has it ends
            taken.append(sum(megabytes("Pss_Anon", p) + megabytes("Pss_Shmem", p) for p in processes))
    assert len(taken) == 6 and max(taken[1:]) - taken[1] < 10, taken


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker")
@pytest.mark.parametrize("method", [method for method in multiprocessing.get_all_start_methods() if method != "fork"])
def test_a_large_data_set_is_in_memory_once_more(method, tmp_path):
    """The kernel's account: workers that inherit nothing share one copy of 200 MB, and have none of their own."""
    dataset = build_dataset(write_big(tmp_path, images=40, objects=40))
    small = _memory_of_workers(dataset, method)
    vars(dataset)["large"] = np.ones(200 * 2**20, np.uint8)
    large = _memory_of_workers(dataset, method)
    assert large - small < 20


def _memory_of_workers(dataset: Dataset, method: StartMethod) -> float:
    """Return the megabytes that two workers have for themselves."""
    loader = LoaderConfig(workers=2, start_method=method)
    batches = train_loader(
        dataset, ResizeConfig(short_sides=(32,)), loader, batch_size=2, divisor=32, seed=0, start_step=0, end_step=40
    )
    next(batches)
    workers = [worker.pid for worker in multiprocessing.active_children() if worker.pid is not None]
    return sum(megabytes("Private_Dirty", worker) for worker in workers)
