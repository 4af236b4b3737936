"""Panoptic segmentation (1801.00868): every pixel belongs to at most one segment, an object or an area of stuff.

Labels of a panoptic segmentation are ``0..K-1`` with the things first: the label of a thing is its label in detection,
and the label of the stuff class ``s`` of the semantic branch is the number of thing classes plus ``s``.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int32
from pydantic import Field
from torch import Tensor

from .config import Config, UnitInterval
from .detections import Detections
from .semantic import SemanticLogits

VOID = 0
"""The segment id of pixels that belong to no segment."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of an image: an object of a thing class, or all pixels of a stuff class."""

    id: int
    """The value of the segment's pixels in the map."""
    label: int
    is_thing: bool
    score: float | None = None
    """The score of a predicted thing."""
    crowd: bool = False
    """Whether the segment is a group of objects that are not annotated individually; ground truth only."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: tensors have no single truth value
class PanopticSegmentation:
    """The panoptic segmentation of one image: a map of segment ids, in which 0 is void, and the segments."""

    ids: Int32[Tensor, "h w"]
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.dtype != torch.int32:
            raise ValueError(
                f"a segment map is int32 of shape (height, width), got {self.ids.dtype} of {tuple(self.ids.shape)}"
            )
        ids = [segment.id for segment in self.segments]
        if len(set(ids)) < len(ids) or min(ids, default=1) <= VOID:
            raise ValueError(f"segments need distinct ids above {VOID}, got {ids}")
        if self.ids.device.type == "cpu" and (unlisted := {*self.ids.unique().tolist()} - {VOID, *ids}):
            raise ValueError(
                f"the map has pixels of the id {min(unlisted)}, but no segment has this id: add it to segments, or set "
                f"its pixels to {VOID}, void"
            )

    def __len__(self) -> int:
        return len(self.segments)

    def mask(self, segment: Segment) -> Bool[Tensor, "h w"]:
        """Return the pixels of a segment."""
        return self.ids == segment.id

    def label_map(self) -> Int32[Tensor, "h w"]:
        """Return the label of every pixel; -1 for void."""
        labels = torch.full((max((segment.id for segment in self.segments), default=VOID) + 1,), -1, dtype=torch.int32)
        for segment in self.segments:
            labels[segment.id] = segment.label
        return labels.to(self.ids.device)[self.ids.long()]

    def to(self, device: torch.device | str) -> "PanopticSegmentation":
        """Return the segmentation with its map on ``device``."""
        return replace(self, ids=self.ids.to(device))


class PanopticMergeConfig(Config):
    """How detections and a class map are merged. The defaults are those of detectron2 and panopticapi."""

    score_threshold: UnitInterval = 0.5
    """Objects with a lower score are left out."""
    overlap_threshold: UnitInterval = 0.5
    """An object is left out if objects with a higher score cover more than this fraction of its mask."""
    stuff_area: int = Field(default=4096, ge=0)
    """A stuff class with fewer remaining pixels in the original image is left out; its pixels become void."""


@dataclass(frozen=True, slots=True, eq=False)
class PanopticParts:
    """The detections and class logits of one image, which :func:`vertebra.ops.merge_panoptic` merges into segments.

    They are merged at the size of the original image, since the rule counts areas in its pixels.
    """

    detections: Detections
    """The objects, with masks."""
    semantic: SemanticLogits
    """Class logits; the first ``num_stuff`` classes are stuff, the remaining ones are things."""
    num_things: int
    num_stuff: int
    rule: PanopticMergeConfig

    def __post_init__(self) -> None:
        if self.detections.masks is None:
            raise ValueError("panoptic segments need detections with masks: use a head with a mask branch")
        if self.semantic.num_classes <= self.num_stuff:
            raise ValueError(
                f"the class logits need {self.num_stuff} stuff classes and at least one class for things, got "
                f"{self.semantic.num_classes} classes"
            )

    def to(self, device: torch.device | str) -> "PanopticParts":
        """Return the parts with every tensor on ``device``."""
        return replace(self, detections=self.detections.to(device), semantic=self.semantic.to(device))
