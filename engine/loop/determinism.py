"""The same bits each time, on a GPU too."""

import contextlib
import os
from collections.abc import Iterator

import torch

from ...structures import UsageError


@contextlib.contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Inside, torch takes only algorithms whose result does not depend on which thread comes first.

    On a CPU all that is used here are such. UsageError naming an operation that has none on this device.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS looks at it once, when it is first used
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        what = str(error).splitlines()[0].partition(", but you set")[0]
        raise UsageError(what, "leave out what needs it, or deterministic=true") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
