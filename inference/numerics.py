"""The arithmetic that a model is computed with: which precision, and which kernels."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Literal

import torch

from ..structures import UsageError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""``fp32`` is float32; ``tf32`` is float32 whose products a GPU rounds to 10 bits; ``bf16`` and ``fp16`` are half
precision where torch's autocast uses it. Weights, losses and boxes are float32 in every case."""

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def matrix_precision(precision: Precision) -> Iterator[None]:
    """Allow a GPU to round the products of float32 inside, unless the precision is ``fp32``.

    torch's own default rounds those of convolutions only.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context of half precision under ``bf16`` and ``fp16``, otherwise one that does nothing."""
    half = _HALF.get(precision)
    return contextlib.nullcontext() if half is None else torch.autocast(device.type, half)


@contextlib.contextmanager
def deterministic_kernels(enabled: bool) -> Iterator[None]:
    """Let torch use only algorithms inside whose result does not depend on the order in which threads finish.

    On a CPU every operation used here has one. Raises UsageError naming an operation that has none on this device.
    """
    if not enabled:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once, when it is first used
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        what = str(error).splitlines()[0].partition(", but you set")[0]
        raise UsageError(what, "leave out the part that needs it, or deterministic=true") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
