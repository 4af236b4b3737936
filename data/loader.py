"""Batches from a data set, by worker processes that fail loudly."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import torch
from pydantic import Field
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..structures import Config, PartConfig, VertebraError, WorkerError
from .dataset import Dataset
from .mixing import Mix, build_mix
from .sampling import SamplingConfig, Share, Showing, StepSampler, build_epochs, group_of_images
from .transforms import Transform, build_transform
from .types import Batch, Sample, collate


class LoaderConfig(Config):
    """How batches are made; none of it changes what is in them."""

    workers: int = Field(default=2, ge=0)
    """Processes that read and transform; 0 does it in the training process."""
    timeout: float = Field(default=300.0, ge=0)
    """Seconds after which a batch that does not come is an error; 0 waits for ever."""


def train_loader(
    dataset: Dataset,
    transform: PartConfig,
    loader: LoaderConfig,
    *,
    batch_size: int,
    divisor: int,
    seed: int,
    start_step: int,
    end_step: int,
    share: Share = Share(),
    sampling: SamplingConfig = SamplingConfig(),
    mix: PartConfig | None = None,
) -> Iterator[Batch]:
    """The batches of steps ``start_step`` to ``end_step``, counted from 0, shuffled anew each epoch.

    ``batch_size`` is a whole step's; of each step this process gets the micro-batches of its ``share``. UsageError
    where ``sampling`` goes by what the data set does not know of its images.
    """
    sampler = StepSampler(
        build_epochs(sampling, dataset, seed),
        batch_size=batch_size,
        start_step=start_step,
        end_step=end_step,
        share=share,
        groups=group_of_images(sampling, dataset),
    )
    samples = _Samples(dataset, build_transform(transform, seed), None if mix is None else build_mix(mix, dataset))
    return _load(samples, loader, sampler, divisor)


def eval_loader(
    dataset: Dataset,
    transform: PartConfig,
    loader: LoaderConfig,
    *,
    batch_size: int,
    divisor: int,
    share: Share = Share(),
) -> Iterator[Batch]:
    """Every image of this process's ``share`` once, in order; the last batch may be smaller, and none is padded."""
    showings = [Showing(0, index) for index in range(share.rank, len(dataset), share.processes)]
    batches = [showings[first : first + batch_size] for first in range(0, len(showings), batch_size)]
    return _load(_Samples(dataset, build_transform(transform)), loader, batches, divisor)


@dataclass(frozen=True, slots=True)
class _Samples(TorchDataset):
    """What a worker holds. A fault is handed over as a value, since the loader would rewrap an exception."""

    dataset: Dataset
    transform: Transform
    mix: Mix | None = None

    def __getitem__(self, showing: Showing) -> Sample | VertebraError:
        index = showing.index
        try:
            if self.mix is not None:
                return self.mix(self.dataset.read, self.transform, showing.epoch, index, showing.repeat)
            return self.transform(self.dataset.read(index), showing.epoch, index, showing.repeat)
        except VertebraError as error:
            return error
        except Exception as error:
            return WorkerError(
                f"sample {index} of epoch {showing.epoch} failed: {error!r}", image_id=self.dataset.image_ids[index]
            )


def _load(samples: _Samples, loader: LoaderConfig, batches, divisor: int) -> Iterator[Batch]:
    source = DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=loader.workers,
        collate_fn=functools.partial(_collate, divisor=divisor),
        worker_init_fn=_start_worker,
        timeout=loader.timeout if loader.workers else 0,
        pin_memory=torch.cuda.is_available(),
    )
    with worker_faults():
        for batch in source:
            if isinstance(batch, VertebraError):
                raise batch
            yield batch


@contextlib.contextmanager
def worker_faults() -> Iterator[None]:
    """What torch says of a dead or hanging worker, as a :class:`WorkerError`.

    It says so by a signal handler, so wherever its parent stands: whoever takes batches works inside this.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        what = str(error).partition("\n")[0]
        raise WorkerError(what, "is the machine out of memory, or a disk not answering?") from error


def _collate(samples: list[Sample | VertebraError], divisor: int) -> Batch | VertebraError:
    for sample in samples:
        if isinstance(sample, VertebraError):
            return sample
    return collate([sample for sample in samples if isinstance(sample, Sample)], divisor)


def _start_worker(number: int) -> None:
    """One worker is one thread.

    Ctrl-C and SIGTERM, which a terminal or a scheduler sends to every process of a run, are the training process's to
    handle: it wants batches until its checkpoint is written.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere nobody says who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for_parent, daemon=True).start()


def _end_for_parent() -> None:
    """Obey the SIGTERM by which the parent ends a worker that hangs, and no other."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
