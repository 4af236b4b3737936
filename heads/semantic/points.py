"""Refinement of semantic logits by PointRend's point head (1912.08193 section 4.2)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ...ops import choose_points, draw_image_seeds, labels_at_points, random_points, sample_points, subdivide
from ...structures import FeatureInfo, Features, Images
from ..base import require_levels
from ..point_head import PointHead, PointHeadConfig
from .losses import cross_entropy


class PointRefinementConfig(PointHeadConfig):
    """The options of the refinement. The defaults are detectron2's for Semantic FPN on Cityscapes."""

    level: str = "p2"
    """The level whose features are sampled at each point."""
    coarse_in_every_layer: bool = False
    points: PositiveInt = 2048
    """Number of training points per image; 1024 in detectron2's base config."""
    subdivisions: NonNegativeInt = 2
    """Number of subdivision steps in prediction, each of which doubles the resolution; two lead from the stride of 4 of
    Semantic FPN's logits to the resolution of the image."""
    subdivision_points: PositiveInt = 8192
    """Number of cells that the point head recomputes in each subdivision step; 8096 in the paper."""


class PointRefinement(nn.Module):
    """A point head that raises the resolution of a semantic head's logits, and recomputes them where uncertain."""

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: PointRefinementConfig
    ) -> None:
        super().__init__()
        require_levels("the refinement", feature_info, [config.level])
        self.config = config
        self.point_head = PointHead(feature_info[config.level].channels, num_classes, config)

    def forward(
        self, coarse: Float[Tensor, "b k _ _"], features: Features, points: Float[Tensor, "b p 2"]
    ) -> Float[Tensor, "b k p"]:
        """Return the refined logits at points, given relative to the padded images, from the semantic head's logits."""
        return self.point_head(sample_points(features[self.config.level], points), sample_points(coarse, points))

    def loss(
        self,
        coarse: Float[Tensor, "b k _ _"],
        features: Features,
        images: Images,
        target: Int64[Tensor, "b _ _"],
        class_weights: Float[Tensor, " k"] | None,
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy at training points of each image, without those whose label is ignored."""
        with torch.no_grad():
            points = self._training_points(coarse, images)
            labels = labels_at_points(target, points)
        return cross_entropy(self(coarse, features, points)[..., None], labels[..., None], class_weights)

    def _training_points(self, coarse: Float[Tensor, "b k _ _"], images: Images) -> Float[Tensor, "b p 2"]:
        """Return the training points inside each image, relative to the padded images.

        detectron2 draws points in the padding as well, where there are no labels.
        """
        config = self.config
        seeds = draw_image_seeds(len(coarse), coarse.device)
        padded = images.sizes.new_tensor(images.padded_size)
        extent = (images.sizes / padded).flip(1).to(coarse.dtype)
        drawn = random_points(seeds, 1, config.num_drawn)[:, 0] * extent[:, None]
        return choose_points(coarse, drawn, config.num_uncertain, config.num_uniform)

    def refine(self, coarse: Float[Tensor, "b k _ _"], features: Features) -> Float[Tensor, "b k _ _"]:
        """Return the logits at a higher resolution, computed by adaptive subdivision."""
        logits = coarse
        for _ in range(self.config.subdivisions):
            logits = subdivide(logits, self.config.subdivision_points, lambda points: self(coarse, features, points))
        return logits
