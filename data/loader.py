"""Batches from a data set, by worker processes that fail loudly."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from pydantic import Field
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..structures import Config, PartConfig, VertebraError, WorkerError
from .dataset import Dataset
from .mixing import Mix, build_mix
from .sampling import SampleIndex, SamplingConfig, Shard, StepSampler, build_epoch_order, group_of_images
from .transforms import Transform, build_transform
from .types import Batch, Record, Sample, collate
from .workers import WorkerProgress, frozen_heap, init_worker, worker_errors


class LoaderConfig(Config):
    """How batches are made; none of it changes what is in them."""

    workers: int = Field(default=2, ge=0)
    """DistributedContext that read and transform; 0 does it in the training process."""
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
    share: Shard = Shard(),
    sampling: SamplingConfig = SamplingConfig(),
    mix: PartConfig | None = None,
) -> Iterator[Batch]:
    """The batches of steps ``start_step`` to ``end_step``, counted from 0, shuffled anew each epoch.

    ``batch_size`` is a whole step's; of each step this process gets the micro-batches of its ``share``. UsageError
    where ``sampling`` goes by what the data set does not know of its images.
    """
    sampler = StepSampler(
        build_epoch_order(sampling, dataset, seed),
        batch_size=batch_size,
        start_step=start_step,
        end_step=end_step,
        share=share,
        groups=group_of_images(sampling, dataset),
    )
    notes = WorkerProgress(loader.workers, dataset.image_ids)
    mixed = None if mix is None else build_mix(mix, dataset)
    return _load(_Samples(dataset, build_transform(transform, seed), notes, mixed), loader, sampler, divisor)


def eval_loader(
    dataset: Dataset,
    transform: PartConfig,
    loader: LoaderConfig,
    *,
    batch_size: int,
    divisor: int,
    share: Shard = Shard(),
) -> Iterator[Batch]:
    """Every image once, in order, the batches dealt out to processes; the last may be smaller, and none is padded.

    What comes together, and so how an image is padded, does not depend on the number of processes.
    """
    sample_indices = [SampleIndex(0, index) for index in range(len(dataset))]
    batches = [sample_indices[first : first + batch_size] for first in range(0, len(sample_indices), batch_size)]
    batches = batches[share.rank :: share.processes]
    notes = WorkerProgress(loader.workers, dataset.image_ids)
    return _load(_Samples(dataset, build_transform(transform), notes), loader, batches, divisor)


@dataclass(frozen=True, slots=True)
class _Samples(TorchDataset):
    """What a worker holds. A fault is handed over as a value, since the loader would rewrap an exception."""

    dataset: Dataset
    transform: Transform
    notes: WorkerProgress
    mix: Mix | None = None

    def __getitem__(self, sample_index: SampleIndex) -> Sample | VertebraError:
        index = sample_index.index
        try:
            with self.notes.reading(index):
                if self.mix is not None:
                    return self.mix(self._read, self.transform, sample_index.epoch, index, sample_index.repeat)
                return self.transform(self.dataset.read(index), sample_index.epoch, index, sample_index.repeat)
        except VertebraError as error:
            return error
        except Exception as error:
            return WorkerError(
                f"sample {index} of epoch {sample_index.epoch} failed: {error!r}",
                image_id=self.dataset.image_ids[index],
            )

    def _read(self, index: int) -> Record:
        """One of the images of a mix."""
        with self.notes.reading(index):
            return self.dataset.read(index)


def _load(
    samples: _Samples, loader: LoaderConfig, batches: Iterable[list[SampleIndex]], divisor: int
) -> Iterator[Batch]:
    source = DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=loader.workers,
        collate_fn=functools.partial(_collate, divisor=divisor),
        worker_init_fn=init_worker,
        timeout=loader.timeout if loader.workers else 0,
        pin_memory=torch.cuda.is_available(),
    )
    with worker_errors(samples.notes), frozen_heap() if loader.workers else contextlib.nullcontext():
        for batch in source:
            if isinstance(batch, VertebraError):
                raise batch
            yield batch


def _collate(samples: list[Sample | VertebraError], divisor: int) -> Batch | VertebraError:
    for sample in samples:
        if isinstance(sample, VertebraError):
            return sample
    return collate([sample for sample in samples if isinstance(sample, Sample)], divisor)
