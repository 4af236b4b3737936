"""The prediction of an embedding head for one image."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: tensors have no single truth value
class Embedding:
    """A vector of unit length for one image; ``a.vector @ b.vector`` is the cosine similarity of two images."""

    vector: Float[Tensor, " d"]

    def __post_init__(self) -> None:
        if self.vector.ndim != 1:
            raise ValueError(f"an embedding is one vector, got shape {tuple(self.vector.shape)}")

    def __len__(self) -> int:
        return len(self.vector)

    def to(self, device: torch.device | str) -> "Embedding":
        """Return the embedding with its vector on ``device``."""
        return Embedding(self.vector.to(device))
