"""Activation checkpointing: memory for time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def recompute(stage: nn.Module, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
    """``stage(x)`` that keeps its input alone, and computes the rest anew in the backward pass (1604.06174)."""
    if torch.compiler.is_compiling():  # what a compiled stage does to statistics is done once in any case
        return checkpoint(stage, x, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(stage)

    return checkpoint(stage, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    """Batch norms see a batch twice, but count it once: the second time moves their statistics by nothing."""
    norms = [module for module in stage.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    before = [(norm.momentum, norm.get_buffer("num_batches_tracked").clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.get_buffer("num_batches_tracked").copy_(batches)
