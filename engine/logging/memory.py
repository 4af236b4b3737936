"""How much memory a run has needed."""

import resource
import sys

import torch


def peak_memory(device: torch.device) -> float:
    """The most that this process has held at once, in GiB: a GPU's tensors, or all of it where it has no GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
