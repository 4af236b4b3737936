"""The losses of a map of logits: cross-entropy, Dice, Lovasz-Softmax, or a weighted sum of them.

All are taken over the known pixels of the whole batch: one that is ignored counts for nothing, so neither the padding
nor a batch mate changes what a pixel teaches. With no known pixel a loss is exactly zero, and so is its gradient.

Over several processes the mean cross-entropy and Dice are those of one process with all images. Lovasz-Softmax and the
choice of the hardest pixels sort pixels, and each process sorts its own: their value is the mean over the processes of
the loss of each one's images, which depends on how the images are divided. Every loss depends on how ``accumulate``
divides a batch, since each micro-batch has a loss of its own.
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
    """The weight of each loss in the sum, 0 to leave it out: ``{"cross_entropy": 1.0, "dice": 1.0}``."""

    cross_entropy: NonNegativeFloat = 1.0
    dice: NonNegativeFloat = 0.0
    """Overlap with soft predictions (1606.04797 section 3), the mean over the classes that are in the targets."""
    lovasz: NonNegativeFloat = 0.0
    """A convex surrogate of the IoU (1705.08790), the mean over the classes that are in the targets of each process."""
    class_weights: tuple[PositiveFloat, ...] | None = None
    """What a pixel of each class counts in the cross-entropy; the mean is the weighted one, as torch's."""
    hardest: float = Field(default=1.0, gt=0, le=1)
    """Fraction of each process's pixels, those of the greatest cross-entropy, that it is the mean of: hard-pixel mining
    (1902.05093, detectron2's ``DeepLabCE``). Their fraction, 0.2 in Panoptic-DeepLab, is of all pixels; this one is of
    the known."""

    @model_validator(mode="after")
    def _check(self) -> "SemanticLossConfig":
        if not (self.cross_entropy or self.dice or self.lovasz):
            raise ValueError("a loss needs a part: give cross_entropy, dice or lovasz a weight above 0")
        if not self.cross_entropy and (self.class_weights is not None or self.hardest < 1):
            raise ValueError("class_weights and hardest are the cross-entropy's, which has weight 0 here: raise it")
        return self


class SemanticLoss(nn.Module):
    """The weighted sum of losses that a config asks for."""

    class_weights: Tensor | None

    def __init__(self, num_classes: int, config: SemanticLossConfig = SemanticLossConfig()) -> None:
        super().__init__()
        weights = config.class_weights
        if weights is not None and len(weights) != num_classes:
            raise ValueError(f"class_weights needs one for each of the {num_classes} classes; got {len(weights)}")
        self.config = config
        self.register_buffer("class_weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, logits: Float[Tensor, "b k h w"], target: Int64[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """Compute the sum; pixels whose target is 255 are ignored."""
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
    """Return the mean over the known pixels, or the ``hardest`` fraction of them, each times its class's weight."""
    errors = F.cross_entropy(logits, target, class_weights, ignore_index=IGNORE, reduction="none").flatten()
    known = (target != IGNORE).flatten()
    counts = known.to(errors.dtype)
    if class_weights is not None:
        counts = counts * class_weights[target.flatten().clamp(max=len(class_weights) - 1)]
    if hardest < 1:
        # As many are taken as an image without unknown pixels would need; where there are some, fewer of them count.
        errors, indices = errors.topk(max(1, int(hardest * len(errors))))
        wanted = (hardest * known.sum()).floor().clamp(min=1)
        counted = torch.arange(len(errors), device=errors.device) < wanted
        errors, counts = errors * counted, counts[indices] * counted
    total = all_reduce_mean(counts.sum())
    return errors.sum() / torch.where(total > 0, total, 1)


def dice_loss(probabilities: Float[Tensor, "k n"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the mean over classes of 1 - 2 sum(p g) / (sum(p^2) + sum(g^2)) (1606.04797 section 3, with its squares).

    The sums are over the pixels of all processes.
    """
    of_class, known = _one_hot(len(probabilities), labels)
    overlap = torch.where(of_class, probabilities, 0).sum(dim=1)
    squares = torch.where(known, probabilities, 0).square().sum(dim=1)
    pixels = of_class.sum(dim=1).to(squares.dtype)
    overlap, squares, pixels = all_reduce_sum(torch.stack([overlap, squares, pixels])).unbind()
    return _mean_of_present(1 - 2 * overlap / (squares + pixels).clamp(min=1), pixels > 0)


def lovasz_softmax(probabilities: Float[Tensor, "k n"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the mean over classes of the Lovasz extension of 1 - IoU at the errors (1705.08790)."""
    present = torch.stack([(labels == label).any() for label in range(len(probabilities))])
    losses: Tensor = _LovaszExtension.apply(probabilities, labels)  # pyright: ignore[reportAssignmentType]
    return _mean_of_present(losses, present)


class _LovaszExtension(torch.autograd.Function):
    """The extension of each class, computed class by class so that sorting takes the memory of one.

    It is piecewise linear in the probabilities, so the gradient is known with the value: four bytes for each class and
    pixel are all that is kept.
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
    """Return the extension of 1 - IoU of one class, and its gradient with respect to the probabilities."""
    differences = truth.to(probabilities.dtype) - probabilities
    errors, order = torch.where(known, differences.abs(), -1).sort(descending=True)  # the unknown come last,
    errors = errors.clamp(min=0)  # and have none
    # With the first n pixels as the mistakes: how many of the class are among them, and by how much the loss grows.
    hits = truth[order].cumsum(0)
    mistakes = torch.arange(1, len(hits) + 1, device=hits.device)
    loss = 1 - (hits[-1] - hits) / (hits[-1] + mistakes - hits)
    steps = torch.cat([loss[:1], loss.diff()])
    gradient = torch.empty_like(probabilities).scatter_(0, order, steps) * -differences.sign() * known
    return (errors * steps).sum(), gradient


def _one_hot(num_classes: int, labels: Int64[Tensor, " n"]) -> tuple[Bool[Tensor, "k n"], Bool[Tensor, " n"]]:
    """Return which pixels are of each class, and which are known."""
    classes = torch.arange(num_classes, device=labels.device)
    return labels == classes[:, None], labels != IGNORE


def _mean_of_present(losses: Float[Tensor, " k"], present: Bool[Tensor, " k"]) -> Float[Tensor, ""]:
    """Return the mean over the classes that are in the targets; 0 without one."""
    return torch.where(present, losses, 0).sum() / present.sum().clamp(min=1)
