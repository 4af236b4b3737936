"""The memory of data-loading workers: forked workers copy each page that is written to, others map one shared copy."""

import gc
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from vertebra.data import Dataset, LoaderConfig, ResizeConfig, build_dataset, train_loader
from vertebra.data.workers import StartMethod, frozen_heap

from ..helpers import copied_pages
from ..helpers.big_coco_file import write_big
from ..helpers.copied_pages import megabytes, megabytes_copied_by_fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the memory accounting in /proc")


def test_reading_samples_copies_no_shared_pages(tmp_path):
    """Oracle: the kernel's accounting. Control: the same annotations as Python dicts and lists
    (pytorch/pytorch#13246) are copied by every worker."""
    write_big(tmp_path, images=2000, objects=20_000)
    script = Path(copied_pages.__file__)
    measured = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    as_objects, *as_arrays = json.loads(measured.stdout)
    assert as_objects > 20 and max(as_arrays) < as_objects / 10


def test_garbage_collection_copies_no_shared_pages():
    """Oracle: the kernel's accounting, compared with a fork without ``frozen_heap``."""
    plainly = megabytes_copied_by_fork(lambda _: gc.collect(), 1, first=0)
    with frozen_heap():
        assert megabytes_copied_by_fork(lambda _: gc.collect(), 1, first=0) < plainly / 10
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_memory_is_flat_over_epochs(method, tmp_path):
    """Oracle: the kernel's accounting: parent, four workers and a fork server take no more after six epochs than after
    two.

    During the first epochs the parent's buffers, and pages that a fork copies once, still grow by some ten megabytes.
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
            # excludes pages of library files, whose PSS rises when another program that maps them ends
            taken.append(sum(megabytes("Pss_Anon", p) + megabytes("Pss_Shmem", p) for p in processes))
    assert len(taken) == 6 and max(taken[1:]) - taken[1] < 10, taken


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker")
@pytest.mark.parametrize("method", [method for method in multiprocessing.get_all_start_methods() if method != "fork"])
def test_spawned_workers_share_one_copy_of_the_data_set(method, tmp_path):
    """Oracle: the kernel's accounting: workers that inherit no memory share one copy of 200 MB, and have none of
    their own."""
    dataset = build_dataset(write_big(tmp_path, images=40, objects=40))
    small = _memory_of_workers(dataset, method)
    vars(dataset)["large"] = np.ones(200 * 2**20, np.uint8)
    large = _memory_of_workers(dataset, method)
    assert large - small < 20


def _memory_of_workers(dataset: Dataset, method: StartMethod) -> float:
    """Return the megabytes of private memory of two workers."""
    loader = LoaderConfig(workers=2, start_method=method)
    batches = train_loader(
        dataset, ResizeConfig(short_sides=(32,)), loader, batch_size=2, divisor=32, seed=0, start_step=0, end_step=40
    )
    next(batches)
    workers = [worker.pid for worker in multiprocessing.active_children() if worker.pid is not None]
    return sum(megabytes("Private_Dirty", worker) for worker in workers)
