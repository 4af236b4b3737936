"""Peak memory use."""

import sys

import psutil
import torch


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in GiB: of tensors on a CUDA device, otherwise of this process (resident set size)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**30
    import resource  # not at the top: Windows lacks this module; psutil reports the peak on Windows only

    unit = 1 if sys.platform == "darwin" else 1024  # macOS reports bytes, other systems kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
