"""What a map of logits is judged by: cross-entropy, Dice, Lovasz-Softmax, or a weighted sum of them.

All are taken over the known pixels of the whole batch: one that is ignored counts for nothing, so neither the padding
nor a batch mate changes what a pixel teaches. The mean cross-entropy is that of all processes' pixels; the hardest
pixels, Dice and Lovasz-Softmax are of each process's own. With no known pixel the loss is exactly zero, and so is its
gradient.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor, nn

from ...ops import all_reduce_mean
from ...structures import IGNORE, Config


class SemanticLossConfig(Config):
    """The weight of each loss in the sum, 0 to leave it out: ``{"cross_entropy": 1.0, "dice": 1.0}``."""

    cross_entropy: NonNegativeFloat = 1.0
    dice: NonNegativeFloat = 0.0
    """Overlap with soft predictions (1606.04797 section 3), the mean over the classes that are there."""
    lovasz: NonNegativeFloat = 0.0
    """A convex surrogate of the IoU (1705.08790), the mean over the classes that are there."""
    class_weights: tuple[PositiveFloat, ...] | None = None
    """What a pixel of each class counts in the cross-entropy; the mean is the weighted one, as torch's."""
    hardest: float = Field(default=1.0, gt=0, le=1)
    """Share of the pixels, those of the greatest cross-entropy, that it is the mean of: hard-pixel mining (1902.05093,
    detectron2's ``DeepLabCE``). Their share, 0.2 in Panoptic-DeepLab, is of all pixels; this one is of the known."""

    @model_validator(mode="after")
    def _check(self) -> "SemanticLossConfig":
        if not (self.cross_entropy or self.dice or self.lovasz):
            raise ValueError("a loss needs a part: give cross_entropy, dice or lovasz a weight above 0")
        if not self.cross_entropy and (self.class_weights is not None or self.hardest < 1):
            raise ValueError("class_weights and hardest are the cross-entropy's, which has weight 0 here: raise it")
        return self


class SemanticLoss(nn.Module):
    """Logits and the truth -> one number."""

    class_weights: Tensor | None

    def __init__(self, num_classes: int, config: SemanticLossConfig = SemanticLossConfig()) -> None:
        super().__init__()
        weights = config.class_weights
        if weights is not None and len(weights) != num_classes:
            raise ValueError(f"class_weights needs one for each of the {num_classes} classes; got {len(weights)}")
        self.config = config
        self.register_buffer("class_weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, logits: Float[Tensor, "b k h w"], truth: Int64[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """The weighted sum; 255 in the truth is ignored."""
        config, logits = self.config, logits.float()
        loss = logits.new_zeros(())
        if config.cross_entropy:
            loss = loss + config.cross_entropy * cross_entropy(logits, truth, self.class_weights, config.hardest)
        if config.dice or config.lovasz:
            shares, labels = logits.softmax(dim=1).transpose(0, 1).flatten(1), truth.flatten()
            if config.dice:
                loss = loss + config.dice * dice_loss(shares, labels)
            if config.lovasz:
                loss = loss + config.lovasz * lovasz_softmax(shares, labels)
        return loss


def cross_entropy(
    logits: Float[Tensor, "b k h w"],
    truth: Int64[Tensor, "b h w"],
    class_weights: Float[Tensor, " k"] | None = None,
    hardest: float = 1.0,
) -> Float[Tensor, ""]:
    """The mean over the known pixels, each times its class's weight, or over the ``hardest`` share of them."""
    errors = F.cross_entropy(logits, truth, class_weights, ignore_index=IGNORE, reduction="none").flatten()
    known = (truth != IGNORE).flatten()
    counts = known.to(errors.dtype)
    if class_weights is not None:
        counts = counts * class_weights[truth.flatten().clamp(max=len(class_weights) - 1)]
    if hardest < 1:
        # As many are drawn as would be wanted of an image without unknown pixels; fewer of them count if there are.
        errors, drawn = errors.topk(max(1, int(hardest * len(errors))))
        wanted = (hardest * known.sum()).floor().clamp(min=1)
        chosen = torch.arange(len(errors), device=errors.device) < wanted
        errors, counts = errors * chosen, counts[drawn] * chosen
    total = all_reduce_mean(counts.sum())
    return errors.sum() / torch.where(total > 0, total, 1)


def dice_loss(shares: Float[Tensor, "k n"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """1 minus 2 sum(p g) / (sum(p^2) + sum(g^2)) of each class (1606.04797 section 3, squares and all)."""
    truth, known = _one_hot(len(shares), labels)
    overlap = torch.where(truth, shares, 0).sum(dim=1)
    pixels = truth.sum(dim=1)
    sizes = torch.where(known, shares, 0).square().sum(dim=1) + pixels
    return _mean_of_present(1 - 2 * overlap / sizes.clamp(min=1), pixels > 0)


def lovasz_softmax(shares: Float[Tensor, "k n"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """The Lovasz extension of 1 - IoU at the errors of each class (1705.08790)."""
    truth, known = _one_hot(len(shares), labels)
    errors = (truth.to(shares.dtype) - shares).abs()
    errors, order = torch.where(known, errors, -1).sort(dim=1, descending=True)  # the unknown come last,
    errors = errors.clamp(min=0)  # and have none
    with torch.no_grad():
        # Of the worst n pixels as the mistakes: hits so far among them, and what is left of the class.
        hits = truth.gather(1, order).cumsum(dim=1)
        pixels = hits[:, -1:]
        mistakes = torch.arange(1, hits.shape[1] + 1, device=hits.device)
        loss = 1 - (pixels - hits) / (pixels + mistakes - hits)
        steps = torch.cat([loss[:, :1], loss.diff(dim=1)], dim=1)
    return _mean_of_present((errors * steps).sum(dim=1), pixels[:, 0] > 0)


def _one_hot(num_classes: int, labels: Int64[Tensor, " n"]) -> tuple[Bool[Tensor, "k n"], Bool[Tensor, " n"]]:
    """Which pixels are of each class, and which are of any."""
    classes = torch.arange(num_classes, device=labels.device)
    return labels == classes[:, None], labels != IGNORE


def _mean_of_present(losses: Float[Tensor, " k"], present: Bool[Tensor, " k"]) -> Float[Tensor, ""]:
    """The mean over the classes that the truth has; 0 without one."""
    return torch.where(present, losses, 0).sum() / present.sum().clamp(min=1)
