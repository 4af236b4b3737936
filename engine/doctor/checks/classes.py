"""Checks of class names, and of how many objects each class has in each split."""

import re
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from ....data.report import DataReport
from ....ops import join_first
from ..findings import Finding
from ..splits import ExaminedData, Split, chosen_examples

BACKGROUND_NAMES = frozenset(("background", "__background__", "_background_", "bg"))
FEW_OBJECTS = 10
"""A class with fewer training objects is hardly learned."""
IMBALANCE = 50
"""The ratio of the most to the least frequent class from which the balance is mentioned."""


def check_class_names(data: ExaminedData) -> Iterable[Finding]:
    """Find names that are empty, padded with spaces, alike but for case or spaces, or mean the background."""
    for split in data.splits:
        names = split.class_names
        padded = [name for name in names if name != name.strip() or not name.strip()]
        if padded:
            yield Finding(
                "padded-class-name", "warning", split.name, f"class names are empty or padded: {_quoted(padded)}",
                "remove the spaces, or name the class", len(padded), len(names),
            )  # fmt: skip
        alike = defaultdict(list)
        for name in names:
            alike[re.sub(r"[\s_-]+", "", name.casefold())].append(name)
        groups = [group for group in alike.values() if len(group) > 1]
        if groups:
            listed = join_first([" = ".join(map(repr, group)) for group in groups], separator=", ")
            yield Finding(
                "similar-class-names", "warning", split.name, f"classes have names that are alike: {listed}",
                "merge them into one class", sum(map(len, groups)), len(names),
            )  # fmt: skip
        if split.dataset.task == "detection" and (found := [name for name in names if is_background_name(name)]):
            yield Finding(
                "background-class", "warning", split.name, f"a class of objects is named {_quoted(found)}",
                "remove it: the background is no class of objects",
            )  # fmt: skip


def is_background_name(name: str) -> bool:
    """Return whether a class name means the background."""
    return name.strip().casefold() in BACKGROUND_NAMES


def _quoted(names: list[str]) -> str:
    return join_first([repr(name) for name in names], separator=", ")


def count_objects(split: Split) -> np.ndarray | None:
    """Return the number of objects of each label; None if it is unknown."""
    if split.pairs is None or not split.class_names:
        return None
    return np.bincount(split.pairs[:, 1], minlength=len(split.class_names))


def check_class_counts(data: ExaminedData) -> Iterable[Finding]:
    """Find classes without training objects or with few, and a large imbalance."""
    train = data.split("train") or data.split("all")
    counts = None if train is None else count_objects(train)
    if train is None or counts is None or not counts.sum():
        return
    first = 1 if train.dataset.task == "semantic" else 0  # the background has no objects
    names, counts = train.class_names[first:], counts[first:]
    yield from _check_absent(data, train, names, counts)
    few = [f"{name} {count}" for name, count in zip(names, counts.tolist(), strict=True) if 0 < count < FEW_OBJECTS]
    if few:
        yield Finding(
            "few-objects", "note", train.name, f"classes have fewer than {FEW_OBJECTS} objects: "
            f"{join_first(few, separator=', ')}", "annotate more of them, or do not expect much", len(few), len(names),
        )  # fmt: skip
    seen = counts[counts > 0]
    if len(seen) > 1 and seen.max() > IMBALANCE * seen.min():
        most, least = names[counts.argmax()], names[np.where(counts > 0, counts, counts.max() + 1).argmin()]
        yield Finding(
            "class-imbalance", "note", train.name, f"{most} has {seen.max()} objects, {least} {seen.min()}",
            'draw images of rare classes more often: sampling.images="repeat_factor"',
        )  # fmt: skip


def _check_absent(data: ExaminedData, train: Split, names: tuple[str, ...], counts: np.ndarray) -> Iterable[Finding]:
    """Find classes without training objects: those of the validation data first, since their AP is 0."""
    absent = {name for name, count in zip(names, counts.tolist(), strict=True) if not count}
    val = data.split("val")
    val_counts = None if val is None else count_objects(val)
    evaluated: list[str] = []
    if val is not None and val.pairs is not None and val_counts is not None:
        counted = zip(val.class_names, val_counts.tolist(), strict=True)
        evaluated = sorted({name for name, count in counted if count} & absent)
        if evaluated:
            rows = np.flatnonzero(np.isin(val.pairs[:, 1], [val.class_names.index(name) for name in evaluated]))
            yield Finding(
                "class-absent-from-train", "warning", "train and val",
                f"classes of validation objects have no training object: {join_first(evaluated, separator=', ')}",
                "divide the images again, or leave out these classes", len(evaluated), len(names),
                chosen_examples(val, rows),
            )  # fmt: skip
    if rest := sorted(absent - set(evaluated)):
        is_root = len(rest) == 1 and rest[0] == names[0] and len(names) > 1
        what = f"classes have no object: {join_first(rest, separator=', ')}"
        fix = "leave them out of class_names, unless objects will be added"
        if is_root:
            what = f"the first class, {rest[0]!r}, has no object, as the root category that exporters put first"
            fix = "remove it from the categories, or select the others with class_names"
        severity = "warning" if is_root else "note"
        yield Finding("class-without-objects", severity, train.name, what, fix, len(rest), len(names))


def check_label_offset(data: ExaminedData) -> Iterable[Finding]:
    """Find labels that count from 1 where the format counts from 0."""
    for split in data.splits:
        counts, unknown = count_objects(split), _count_unknown(split.dataset.report)
        if counts is not None and unknown and len(counts) > 1 and not counts[0] and counts[1:].any():
            yield Finding(
                "labels-from-one", "warning", split.name,
                f"objects have a class number beyond the last, and none is of the first, {split.class_names[0]!r}",
                "subtract 1 from all class numbers", unknown, split.dataset.report.read["annotations"],
            )  # fmt: skip


def _count_unknown(report: DataReport) -> int:
    case = report.skipped.get("annotations", {}).get("unknown-category")
    return 0 if case is None else case.count
