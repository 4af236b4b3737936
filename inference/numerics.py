"""Settings of torch's arithmetic: precision, and deterministic kernels."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Literal

import torch

from ..structures import UsageError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""``fp32``: float32; ``tf32``: float32 with TensorFloat-32 products on a GPU (10 bits of mantissa); ``bf16`` and
``fp16``: half precision in the operations that torch's autocast selects. Weights, losses and boxes are always
float32."""

AutoPrecision = Precision | Literal["auto"]
"""A precision, or ``auto``: ``bf16`` on a device with units for it (a GPU since Ampere; a CPU with AMX or AVX512-BF16),
otherwise ``fp32``."""

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def matrix_precision(precision: Precision) -> Iterator[None]:
    """Allow TensorFloat-32 in matrix products and convolutions inside the block, unless the precision is ``fp32``.

    torch's own default allows it only in convolutions.
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
    """Return torch's autocast context for ``bf16`` and ``fp16``, and a null context for the other precisions."""
    dtype = _HALF.get(precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def bf16_units(device: torch.device) -> str | None:
    """Return the name of the device's units for bfloat16, which make it faster than float32; None if it has none."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return name if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != "cpu":
        return None
    checks = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    return next((name for name, check in checks.items() if getattr(torch.cpu, check, bool)()), None)


def resolve_precision(precision: AutoPrecision, device: torch.device) -> Precision:
    """Return the precision to compute in on a device: ``auto`` is replaced by what it stands for there."""
    if precision != "auto":
        return precision
    return "fp32" if bf16_units(device) is None else "bf16"


@contextlib.contextmanager
def deterministic_kernels(enabled: bool) -> Iterator[None]:
    """Make torch use only deterministic algorithms inside the block, if ``enabled``.

    Raises UsageError if an operation has no deterministic algorithm on its device; on the CPU, all operations used in
    this package have one.
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
