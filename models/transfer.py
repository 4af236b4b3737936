"""Transferring weights to a model with other classes, matching classes by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..heads import ClassRows, class_columns_by_tensor, class_rows_by_tensor
from ..ops import join_first, state_dict_problems
from ..structures import CheckpointError
from .model import Model


@torch.no_grad()
def transfer_weights(model: Model, source: Model) -> str:
    """Copy the weights of ``source`` into ``model``, which has the same parts but may have other classes.

    In tensors with rows per class, the rows of classes that both models have (matched by name) and of the background
    are copied, at whatever index each model has them; the rows of other classes keep their values. Rows per keypoint
    are matched by the names of the keypoints. Weights with columns per class (inputs that are class logits) are copied
    in the order of the target's classes, with zeros for classes that the source lacks. All other tensors are copied
    completely. Returns a line that lists the classes. Raises CheckpointError, and leaves the model unchanged, if the
    parts differ.
    """
    expected, tensors = model.state_dict(), source.state_dict()
    target_rows, source_rows = _class_rows(model), _class_rows(source)
    tensors |= _weights_with_matched_columns(model, source)
    merged = {
        name: _copy_rows(expected[name], target_rows[name], tensors[name], source_rows[name])
        for name in target_rows.keys() & source_rows.keys()
        if _same_layout(expected[name], target_rows[name], tensors[name], source_rows[name])
    }
    tensors |= merged
    if problems := state_dict_problems(tensors, expected, may_lack=_is_batch_counter, may_have=_is_batch_counter):
        raise CheckpointError(
            f"does not fit this model: {join_first(problems)}", "use the same backbone, neck and head in both models"
        )
    model.load_state_dict(tensors, strict=False)
    mapping = describe_class_mapping(model.class_names, source.class_names)
    return f"{len(tensors) - len(merged)} tensors copied, {len(merged)} with rows per class: {mapping}"


def _is_batch_counter(name: str) -> bool:
    """Return whether a tensor is a batch counter, which only norms with running statistics have."""
    return name.endswith("num_batches_tracked")


@dataclass(frozen=True, slots=True)
class _Rows:
    """The row indices of a tensor for each class or keypoint, by name."""

    layout: ClassRows
    indices: dict[str | None, list[int]]


def _same_layout(target: Tensor, target_rows: _Rows, source: Tensor, source_rows: _Rows) -> bool:
    """Return whether rows have the same shape in both tensors, and each class has the same number of rows.

    The numbers of rows differ if the models have different numbers of anchors per cell.
    """
    shapes = [rows.layout.first(tensor).shape[1:] for tensor, rows in ((target, target_rows), (source, source_rows))]
    counts = [len(next(iter(rows.indices.values()))) for rows in (target_rows, source_rows)]
    return shapes[0] == shapes[1] and counts[0] == counts[1]


def _class_rows(model: Model) -> dict[str, _Rows]:
    """Return the rows of each class for every tensor with rows per class, by the tensor's name in the model."""
    names = model.class_names
    if not names:
        raise CheckpointError("weights are matched by class name, and a model has none", "build it with class names")
    return {
        f"head.{name}": _Rows(layout, layout.indices(names[task]))
        for name, (task, layout) in class_rows_by_tensor(model.head).items()
    }


def _weights_with_matched_columns(model: Model, source: Model) -> dict[str, Tensor]:
    """Return the weights of ``source`` with columns per class, reordered to the classes of ``model``.

    The columns of classes that only ``model`` has are zero, so that their logits have no influence at first.
    """
    weights, state_dict = {}, source.state_dict()
    for tensor, (task, first) in class_columns_by_tensor(source.head).items():
        weight, names = state_dict[f"head.{tensor}"], source.class_names[task]
        columns = [first + names.index(name) if name in names else -1 for name in model.class_names.get(task, ())]
        with_zeros = torch.cat([weight, torch.zeros_like(weight[:, :1])], dim=1)
        weights[f"head.{tensor}"] = with_zeros[:, [*range(first), *columns]]
    return weights


def _copy_rows(target: Tensor, target_rows: _Rows, source: Tensor, source_rows: _Rows) -> Tensor:
    """Return a copy of ``target`` with the rows of ``source`` for the classes that both have."""
    merged = target.clone()
    rows, other_rows = target_rows.layout.first(merged), source_rows.layout.first(source)
    for name in target_rows.indices.keys() & source_rows.indices.keys():
        rows[target_rows.indices[name]] = other_rows[source_rows.indices[name]].to(target)
    return merged


def describe_class_mapping(class_names: Mapping[str, Sequence[str]], source_names: Mapping[str, Sequence[str]]) -> str:
    """Describe for each task which classes a model shares with the source of its weights, and which only one has."""
    descriptions = []
    for task, names in class_names.items():
        known = source_names.get(task, ())
        outcomes = {
            "mapped by name": [name for name in names if name in known],
            "initialized": [name for name in names if name not in known],
            "dropped": [name for name in known if name not in names],
        }
        parts = [f"{join_first(words, separator=', ')} {outcome}" for outcome, words in outcomes.items() if words]
        descriptions.append(f"{task}: {'; '.join(parts)}")
    return "; ".join(descriptions)
