"""What an image is taken for."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: tensors have no single truth value
class Classification:
    """The likeliest classes of one image, best first; scores are shares of 1 among all classes (softmax)."""

    labels: Int64[Tensor, " k"]
    scores: Float[Tensor, " k"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Classification":
        """The same on another device."""
        return Classification(self.labels.to(device), self.scores.to(device))
