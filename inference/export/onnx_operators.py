"""Translations of this package's operators to standard ONNX operators, and weights in float16."""

from collections.abc import Callable
from typing import Any

import torch


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the functions that ``torch.onnx.export`` calls for operators which it does not know."""
    return {torch.ops.vertebra.nms_mask.default: _nms_mask}


def _nms_mask(boxes: Any, scores: Any, labels: Any, threshold: float) -> Any:
    """Translate :func:`vertebra.ops.nms_mask` to NonMaxSuppression, in which each label is a class.

    The scores of a box for all labels except its own are those of no candidate. Moving the boxes of each label apart
    instead, as is often done, would round their coordinates.
    """
    import onnxscript

    op: Any = onnxscript.opset18
    one, step = op.Constant(value_ints=[1]), op.Constant(value_int=1)
    classes = op.Range(op.Constant(value_int=0), op.Add(op.ReduceMax(labels, keepdims=0), step), step)
    classes = op.Unsqueeze(classes, op.Constant(value_ints=[0, 2]))
    own = op.Equal(op.Unsqueeze(labels, one), classes)
    lowest = op.Constant(value_float=-torch.inf)
    class_scores = op.Where(own, op.Unsqueeze(scores, one), lowest)
    selected = op.NonMaxSuppression(
        boxes,
        class_scores,
        op.Shape(scores, start=1),
        op.Constant(value_floats=[threshold]),
        op.Constant(value_floats=[torch.finfo(torch.float32).min]),  # leaves out the boxes that are no candidates
    )
    rows = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    kept = op.Expand(op.Cast(op.Constant(value_int=1), to=6), op.Shape(rows, end=1))
    mask = op.Expand(op.Constant(value_int=0), op.Shape(scores))
    return op.Cast(op.ScatterND(op.Cast(mask, to=6), rows, kept), to=9)


MIN_HALF = 1024
"""Constants with fewer values, such as anchors and norms, stay in float32."""


def store_weights_in_half(model: Any) -> None:
    """Store the large float32 constants of an ONNX model in float16, in place; they are converted back when it runs.

    All operations stay in float32. Runtimes convert constants once, when they load a file.
    """
    import onnx

    graph, casts = model.graph, []
    for constant in graph.initializer:
        values = onnx.numpy_helper.to_array(constant)
        if values.dtype != "float32" or values.size < MIN_HALF:
            continue
        name = constant.name
        constant.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
