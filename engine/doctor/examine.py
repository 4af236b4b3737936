"""Examining the data of an experiment or at a path: opening, checks, and the diagnosis."""

from collections.abc import Iterable, Sequence

from ...data import Dataset
from ..config import ExperimentConfig
from ..logging.progress import ProgressDisplay
from .checks import IMAGE_CHECKS, OBJECT_CHECKS, SLOW_CHECKS
from .findings import Diagnosis, Finding
from .pixels import ImageFacts, read_facts_of_images
from .reported import find_reported
from .splits import DataSource, ExaminedData, Split


def examine(source: DataSource, with_images: bool = True, display: ProgressDisplay | None = None) -> Diagnosis:
    """Open all splits of a data set and run the checks; ``with_images`` also decodes every image.

    Data that cannot be used become findings. Raises UsageError if the config or the path cannot be used at all. The
    pass over the images is shown on the ``display``.
    """
    data, findings = source.open()
    findings += list(_check(data))
    if with_images and data.splits:
        facts = {split.name: _read_images(split, display) for split in data.splits}
        findings += [finding for check in IMAGE_CHECKS for finding in check(data, facts)]
    lines = [*source.notes, *(split.summary() for split in data.splits)]
    return Diagnosis.of(source.name, lines, findings)


def _read_images(split: Split, display: ProgressDisplay | None) -> Sequence[ImageFacts]:
    if display is None:
        return read_facts_of_images(split.dataset)
    bar = display.add_bar(split.name, len(split.dataset))
    return read_facts_of_images(split.dataset, lambda: display.advance(bar))


def _check(data: ExaminedData) -> Iterable[Finding]:
    for split in data.splits:
        yield from find_reported(split)
    for check in (*OBJECT_CHECKS, *SLOW_CHECKS):
        yield from check(data)


def describe_quickly(train_set: Dataset, val_set: Dataset, experiment: ExperimentConfig) -> str:
    """Return in one line what the checks that read no file find in the opened data sets of an experiment."""
    data = ExaminedData((Split("train", train_set), Split("val", val_set)), experiment)
    findings = [finding for check in OBJECT_CHECKS for finding in check(data)]
    return Diagnosis.of(experiment.name, (), findings).summary()
