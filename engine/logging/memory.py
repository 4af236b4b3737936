"""How much memory a run has needed."""

import sys

import psutil
import torch


def peak_memory(device: torch.device) -> float:
    """Return the most memory in GiB that was in use at once: a GPU's tensors, or without a CUDA GPU this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**30
    import resource  # psutil knows a peak on Windows alone, and Windows alone has no resource module

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
