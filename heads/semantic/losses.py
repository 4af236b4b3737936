"""Losses for semantic segmentation: cross-entropy, Dice, Lovasz-Softmax, and weighted sums of them.

All are computed over the labeled pixels of the whole batch. Ignored pixels have no effect, so padding does not change
a loss. Without any labeled pixel, a loss and its gradient are exactly zero.

With several processes, mean cross-entropy and Dice equal those of one process with all images. Lovasz-Softmax and hard
pixel mining sort pixels within each process: their value is the mean of the processes' losses, which depends on how the
images are distributed. All losses depend on ``accumulate``, since they are computed for each micro-batch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor, nn

from ...ops import all_reduce_mean, all_reduce_sum
from ...structures import IGNORE, Config


class SemanticLossConfig(Config):
    """The weights of the losses in the total loss; 0 switches a loss off."""

    cross_entropy: NonNegativeFloat = 1.0
    """Weight of the cross-entropy."""
    dice: NonNegativeFloat = 0.0
    """Weight of the Dice loss (1606.04797 section 3), averaged over the classes in the targets."""
    lovasz: NonNegativeFloat = 0.0
    """Weight of the Lovasz-Softmax loss, a surrogate of the IoU (1705.08790), averaged over the classes in the targets
    of each process."""
    class_weights: tuple[PositiveFloat, ...] | None = None
    """Weights of the classes in the cross-entropy, which is then a weighted mean, as in torch. None: all equal."""
    hardest: float = Field(default=1.0, gt=0, le=1)
    """Hard pixel mining: the fraction of labeled pixels in each process, with the greatest cross-entropy, to average
    over (1902.05093, detectron2's ``DeepLabCE``; there, the fraction, 0.2 in Panoptic-DeepLab, is of all pixels,
    including ignored ones)."""

    @model_validator(mode="after")
    def _check(self) -> "SemanticLossConfig":
        if not (self.cross_entropy or self.dice or self.lovasz):
            raise ValueError("all losses are switched off: set the weight of cross_entropy, dice or lovasz above 0")
        if not self.cross_entropy and (self.class_weights is not None or self.hardest < 1):
            raise ValueError(
                "class_weights and hardest have no effect with cross_entropy=0: raise it, or leave them out"
            )
        return self


class SemanticLoss(nn.Module):
    """The weighted sum of cross-entropy, Dice and Lovasz-Softmax loss."""

    class_weights: Tensor | None

    def __init__(self, num_classes: int, config: SemanticLossConfig = SemanticLossConfig()) -> None:
        super().__init__()
        weights = config.class_weights
        if weights is not None and len(weights) != num_classes:
            raise ValueError(f"class_weights needs {num_classes} values, one for each class; got {len(weights)}")
        self.config = config
        self.register_buffer("class_weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, logits: Float[Tensor, "b k h w"], target: Int64[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """Compute the loss; pixels whose target is 255 are ignored."""
        config, logits = self.config, logits.float()
        loss = logits.new_zeros(())
        if config.cross_entropy:
            loss = loss + config.cross_entropy * cross_entropy(logits, target, self.class_weights, config.hardest)
        if config.dice or config.lovasz:
            probabilities, labels = logits.softmax(dim=1).transpose(0, 1).flatten(1), target.flatten()
            if config.dice:
                loss = loss + config.dice * dice_loss(probabilities, labels)
            if config.lovasz:
                loss = loss + config.lovasz * lovasz_softmax(probabilities, labels)
        return loss


def cross_entropy(
    logits: Float[Tensor, "b k h w"],
    target: Int64[Tensor, "b h w"],
    class_weights: Float[Tensor, " k"] | None = None,
    hardest: float = 1.0,
) -> Float[Tensor, ""]:
    """Return the class-weighted mean cross-entropy over the labeled pixels, or the ``hardest`` fraction of them."""
    errors = F.cross_entropy(logits, target, class_weights, ignore_index=IGNORE, reduction="none").flatten()
    known = (target != IGNORE).flatten()
    counts = known.to(errors.dtype)
    if class_weights is not None:
        counts = counts * class_weights[target.flatten().clamp(max=len(class_weights) - 1)]
    if hardest < 1:
        # topk needs a fixed number: that for no ignored pixels. Of these, only the fraction of labeled pixels counts.
        errors, indices = errors.topk(max(1, int(hardest * len(errors))))
        num_hardest = (hardest * known.sum()).floor().clamp(min=1)
        counted = torch.arange(len(errors), device=errors.device) < num_hardest
        errors, counts = errors * counted, counts[indices] * counted
    total = all_reduce_mean(counts.sum())
    return errors.sum() / torch.where(total > 0, total, 1)


def dice_loss(probabilities: Float[Tensor, "k n"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the mean over classes of 1 - 2 sum(p g) / (sum(p^2) + sum(g^2)) (1606.04797 section 3).

    The sums are over the labeled pixels of all processes; classes that are not in the targets are left out.
    """
    of_class, known = _one_hot(len(probabilities), labels)
    overlap = torch.where(of_class, probabilities, 0).sum(dim=1)
    squares = torch.where(known, probabilities, 0).square().sum(dim=1)
    pixels = of_class.sum(dim=1).to(squares.dtype)
    overlap, squares, pixels = all_reduce_sum(torch.stack([overlap, squares, pixels])).unbind()
    return _mean_of_present(1 - 2 * overlap / (squares + pixels).clamp(min=1), pixels > 0)


def lovasz_softmax(probabilities: Float[Tensor, "k n"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the mean over the classes in the targets of the Lovasz extension of 1 - IoU at the errors (1705.08790)."""
    present = torch.stack([(labels == label).any() for label in range(len(probabilities))])
    losses: Tensor = _LovaszExtension.apply(probabilities, labels)  # pyright: ignore[reportAssignmentType]
    return _mean_of_present(losses, present)


class _LovaszExtension(torch.autograd.Function):
    """The Lovasz extension of each class, computed class by class so that sorting needs the memory of one class.

    It is piecewise linear in the probabilities, so ``forward`` already computes the gradient, and saves nothing else
    for ``backward``: four bytes per class and pixel.
    """

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, labels: Tensor) -> Tensor:
        known = labels != IGNORE
        gradients = torch.empty_like(probabilities) if ctx.needs_input_grad[0] else None
        losses = []
        for label, of_class in enumerate(probabilities):
            loss, gradient = _lovasz_of_class(of_class, labels == label, known)
            losses.append(loss)
            if gradients is not None:
                gradients[label] = gradient
        if gradients is not None:
            ctx.save_for_backward(gradients)
        return torch.stack(losses)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * output_gradients[0][:, None], None


def _lovasz_of_class(
    probabilities: Float[Tensor, " n"], truth: Bool[Tensor, " n"], known: Bool[Tensor, " n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, " n"]]:
    """Return the Lovasz extension of 1 - IoU of one class, and its gradient with respect to the probabilities."""
    differences = truth.to(probabilities.dtype) - probabilities
    errors, order = torch.where(known, differences.abs(), -1).sort(descending=True)  # ignored pixels come last
    errors = errors.clamp(min=0)  # and have an error of 0
    # 1 - IoU if the n pixels with the largest errors are wrong, for each n; its increments are the gradient.
    hits = truth[order].cumsum(0)
    mistakes = torch.arange(1, len(hits) + 1, device=hits.device)
    loss = 1 - (hits[-1] - hits) / (hits[-1] + mistakes - hits)
    steps = torch.cat([loss[:1], loss.diff()])
    gradient = torch.empty_like(probabilities).scatter_(0, order, steps) * -differences.sign() * known
    return (errors * steps).sum(), gradient


def _one_hot(num_classes: int, labels: Int64[Tensor, " n"]) -> tuple[Bool[Tensor, "k n"], Bool[Tensor, " n"]]:
    """Return (which pixels have each class, which pixels are labeled) as boolean masks."""
    classes = torch.arange(num_classes, device=labels.device)
    return labels == classes[:, None], labels != IGNORE


def _mean_of_present(losses: Float[Tensor, " k"], present: Bool[Tensor, " k"]) -> Float[Tensor, ""]:
    """Return the mean over the classes that are in the targets; 0 if there are none."""
    return torch.where(present, losses, 0).sum() / present.sum().clamp(min=1)
