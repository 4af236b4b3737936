"""Device-dependent choices between implementations."""

import torch


def allows_dynamic_shapes(device: torch.device) -> bool:
    """Return whether shapes may depend on tensor values, as those of ``nonzero`` and boolean indexing do.

    They may only on the CPU in eager mode: a GPU would have to be synchronized, and a compiled graph would break.
    """
    return device.type == "cpu" and not torch.compiler.is_compiling()
