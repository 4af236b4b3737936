"""Checks of the sizes of objects and images against the model and the transform of an experiment."""

from collections.abc import Iterable

import numpy as np

from ....data import ResizeConfig
from ....heads import RCNNConfig, RetinaNetConfig
from ....structures import UsageError
from ...recipe.facts import DataFacts, read_facts
from ...recipe.rules.anchors import ENOUGH, IOU, centered, reach, strides_of_levels
from ..findings import Finding
from ..splits import ExaminedData, Split, chosen_examples

SMALL = 32**2
"""COCO calls an object small if its area in pixels is below this."""
MANY_SMALL = 0.5
MANY_BELOW_STRIDE = 0.1
SHRUNK = 3.0
"""The factor by which images are shrunk from which it is mentioned."""
LONG_IMAGES = 3.0
"""The ratio of the sides of an image from which it is mentioned."""


def check_object_sizes(data: ExaminedData) -> Iterable[Finding]:
    """Find out whether many objects are small in the original images."""
    for split in data.splits:
        if split.boxes is None or not len(split.boxes):
            continue
        sides = split.boxes[:, 2:] - split.boxes[:, :2]
        small = np.flatnonzero(sides.prod(axis=1) < SMALL)
        if len(small) > MANY_SMALL * len(sides):
            yield Finding(
                "small-objects", "note", split.name, "boxes have less than 32 x 32 pixels",
                "train on enlarged images or on tiles, and look at AP of small objects", len(small), len(sides),
                chosen_examples(split, small),
            )  # fmt: skip


def check_image_shapes(data: ExaminedData) -> Iterable[Finding]:
    """Find images that are much longer than wide, which a resize with a limit for the long side makes small."""
    for split in data.splits:
        if split.sizes is None or not len(split.sizes):
            continue
        long = np.flatnonzero(split.sizes.max(axis=1) > LONG_IMAGES * split.sizes.min(axis=1))
        if len(long):
            yield Finding(
                "long-images", "note", split.name, f"images are more than {LONG_IMAGES:g} times as long as wide",
                "cut them into tiles if objects become too small", len(long), len(split.sizes),
                tuple(split.image_example(int(index)) for index in long[:3]),
            )  # fmt: skip


def check_fit_to_model(data: ExaminedData) -> Iterable[Finding]:
    """Compare the objects, as large as the model sees them, with its strides and anchors."""
    experiment, train, val = data.experiment, data.split("train"), data.split("val")
    if experiment is None or train is None or val is None or train.boxes is None or not len(train.boxes):
        return
    transform = experiment.val.transform
    if not isinstance(transform, ResizeConfig):
        return
    facts = read_facts(train.dataset, val.dataset)
    sides = facts.resized_boxes(max(transform.short_sides), transform.long_side)
    yield from _check_scale(train, facts, transform)
    head = experiment.model.head
    part = head.rpn if isinstance(head, RCNNConfig) else head
    try:
        strides = strides_of_levels(experiment.model, getattr(part, "levels", None))
    except (UsageError, ValueError):  # a head that reads no pyramid
        return
    below = np.flatnonzero(sides.min(axis=1) < min(strides))
    if len(below) > MANY_BELOW_STRIDE * len(sides):
        yield Finding(
            "below-stride", "warning", train.name,
            f"resized boxes are thinner than the finest stride, {min(strides)} pixels",
            "enlarge the images by transform.short_sides, or predict on tiles", len(below), len(sides),
            chosen_examples(train, below),
        )  # fmt: skip
    if isinstance(head, RCNNConfig | RetinaNetConfig):
        anchored = head.rpn if isinstance(head, RCNNConfig) else head
        reached = reach(centered(sides), anchored.sizes_for(strides), anchored.anchor_ratios)[0]
        if reached < ENOUGH:
            yield Finding(
                "few-reached-by-anchors", "warning", train.name,
                f"boxes are not reached by an anchor at IoU {IOU}, on COCO 14 to 17 %",
                "change transform.short_sides, or anchor_sizes and anchor_ratios; vertebra train --data chooses them",
                round((1 - reached) * len(sides)), len(sides),
            )  # fmt: skip


def _check_scale(train: Split, facts: DataFacts, transform: ResizeConfig) -> Iterable[Finding]:
    scales = np.minimum(
        max(transform.short_sides) / facts.sizes.min(axis=1), transform.long_side / facts.sizes.max(axis=1)
    )
    shrunk = np.flatnonzero(scales < 1 / SHRUNK)
    if len(shrunk):
        yield Finding(
            "shrunk-images", "note", train.name,
            f"images are shrunk more than {SHRUNK:g} times, to a short side of {max(transform.short_sides)}",
            "raise transform.short_sides, or set decode_short_side to read them faster", len(shrunk), len(scales),
            tuple(train.image_example(int(index)) for index in shrunk[:3]),
        )  # fmt: skip
