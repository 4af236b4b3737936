"""Batches from data-loading workers: the same for any number of workers and start method, resumed exactly; errors
reach the parent process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import psutil
import pytest
import torch

from vertebra.data import (
    Batch,
    Dataset,
    LoaderConfig,
    MosaicConfig,
    Record,
    ResizeConfig,
    eval_loader,
    train_loader,
    worker_errors,
)
from vertebra.data.epoch_order import EachOnceOrder
from vertebra.data.sampling import SampleIndex, Shard, StepSampler
from vertebra.structures import DataError, UsageError, WorkerError

from ..helpers.tiny_coco_file import open_tiny

ROOT = Path(__file__).parents[2]
TRANSFORM = ResizeConfig(short_sides=(32, 40, 48), long_side=64, flip=0.5)

AVAILABLE = multiprocessing.get_all_start_methods()
START_METHODS = [method for method in ("fork", "forkserver", "spawn") if method in AVAILABLE]
QUICK_METHODS = [pytest.param(method, marks=pytest.mark.slow if method == "spawn" else ()) for method in START_METHODS]
"""Of the start methods spawn takes seconds for each worker, and is tested with the slow tests."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*use of fork.. may lead to deadlocks:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def workers_can_import_this_module(monkeypatch) -> None:
    """Let workers that are not forked import this module, whose classes their data set is made of.

    pytest names the module by the folder of the checkout, so the folder above must be on the path.
    """
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.syspath_prepend(ROOT.parent)


def batches(dataset, workers: int = 0, start: int = 0, end: int = 6, mix=None, **loader) -> list[Batch]:
    config = LoaderConfig(workers=workers, **loader)
    stream = train_loader(
        dataset, TRANSFORM, config, batch_size=3, divisor=32, seed=5, start_step=start, end_step=end, mix=mix
    )
    return list(stream)


def equal_batches(first: list[Batch], second: list[Batch]) -> bool:
    """Return whether two lists of batches have the same images, pixels and boxes in the same order."""
    return len(first) == len(second) and all(
        a.image_ids == b.image_ids
        and torch.equal(a.images.pixels, b.images.pixels)
        and all(torch.equal(x.boxes, y.boxes) for x, y in zip(a.targets, b.targets, strict=True))
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("method", START_METHODS)
def test_batches_do_not_depend_on_the_start_method_of_workers(method, tmp_path):
    """docs/faults.md row 122. Law: no worker and one worker, however started, give the same pixels and boxes in the
    same order."""
    dataset = open_tiny(tmp_path)
    assert equal_batches(batches(dataset, 0), batches(dataset, 1, start_method=method))


@pytest.mark.parametrize("method", QUICK_METHODS)
def test_mixed_batches_do_not_depend_on_the_number_of_workers(method, tmp_path):
    """Law: no worker and two workers give the same batches where each sample is made of several images."""
    dataset = open_tiny(tmp_path)
    mix = MosaicConfig()
    assert equal_batches(batches(dataset, 0, mix=mix), batches(dataset, 2, mix=mix, start_method=method))


def test_unavailable_start_method_is_refused(tmp_path, monkeypatch):
    """By hand: fork on Windows is a UsageError that names the start methods that exist."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: (_ for _ in ()).throw(ValueError(method)))
    with pytest.raises(UsageError, match=r"cannot start processes by 'fork': set run\.loader\.start_method to one of "):
        batches(open_tiny(tmp_path), 1, start_method="fork")


def test_resumed_loader_continues_in_mid_epoch(tmp_path):
    """Law: a loader that starts at step 4 gives the batches of an uninterrupted loader from there on."""
    dataset = open_tiny(tmp_path)
    assert equal_batches(batches(dataset, start=4), batches(dataset)[4:])


def test_every_index_is_sampled_once_per_epoch():
    """Law: four epochs of ten indices in batches of four, each epoch in another order."""
    sampler = StepSampler(EachOnceOrder(10, seed=0), batch_size=4, start_step=0, end_step=10)
    stream = [place for batch in sampler for place in batch]
    assert len(sampler) == 10 and Counter(stream) == Counter(
        SampleIndex(epoch, i) for epoch in range(4) for i in range(10)
    )
    orders = [[each.index for each in stream if each.epoch == epoch] for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 4


def test_batch_may_be_larger_than_the_data_set():
    """By hand: a batch of eight from a data set of three spans three epochs."""
    batch = next(iter(StepSampler(EachOnceOrder(3, seed=0), batch_size=8, start_step=0, end_step=1)))
    assert [sample_index.epoch for sample_index in batch] == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once_in_order(workers, tmp_path):
    """By hand: four images in batches of three; the last batch is smaller."""
    loader = eval_loader(open_tiny(tmp_path), ResizeConfig(), LoaderConfig(workers=workers), batch_size=3, divisor=32)
    assert [batch.image_ids for batch in loader] == [(11, 12, 13), (14,)]


def test_evaluation_batches_do_not_depend_on_the_number_of_processes(tmp_path):
    """Law: images that are padded together in one process are padded together in two."""
    options = {"batch_size": 2, "divisor": 32}
    shares = [
        eval_loader(open_tiny(tmp_path), ResizeConfig(), LoaderConfig(workers=0), shard=Shard(rank, 2), **options)
        for rank in (0, 1)
    ]
    assert [[batch.image_ids for batch in own] for own in shares] == [[(11, 12)], [(13, 14)]]


@dataclass
class FaultyDataset(Dataset):
    """A data set that misbehaves, in the way that ``fault`` names, when its second image is read."""

    dataset: Dataset
    fault: str
    unused: object = field(default=None)

    def __post_init__(self) -> None:
        self.image_ids = self.dataset.image_ids

    def __len__(self) -> int:
        return len(self.dataset)

    def ground_truth(self) -> dict:
        return self.dataset.ground_truth()

    def add_annotations(self, record: Record, index: int) -> Record:
        return self.dataset.add_annotations(record, index)

    def read_image(self, index: int) -> Record:
        if index == 1:
            if self.fault == "data":
                raise DataError("cut", "replace it", case="damaged-image", file="x.jpg", image_id=12)
            if self.fault == "threads":
                raise DataError(f"OpenCV has {cv2.getNumThreads()}")
            if self.fault == "bug":
                raise ZeroDivisionError("a bug")
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep({"hangs": 100, "slow": 2.5, "nothing": 0}[self.fault])
        return self.dataset.read_image(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_data_error_in_a_worker_reaches_the_parent(workers, tmp_path):
    """docs/faults.md row 116. By hand: exit code 3, with the file and image of the error."""
    with pytest.raises(DataError, match=r"damaged-image: x\.jpg: image_id=12: cut") as caught:
        batches(FaultyDataset(open_tiny(tmp_path), "data"), workers)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_unexpected_error_in_a_worker_names_the_image(workers, tmp_path):
    """docs/faults.md row 116. By hand: exit code 6."""
    with pytest.raises(WorkerError, match=r"image_id=12: sample 1 of epoch \d+ failed: ZeroDivisionError") as caught:
        batches(FaultyDataset(open_tiny(tmp_path), "bug"), workers)
    assert caught.value.exit_code == 6


def test_each_worker_uses_one_opencv_thread(tmp_path):
    """Oracle: OpenCV's own count of threads. Workers that each used all cores would slow one another down."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        with pytest.raises(DataError, match="OpenCV has 1"):
            batches(FaultyDataset(open_tiny(tmp_path), "threads"), workers=1)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("method", QUICK_METHODS)
def test_killed_worker_is_an_error_within_seconds(method, tmp_path):
    """docs/faults.md row 117. By hand: exit code 6, and the image that the worker was reading."""
    began = time.monotonic()
    with pytest.raises(WorkerError, match=r"image_id=12: DataLoader worker \(pid") as caught:
        batches(FaultyDataset(open_tiny(tmp_path), "killed"), workers=2, start_method=method)
    assert caught.value.exit_code == 6
    assert time.monotonic() - began < 120  # far from the 300 s after which a batch is given up


def test_killed_worker_is_an_error_when_loading_in_a_thread(tmp_path):
    """docs/faults.md row 117. By hand: outside the main thread, where torch's signal handler cannot be installed."""
    errors: list[WorkerError] = []

    def read() -> None:
        try:
            batches(FaultyDataset(open_tiny(tmp_path), "killed"), workers=2)
        except WorkerError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(timeout=120)
    assert [error.image_id for error in errors] == ["12"]


@pytest.mark.parametrize("method", QUICK_METHODS)
def test_hanging_worker_is_ended_after_the_timeout(method, tmp_path):
    """docs/faults.md row 118. By hand: a WorkerError that names the image, and no process remains."""
    dataset = FaultyDataset(open_tiny(tmp_path), "hangs")
    timeout = 60.0 if method == "spawn" else 5.0  # a worker's start counts, and a fork server's
    with pytest.raises(WorkerError, match=f"image_id=12: no batch came for {timeout:g} s"):
        batches(dataset, workers=2, timeout=timeout, start_method=method)
    for worker in multiprocessing.active_children():
        worker.join(timeout=20)
        assert worker.exitcode == 0


def test_slow_batch_is_no_error(tmp_path):
    """Law: checking every second for dead workers does not change the batches."""
    dataset = open_tiny(tmp_path)
    assert equal_batches(batches(dataset, 0), batches(FaultyDataset(dataset, "slow"), 1))


@pytest.mark.skipif("forkserver" not in AVAILABLE, reason="there is no fork server here")
def test_workers_ignore_a_sigterm_to_the_whole_job(tmp_path):
    """Law: after SIGTERM to the workers and the fork server, as a scheduler sends it, the batches are those of an
    uninterrupted loader."""
    dataset = open_tiny(tmp_path)
    config = LoaderConfig(workers=2, start_method="forkserver")
    stream = train_loader(dataset, TRANSFORM, config, batch_size=3, divisor=32, seed=5, start_step=0, end_step=60)
    read = [next(stream)]
    job = [str(process.pid) for process in psutil.Process().children(recursive=True) if "fork" in process.cmdline()[-1]]
    assert len(job) == 3  # a fork server and two workers
    subprocess.run(["kill", "-TERM", *job], check=True)
    time.sleep(1)
    read += stream
    assert equal_batches(read, batches(dataset, end=60))


def test_unpicklable_data_set_is_refused_unless_forked(tmp_path):
    """By hand: a UsageError before a worker is spawned; a forked worker inherits the data set."""
    dataset = FaultyDataset(open_tiny(tmp_path), "nothing", unused=lambda: None)
    with pytest.raises(UsageError, match="cannot be sent to worker processes"):
        batches(dataset, 1, start_method="spawn")
    if "fork" in AVAILABLE:
        assert equal_batches(batches(dataset), batches(dataset, 1, start_method="fork"))


def test_worker_that_dies_during_a_training_step_is_reported(tmp_path):
    """docs/faults.md row 117. By hand: torch reports it by a signal, which interrupts whatever the parent is
    computing."""
    source = train_loader(
        FaultyDataset(open_tiny(tmp_path), "killed"), TRANSFORM, LoaderConfig(workers=2), batch_size=1, divisor=1,
        seed=5, start_step=0, end_step=40,
    )  # fmt: skip
    with pytest.raises(WorkerError, match=r"image_id=12: DataLoader worker \(pid"), worker_errors():
        for _ in source:
            time.sleep(0.5)


ORPHANS = """
import multiprocessing, sys, time
from pathlib import Path
from vertebra.data import CocoConfig, LoaderConfig, ResizeConfig, build_dataset, train_loader

shapes = Path(sys.argv[1])
loader = train_loader(
    build_dataset(CocoConfig(images=shapes / "train", annotations=shapes / "annotations" / "instances_train.json")),
    ResizeConfig(short_sides=(32,)), LoaderConfig(workers=2, start_method=sys.argv[2]),
    batch_size=400, divisor=1, seed=0, start_step=0, end_step=100,
)
next(loader)
print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch's own rule holds")
@pytest.mark.parametrize("method", QUICK_METHODS)
def test_workers_exit_when_the_parent_is_killed(method, shapes):
    """Law: also while they block on a full pipe, in which state torch's workers would stay forever."""
    command = [sys.executable, "-c", ORPHANS, shapes, method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [Path("/proc", pid) for pid in parent.stdout.readline().split()]
        time.sleep(3)  # for the pipe to be full
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(worker.exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker is still there"
        time.sleep(0.2)
