"""Loading of batches by worker processes, with errors that name the image a failed worker was reading."""

import contextlib
import functools
import pickle
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..structures import Config, PartConfig, UsageError, VertebraError, WorkerError
from .dataset import Dataset
from .mixing import Mix, build_mix
from .sampling import SampleIndex, SamplingConfig, Shard, StepSampler, build_epoch_order, group_of_images
from .shared_pickle import SharedPickle
from .transforms import Transform, build_transform
from .types import Batch, Record, Sample, collate
from .workers import (
    StartMethod,
    WorkerProgress,
    frozen_heap,
    init_worker,
    process_context,
    signals_blocked,
    worker_error,
    worker_errors,
)

POLL_SECONDS = 1.0
"""Interval in seconds at which a wait for a batch checks that all workers are alive."""


class LoaderConfig(Config):
    """How batches are loaded; the values have no influence on the batches."""

    workers: int = Field(default=2, ge=0)
    """Number of worker processes that read and transform images; 0 does it in the training process."""
    timeout: float = Field(default=300.0, ge=0)
    """Seconds to wait for a batch before an error; 0 waits forever."""
    start_method: StartMethod | None = None
    """Start method of the workers, see Python's ``multiprocessing``; None is the platform's default. With ``spawn``
    each worker imports all modules again, which takes seconds."""


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
    shard: Shard = Shard(),
    sampling: SamplingConfig = SamplingConfig(),
    mix: PartConfig | None = None,
) -> Iterator[Batch]:
    """Yield the training batches of steps ``start_step`` to ``end_step`` (exclusive), counted from 0.

    ``end_step`` is the total number of training steps, of which ``until`` of a mix is a fraction. Every epoch has its
    own random order. ``batch_size`` is the number of images of a step over all processes; this process gets the
    micro-batches of its ``shard``. The height and width of a batch are multiples of ``divisor``. Raises UsageError if
    ``sampling`` needs labels or sizes that the data set does not know without reading its files.
    """
    sampler = StepSampler(
        build_epoch_order(sampling, dataset, seed),
        batch_size=batch_size,
        start_step=start_step,
        end_step=end_step,
        shard=shard,
        groups=group_of_images(sampling, dataset),
    )
    reader = _SampleReader(dataset, build_transform(transform, seed), None if mix is None else build_mix(mix, dataset))
    return _load(reader, loader, sampler, divisor)


def eval_loader(
    dataset: Dataset,
    transform: PartConfig,
    loader: LoaderConfig,
    *,
    batch_size: int,
    divisor: int,
    shard: Shard = Shard(),
) -> Iterator[Batch]:
    """Yield the evaluation batches of this process; together, all processes yield every image once, in order.

    Batch ``i`` goes to rank ``i % world_size``, and the last batch may be smaller. So the images of a batch, and with
    them the padding, do not depend on the number of processes.
    """
    sample_indices = [SampleIndex(0, index) for index in range(len(dataset))]
    batches = [sample_indices[first : first + batch_size] for first in range(0, len(sample_indices), batch_size)]
    batches = batches[shard.rank :: shard.world_size]
    return _load(_SampleReader(dataset, build_transform(transform)), loader, batches, divisor)


@dataclass(frozen=True, slots=True)
class _SampleReader:
    """Reads and transforms the samples of a data set."""

    dataset: Dataset
    transform: Transform
    mix: Mix | None = None

    def read(self, sample_index: SampleIndex, progress: WorkerProgress) -> Sample:
        """Read and transform a sample; record the image that is being read in ``progress``."""
        epoch, index, repeat = sample_index.epoch, sample_index.index, sample_index.repeat

        def read_record(index: int) -> Record:
            with progress.reading(index):
                return self.dataset.read(index)

        with progress.reading(index):
            if self.mix is not None and sample_index.progress < self.mix.until:
                return self.mix(read_record, self.transform, epoch, index, repeat)
            return self.transform(self.dataset.read(index), epoch, index, repeat)


@dataclass(frozen=True, slots=True)
class _Samples(TorchDataset):
    """The map-style data set for torch's DataLoader; it returns errors as values, since torch would wrap exceptions."""

    reader: _SampleReader | SharedPickle[_SampleReader]
    """The reader; a pickled stand-in while it is sent to workers that do not inherit memory."""
    progress: WorkerProgress

    def __getitem__(self, sample_index: SampleIndex) -> Sample | VertebraError:
        assert isinstance(self.reader, _SampleReader), "the stand-in is unpickled to the reader in a worker"
        try:
            return self.reader.read(sample_index, self.progress)
        except VertebraError as error:
            return error
        except Exception as error:
            return WorkerError(
                f"sample {sample_index.index} of epoch {sample_index.epoch} failed: {error!r}",
                image_id=self.reader.dataset.image_ids[sample_index.index],
            )


def _load(
    reader: _SampleReader, loader: LoaderConfig, batches: Iterable[list[SampleIndex]], divisor: int
) -> Iterator[Batch]:
    """Yield batches loaded by workers, or by this process if there are none; raise the first error of a sample."""
    progress = WorkerProgress(loader.workers, reader.dataset.image_ids)
    options: dict[str, Any] = {}
    heap = contextlib.nullcontext()
    samples = _Samples(reader, progress)
    if loader.workers:
        context = process_context(loader.start_method)
        options = {"num_workers": loader.workers, "multiprocessing_context": context, "worker_init_fn": init_worker}
        options["timeout"] = min(POLL_SECONDS, loader.timeout or POLL_SECONDS)
        if context.get_start_method() == "fork":
            heap = frozen_heap()
        else:
            samples = _Samples(_share(reader), progress)
    source = DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=functools.partial(_collate, divisor=divisor),
        pin_memory=torch.cuda.is_available(),
        **options,
    )
    with worker_errors(), heap:
        with signals_blocked():
            stream = iter(source)
        while (batch := _next_batch(stream, loader.timeout, progress)) is not None:
            if isinstance(batch, VertebraError):
                raise batch
            yield batch


def _share(reader: _SampleReader) -> SharedPickle[_SampleReader]:
    """Pickle the reader for workers that do not inherit memory; raise UsageError if it cannot be pickled."""
    try:
        return SharedPickle(reader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"the data set or its transform cannot be sent to worker processes: {error}",
            "define its classes and functions at the top level of a module, or set run.loader.workers=0",
        ) from error


def _next_batch(
    stream: Iterator[Batch | VertebraError], timeout: float, progress: WorkerProgress
) -> Batch | VertebraError | None:
    """Return the next batch, or None after the last; raise WorkerError if none arrives for ``timeout`` seconds.

    torch checks for dead workers each time its own, short timeout expires. For a worker that is not a child of this
    process, as with a fork server, this is the only way to notice that it died.
    """
    start = time.monotonic()
    while True:
        try:
            return next(stream, None)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            if timeout and time.monotonic() - start >= timeout:
                raise worker_error(f"no batch arrived for {timeout:g} s", progress.images_of()) from error


def _collate(samples: list[Sample | VertebraError], divisor: int) -> Batch | VertebraError:
    """Collate samples to a batch; if there are errors among them, return the first."""
    for sample in samples:
        if isinstance(sample, VertebraError):
            return sample
    return collate([sample for sample in samples if isinstance(sample, Sample)], divisor)
