"""Global average pooling of feature maps, for heads that predict one value or vector for an image."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..ops import masked_mean
from ..structures import FeatureInfo, Features, Images
from .base import require_levels


def pooled_strides(
    reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str] | None
) -> dict[str, int]:
    """Return the stride of each level to pool, by name; if ``levels`` is None, only of the coarsest level.

    Several levels of a dilated backbone may have the greatest stride; the last of them is the coarsest. Raises
    ValueError for a missing level; ``reader`` is the name of the head in the message.
    """
    levels = levels or [max(reversed(list(feature_info)), key=lambda level: feature_info[level].stride)]
    require_levels(reader, feature_info, levels)
    return {level: feature_info[level].stride for level in levels}


def pool_levels(features: Features, images: Images, strides: Mapping[str, int]) -> Float[Tensor, "b c"]:
    """Return the mean of each channel over the image, without padding; the levels in ``strides`` are concatenated."""
    pooled = [masked_mean(features[level], images.sizes, stride) for level, stride in strides.items()]
    return torch.cat(pooled, dim=1)
