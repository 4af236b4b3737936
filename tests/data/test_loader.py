"""The data stream: the same for any number of workers, the tail of itself when resumed; faults reach the parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest
import torch

from vertebra.data import Batch, Dataset, LoaderConfig, Record, ResizeConfig, eval_loader, train_loader, worker_errors
from vertebra.data.epoch_order import EachOnceOrder
from vertebra.data.sampling import SampleIndex, Shard, StepSampler
from vertebra.structures import DataError, WorkerError

from ..helpers.tiny_coco_file import open_tiny

TRANSFORM = ResizeConfig(short_sides=(32, 40, 48), long_side=64, flip=0.5)


def batches(dataset, workers: int = 0, start: int = 0, end: int = 6, **loader) -> list[Batch]:
    config = LoaderConfig(workers=workers, **loader)
    stream = train_loader(dataset, TRANSFORM, config, batch_size=3, divisor=32, seed=5, start_step=start, end_step=end)
    return list(stream)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.image_ids == b.image_ids
        and torch.equal(a.images.pixels, b.images.pixels)
        and all(torch.equal(x.boxes, y.boxes) for x, y in zip(a.targets, b.targets, strict=True))
        for a, b in zip(first, second, strict=True)
    )


def test_workers_change_nothing(tmp_path):
    """A law: 0 and 2 workers give the same pixels and boxes in the same order (FAULTS 122)."""
    dataset = open_tiny(tmp_path)
    assert same(batches(dataset, 0), batches(dataset, 2))


def test_resuming_gives_the_tail_of_the_unbroken_stream(tmp_path):
    """A law: from step 4, in mid-epoch."""
    dataset = open_tiny(tmp_path)
    assert same(batches(dataset, start=4), batches(dataset)[4:])


def test_every_index_comes_once_in_an_epoch():
    """A law: four epochs of ten in batches of four, and each in an order of its own."""
    sampler = StepSampler(EachOnceOrder(10, seed=0), batch_size=4, start_step=0, end_step=10)
    stream = [place for batch in sampler for place in batch]
    assert len(sampler) == 10 and Counter(stream) == Counter(
        SampleIndex(epoch, i) for epoch in range(4) for i in range(10)
    )
    orders = [[each.index for each in stream if each.epoch == epoch] for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 4


def test_a_batch_may_be_larger_than_the_data():
    """A law: the stream does not end with an epoch."""
    batch = next(iter(StepSampler(EachOnceOrder(3, seed=0), batch_size=8, start_step=0, end_step=1)))
    assert [sample_index.epoch for sample_index in batch] == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once_in_order(workers, tmp_path):
    """Unpadded: the last batch is smaller."""
    loader = eval_loader(open_tiny(tmp_path), ResizeConfig(), LoaderConfig(workers=workers), batch_size=3, divisor=32)
    assert [batch.image_ids for batch in loader] == [(11, 12, 13), (14,)]


def test_evaluation_pads_alike_on_any_number_of_processes(tmp_path):
    """A law: what one process would put together stays together."""
    options = {"batch_size": 2, "divisor": 32}
    shares = [
        eval_loader(open_tiny(tmp_path), ResizeConfig(), LoaderConfig(workers=0), share=Shard(rank, 2), **options)
        for rank in (0, 1)
    ]
    assert [[batch.image_ids for batch in own] for own in shares] == [[(11, 12)], [(13, 14)]]


@dataclass
class Spoiled(Dataset):
    """A data set whose second image does something to its reader."""

    dataset: Dataset
    fault: str

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
            time.sleep(60)
        return self.dataset.read_image(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_error_reaches_the_parent_as_it_is(workers, tmp_path):
    """FAULTS 116: exit code 3, with its file and image."""
    with pytest.raises(DataError, match=r"damaged-image: x\.jpg: image_id=12: cut") as caught:
        batches(Spoiled(open_tiny(tmp_path), "data"), workers)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_any_other_error_names_the_image(workers, tmp_path):
    """FAULTS 116: exit code 6."""
    with pytest.raises(WorkerError, match=r"image_id=12: sample 1 of epoch \d+ failed: ZeroDivisionError") as caught:
        batches(Spoiled(open_tiny(tmp_path), "bug"), workers)
    assert caught.value.exit_code == 6


def test_one_worker_is_one_thread(tmp_path):
    """OpenCV's own word: workers that each took all cores would wait for one another."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        with pytest.raises(DataError, match="OpenCV has 1"):
            batches(Spoiled(open_tiny(tmp_path), "threads"), workers=1)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_a_killed_worker_is_noticed(tmp_path):
    """FAULTS 117: exit code 6 within seconds, and the image that it was at."""
    began = time.monotonic()
    with pytest.raises(WorkerError, match=r"image_id=12: DataLoader worker \(pid"):
        batches(Spoiled(open_tiny(tmp_path), "killed"), workers=2)
    assert time.monotonic() - began < 20


def test_a_hanging_worker_is_noticed_and_ended(tmp_path):
    """FAULTS 118: exit code 6 after the timeout, the image that it was at, and no process is left behind."""
    with pytest.raises(WorkerError, match="image_id=12: DataLoader timed out after 1"):
        batches(Spoiled(open_tiny(tmp_path), "hangs"), workers=2, timeout=1.0)
    for worker in multiprocessing.active_children():
        worker.join(timeout=20)
        assert worker.exitcode == 0


def test_a_worker_that_dies_during_a_step_is_named_too(tmp_path):
    """FAULTS 117: torch says so by a signal, which finds the parent in the midst of its own work."""
    source = train_loader(
        Spoiled(open_tiny(tmp_path), "killed"), TRANSFORM, LoaderConfig(workers=2), batch_size=1, divisor=1, seed=5,
        start_step=0, end_step=40,
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
    ResizeConfig(short_sides=(32,)), LoaderConfig(workers=2), batch_size=400, divisor=1, seed=0, start_step=0,
    end_step=100,
)
next(loader)
print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch's own rule holds")
def test_workers_end_with_a_killed_parent(shapes):
    """A law: even with more to hand over than their pipe holds, which keeps a worker of torch's for ever."""
    with subprocess.Popen([sys.executable, "-c", ORPHANS, shapes], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [Path("/proc", pid) for pid in parent.stdout.readline().split()]
        time.sleep(3)  # for the pipe to be full
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(worker.exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker is still there"
        time.sleep(0.2)
