"""Transfers a model's weights to a model of other classes; what a class has learned is found by its name."""

import torch
from torch import Tensor

from ..heads import class_rows_by_tensor
from ..ops import join_first, state_dict_problems
from ..structures import CheckpointError
from .model import Model


@torch.no_grad()
def transfer_weights(model: Model, source: Model) -> str:
    """Give ``model`` the weights of ``source``, which has the same parts and may have other classes.

    Tensors without rows of classes are copied. In the others the rows of each class that both models know are copied,
    and those of the background, wherever either model has them; the rows of other classes stay as they are. Returns a
    line that says which classes those were. Raises CheckpointError where the parts differ; the model is then as it was.
    """
    before, tensors = model.state_dict(), source.state_dict()
    target_rows, source_rows = _class_rows(model), _class_rows(source)
    mixed = {
        name: _copy_rows(before[name], target_rows[name], tensors[name], source_rows[name])
        for name in target_rows.keys() & source_rows.keys()
        if before[name].shape[1:] == tensors[name].shape[1:]
    }
    tensors |= mixed
    if problems := state_dict_problems(tensors, before, may_lack=_is_batch_counter, may_have=_is_batch_counter):
        raise CheckpointError(
            f"does not fit this model: {join_first(problems)}", "give both the same backbone, neck and head"
        )
    model.load_state_dict(tensors, strict=False)
    return f"{len(tensors) - len(mixed)} tensors kept, {len(mixed)} have rows of classes: {_describe(model, source)}"


def _is_batch_counter(name: str) -> bool:
    """Return whether a tensor counts batches, which only norms that collect statistics have."""
    return name.endswith("num_batches_tracked")


_Rows = dict[str | None, list[int]]


def _class_rows(model: Model) -> dict[str, _Rows]:
    """Return the rows of each class in every tensor that has such rows, by the tensor's name in the model."""
    names = model.class_names
    return {
        f"head.{name}": rows.indices(names[task]) for name, (task, rows) in class_rows_by_tensor(model.head).items()
    }


def _copy_rows(target: Tensor, target_rows: _Rows, source: Tensor, source_rows: _Rows) -> Tensor:
    """Return a copy of ``target`` in which the classes that both know have their rows of ``source``."""
    mixed = target.clone()
    for name in target_rows.keys() & source_rows.keys():
        mixed[target_rows[name]] = source[source_rows[name]].to(target)
    return mixed


def _describe(model: Model, source: Model) -> str:
    """Describe for each task which classes both models know, which only the model, and which only the source."""
    descriptions, source_names = [], source.class_names
    for task, names in model.class_names.items():
        outcomes = {
            "mapped by name": [name for name in names if name in source_names[task]],
            "initialised": [name for name in names if name not in source_names[task]],
            "dropped": [name for name in source_names[task] if name not in names],
        }
        parts = [f"{join_first(words, separator=', ')} {outcome}" for outcome, words in outcomes.items() if words]
        descriptions.append(f"{task}: {'; '.join(parts)}")
    return "; ".join(descriptions)
