"""Compilation of the parts of a model for inference, with their weights as constants of the compiled code."""

import functools
import os
from collections.abc import Callable
from typing import Any

import torch

from ..formats.cache_folder import cache_folder
from ..heads.box_branch import BoxBranch
from ..heads.regions import RegionBranch
from ..models import Model

_CACHE = "TORCHINDUCTOR_CACHE_DIR"  # torch's environment variable for the folder of compiled code


def compile_frozen(model: Model, say: Callable[[str], None]) -> list[str]:
    """Compile the dense parts of a model in place for images of any size; return their names.

    The code is compiled when a part is first called, and kept in the cache folder for later processes. Weights must
    not change afterwards. The branches of an R-CNN are left out, since the number of their regions depends on the
    image. If a part fails to compile when it is called, ``say`` gets a line with the reason, the part is removed from
    the returned list, and it works as before.
    """
    if (fault := missing_compiler(model.device)) is not None:
        say(f"nothing is compiled: {fault}")
        return []
    os.environ.setdefault(_CACHE, str(cache_folder() / "compiled"))
    parts = {name: part for name, part in model.dense_parts().items() if not isinstance(part, BoxBranch | RegionBranch)}
    parts = {name: part for name, part in parts.items() if any(True for _ in part.parameters())}
    compiled = list(parts)

    def report(name: str, error: Exception) -> None:
        compiled.remove(name)
        say(f"{name} is not compiled: {' '.join(str(error).split()):.200}")

    for name, part in parts.items():
        part.forward = _frozen_forward(part.forward, functools.partial(report, name))
    return compiled


def missing_compiler(device: torch.device) -> str | None:
    """Return why nothing can be compiled for a device, and how to fix it; None if compilation is possible."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "triton is missing; install it with pip install triton"
    if device.type != "cpu":
        return f"compilation for {device.type} is not supported"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        return "there is no C++ compiler; install g++ or clang++, or name one in the environment variable CXX"
    return None


def _frozen_forward(forward: Callable[..., Any], report: Callable[[Exception], None]) -> Callable[..., Any]:
    """Return a compiled version of a part's ``forward``; if it does not compile, the error goes to ``report``."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import config

    compiled: Callable[..., Any] | None = torch.compile(forward, dynamic=True)

    @functools.wraps(forward)
    def call(*arguments: Any) -> Any:
        nonlocal compiled
        if compiled is None or torch.is_grad_enabled():
            return forward(*arguments)
        try:
            # As an option of torch.compile it would take effect too late: weights would already be inputs of the graph.
            with config.patch(freezing=True):
                return compiled(*arguments)
        except TorchDynamoException as error:
            compiled = None
            report(error)
            return forward(*arguments)

    return call
