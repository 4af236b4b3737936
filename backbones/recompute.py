"""Activation checkpointing: a stage stores only its input, and recomputes its activations in the backward pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def recompute(stage: nn.Module, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
    """Return ``stage(x)`` with activation checkpointing (1604.06174); batch norm statistics are updated only once."""
    if torch.compiler.is_compiling():
        # A compiled graph updates the statistics only once anyway, and cannot trace the context managers.
        return checkpoint(stage, x, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _frozen_statistics(stage)

    return checkpoint(stage, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _frozen_statistics(stage: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms unchanged in the recomputation, which repeats the same batch."""
    norms = [module for module in stage.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    saved = [(norm.momentum, norm.get_buffer("num_batches_tracked").clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            norm.get_buffer("num_batches_tracked").copy_(batches)
