"""Detection with test-time augmentation (several scales, flips).

Each combination of scale and flip is a view of the image. The boxes of all views are merged by NMS within each class;
then the masks and keypoint heatmaps of the merged boxes are predicted in every view, and averaged. Both rules are
detectron2's (``GeneralizedRCNNWithTTA``), which resizes views to given short sides and refuses keypoints. Weighted box
fusion (1910.13302) would change the scores of boxes that only some views find, and is not offered.

The feature maps of all views of an image are in memory at once if the model predicts masks or keypoints.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from ..heads import KeypointBranch, RCNNHead, RegionBranch
from ..ops import PaddedDetections, resize_maps, select_detections
from ..structures import Config, Detections, Features, Images, Skeleton, UnitInterval, UsageError, find_flip_pairs
from .model import Model, PredictingModel
from .semantic_inference import SemanticInference, predict_semantic


class DetectionInference(Config):
    """The options of test-time augmentation of a detector. The default is one pass over the image."""

    scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    """Scales of the views: factors by which the image is resized bilinearly. detectron2: short sides 400 to 1200."""
    flip: bool = False
    """Also predict the horizontally flipped image at every scale. detectron2: True."""
    nms_threshold: UnitInterval = 0.5
    """IoU above which NMS drops the box with the lower score, within each class. detectron2: the model's threshold."""
    max_detections: PositiveInt = 100
    """Maximum number of detections per image. detectron2: the model's number."""

    @property
    def views(self) -> list[tuple[float, bool]]:
        """The views of an image as (scale, whether it is flipped)."""
        return [(scale, flipped) for scale in self.scales for flipped in ((False, True) if self.flip else (False,))]


class _View(NamedTuple):
    """A view of an image with its feature maps, and the detections in it."""

    images: Images
    flipped: bool
    features: Features
    found: Detections

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) of the view."""
        return self.images.size_list()[0]

    def to_image(self, size: tuple[int, int]) -> Detections:
        """Return the boxes in pixels of the image of this (height, width)."""
        boxes = _flip(self.found.boxes, self.size[1]) if self.flipped else self.found.boxes
        return Detections(boxes, self.found.labels, self.found.scores).to_original(self.size, size)

    def from_image(self, boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> Float[Tensor, "n 4"]:
        """Return boxes, in pixels of the image of this (height, width), in pixels of the view."""
        boxes = boxes * boxes.new_tensor([self.size[1] / size[1], self.size[0] / size[0]] * 2)
        return _flip(boxes, self.size[1]) if self.flipped else boxes


ViewConfig = SemanticInference | DetectionInference
"""How an image is predicted in windows or in several views."""


def predict_views(model: PredictingModel, images: Images, config: ViewConfig | None = None) -> list[Any]:
    """Predict each image, in the windows and views of a config for the model's task; None: at once."""
    if isinstance(config, SemanticInference) and model.head.task == "semantic":
        return list(predict_semantic(model, images, config))
    if isinstance(config, DetectionInference) and model.head.task == "detection":
        return list(predict_detections(model, images, config))
    return model.predict(images)


@torch.no_grad()
def predict_detections(
    model: PredictingModel, images: Images, config: DetectionInference = DetectionInference()
) -> list[Detections]:
    """Detect the objects of each image; with several views, one image at a time.

    Call ``eval()`` first. Raises ValueError if the model's task is not detection, and UsageError for several views and
    an exported file.
    """
    if model.head.task != "detection":
        raise ValueError(
            f"predict_detections needs a detector; the task of this model is {model.head.task}: use model.predict"
        )
    if config.views == [(1.0, False)]:
        return model.predict(images)
    if not isinstance(model, Model):
        fix = "predict the run that it was exported from, or leave out evaluation.detection"
        raise UsageError("an exported file cannot predict an image in several views", fix)
    return [
        _predict_image(model, pixels[:, :height, :width], config)
        for pixels, (height, width) in zip(images.pixels, images.size_list(), strict=True)
    ]


def _predict_image(model: Model, pixels: UInt8[Tensor, "c h w"], config: DetectionInference) -> Detections:
    """Detect the objects of an image in all its views."""
    size = pixels.shape[1], pixels.shape[2]
    branches = list(model.head.region_branches()) if isinstance(model.head, RCNNHead) else []
    views = []
    for scale, flipped in config.views:
        view = _predict_view(model, pixels, scale, flipped)
        views.append(view if branches else view._replace(features={}))
    found = Detections.concatenate([view.to_image(size) for view in views])
    merged = select_detections(
        found.boxes[None], found.scores[None], found.labels[None], config.nms_threshold, config.max_detections
    )
    (detections,) = merged.unpad()
    with model.autocast():
        for _, branch in branches:
            values = torch.stack([_predict_branch(branch, view, detections, size) for view in views]).mean(dim=0)
            detections = branch.attach(detections, values, size)
    return detections


def _predict_view(model: Model, pixels: UInt8[Tensor, "c h w"], scale: float, flipped: bool) -> _View:
    """Detect the boxes of an image that is resized by ``scale`` and, if ``flipped``, flipped horizontally."""
    height, width = (max(1, round(side * scale)) for side in pixels.shape[-2:])
    resized = resize_maps(pixels.float()[None], (height, width))[0].round().to(torch.uint8)
    images = Images.from_list([resized.flip(-1) if flipped else resized], model.size_divisor)
    features = model.features(images)
    with model.autocast():
        if isinstance(model.head, RCNNHead):
            (found,) = model.head.detect_boxes(features, images).unpad()
        else:
            (found,) = model.head.predict(features, images)
    return _View(images, flipped, features, found)


def _predict_branch(
    branch: RegionBranch, view: _View, detections: Detections, size: tuple[int, int]
) -> Float[Tensor, "n *d"]:
    """Return what a branch predicts in a view for boxes in pixels of the image, as it would be without the flip."""
    boxes = view.from_image(detections.boxes, size)
    valid = torch.ones_like(detections.labels, dtype=torch.bool)
    padded = PaddedDetections(boxes[None], detections.labels[None], detections.scores[None], valid[None])
    values = branch.predict(view.features, padded)[0]
    if not view.flipped:
        return values
    if isinstance(branch, KeypointBranch):
        names = branch.config.names
        values = values[:, list(Skeleton(names, flip_pairs=find_flip_pairs(names)).flip_order)]
    return values.flip(-1)


def _flip(boxes: Float[Tensor, "n 4"], width: int) -> Float[Tensor, "n 4"]:
    """Return the boxes in an image of this width after a horizontal flip."""
    left, top, right, bottom = boxes.unbind(dim=1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)
