"""Copying any number of tensors in one operation."""

from collections.abc import Sequence

import torch
from torch import Tensor


def copy_all(destinations: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its destination, which may be a view; the shapes are the same."""
    torch._foreach_copy_(list(destinations), list(sources))  # pyright: ignore[reportPrivateImportUsage]
