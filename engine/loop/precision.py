"""In which numbers a step is computed. Weights, losses and boxes stay float32 in every case."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""float32; float32 whose products a GPU rounds to 10 bits; bfloat16 or float16 where torch's autocast has them."""

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def matrix_precision(precision: Precision) -> Iterator[None]:
    """Whether products of float32 may be rounded inside; torch's own default rounds those of convolutions."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Half precision for what gains by it, under ``bf16`` and ``fp16``."""
    half = _HALF.get(precision)
    return contextlib.nullcontext() if half is None else torch.autocast(device.type, half)
