"""Writing of a traced graph to a file, one function per format."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ...ops import fixed_shapes
from ...structures import UsageError
from .description import KEY, Description
from .graph import ExportGraph
from .onnx_operators import store_weights_in_half, translation_table
from .sessions import require_package

Format = Literal["onnx", "torch-export", "aoti", "torchscript"]
"""``onnx``: ONNX with standard operators only; ``torch-export``: a program of ``torch.export``; ``aoti``: machine code
of AOTInductor for this machine; ``torchscript``: a traced TorchScript graph."""


class TracedGraph(NamedTuple):
    """A graph with example inputs, and its program, which ``torch.export`` traced."""

    graph: ExportGraph
    inputs: tuple[Tensor, ...]
    program: torch.export.ExportedProgram


class Writer(NamedTuple):
    """A format of exported files."""

    suffix: str
    write: Callable[[TracedGraph, Description, Path], None]
    plain_nms: bool
    """Whether NMS is traced as operations of torch alone, so that the file does not need this package."""


def write_onnx(traced: TracedGraph, description: Description, path: Path) -> None:
    """Write an ONNX file; a model of more than 2 GB is refused by the format."""
    for package in ("onnx", "onnxscript"):
        require_package(package)
    program = torch.onnx.export(
        traced.program,
        traced.inputs,
        input_names=list(description.inputs),
        output_names=list(description.outputs),
        custom_translation_table=translation_table(),
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "only the other exporter returns nothing"
    model = program.model_proto
    if description.half:
        store_weights_in_half(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, description.to_json()
    path.write_bytes(model.SerializeToString())


def write_torch_export(traced: TracedGraph, description: Description, path: Path) -> None:
    """Write a program of ``torch.export``."""
    torch.export.save(traced.program, path, extra_files={KEY: description.to_json()})


def write_compiled(traced: TracedGraph, description: Description, path: Path) -> None:
    """Compile the graph with AOTInductor, and write the machine code."""
    from torch._inductor import aoti_compile_and_package

    options: dict[str, Any] = {"aot_inductor.metadata": {KEY: description.to_json()}}
    try:
        aoti_compile_and_package(traced.program, package_path=str(path), inductor_configs=options)
    except RuntimeError as error:
        what = f"torch cannot compile this graph: {' '.join(str(error).split())[:200]}"
        raise UsageError(what, "choose the format torch-export", file=path) from error


def write_torchscript(traced: TracedGraph, description: Description, path: Path) -> None:
    """Write a traced TorchScript graph, whose images have the size of the example."""
    with warnings.catch_warnings(), torch.no_grad(), fixed_shapes():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript, and warns of every size that becomes a constant
        script = torch.jit.trace(traced.graph, traced.inputs, strict=False, check_trace=False)
        torch.jit.save(script, path, _extra_files={KEY: description.to_json()})


WRITERS: Mapping[Format, Writer] = MappingProxyType(
    {
        "onnx": Writer(".onnx", write_onnx, plain_nms=False),
        "torch-export": Writer(".pt2", write_torch_export, plain_nms=True),
        "aoti": Writer(".pt2", write_compiled, plain_nms=True),
        "torchscript": Writer(".ts", write_torchscript, plain_nms=False),
    }
)
