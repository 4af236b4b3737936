"""The prediction of a classifier for one image."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: tensors have no single truth value
class Classification:
    """The top-k classes of one image, best first; the scores are softmax probabilities over all classes."""

    labels: Int64[Tensor, " k"]
    scores: Float[Tensor, " k"]

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.labels.shape != self.scores.shape:
            raise ValueError(
                "a classification has one score for each label, "
                f"got shapes {tuple(self.labels.shape)} and {tuple(self.scores.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Classification":
        """Return the classification with its tensors on ``device``."""
        return Classification(self.labels.to(device), self.scores.to(device))
