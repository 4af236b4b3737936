"""The choice between shapes that depend on values and shapes that do not.

On the CPU, only the rows that are needed are computed. A GPU would have to be synchronized for that, and a compiled or
exported graph has fixed shapes; there, rows are padded to a fixed number.
"""

import contextlib
from collections.abc import Iterator

import torch

_is_fixed = False


def allows_dynamic_shapes(device: torch.device) -> bool:
    """Return whether shapes may depend on tensor values, as those of ``nonzero`` and boolean indexing do."""
    return device.type == "cpu" and not _is_fixed and not torch.compiler.is_compiling()


@contextlib.contextmanager
def fixed_shapes() -> Iterator[None]:
    """Make shapes independent of values inside the block, on every device."""
    global _is_fixed
    before, _is_fixed = _is_fixed, True
    try:
        yield
    finally:
        _is_fixed = before
