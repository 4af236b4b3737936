"""All of a model's weights into a model of other classes: what a class has learned goes by its name."""

import torch
from torch import Tensor

from ..heads import class_rows_by_tensor
from ..ops import join_first, state_dict_problems
from ..structures import CheckpointError
from .model import Model


@torch.no_grad()
def transfer_weights(model: Model, source: Model) -> str:
    """Give ``model`` the weights of ``source``, which has the same parts and may have other classes.

    What knows nothing of classes is copied. Of the predictors the rows of each class that both know are copied, and
    the background's, wherever either has them; the rows of the other classes stay as they are. Returns a line that
    says which those were. CheckpointError where the parts are not the same; the model is then as it was.
    """
    own, tensors = model.state_dict(), source.state_dict()
    targets, sources = _rows(model), _rows(source)
    mixed = {
        name: _copy_rows(own[name], targets[name], tensors[name], sources[name])
        for name in targets.keys() & sources.keys()
        if own[name].shape[1:] == tensors[name].shape[1:]
    }
    tensors |= mixed
    if faults := state_dict_problems(tensors, own, may_lack=_is_counter, may_have=_is_counter):
        raise CheckpointError(
            f"does not fit this model: {join_first(faults)}", "give both the same backbone, neck and head"
        )
    model.load_state_dict(tensors, strict=False)
    return f"{len(tensors) - len(mixed)} tensors kept, {len(mixed)} have rows of classes: {_describe(model, source)}"


def _is_counter(name: str) -> bool:
    """Of batches, which only norms have that collect statistics."""
    return name.endswith("num_batches_tracked")


_Rows = dict[str | None, slice]


def _rows(model: Model) -> dict[str, _Rows]:
    """The rows of each class in every tensor that has such rows, by the tensor's name in the model."""
    names = model.class_names
    return {f"head.{name}": rows.places(names[task]) for name, (task, rows) in class_rows_by_tensor(model.head).items()}


def _copy_rows(own: Tensor, targets: _Rows, tensor: Tensor, sources: _Rows) -> Tensor:
    """The tensor's rows of the classes that both have, among one's own for the others."""
    mixed = own.clone()
    for name in targets.keys() & sources.keys():
        mixed[targets[name]] = tensor[sources[name]].to(own)
    return mixed


def _describe(model: Model, source: Model) -> str:
    """What became of the classes: those that both have, those of the model alone, those of the source alone."""
    said, known = [], source.class_names
    for task, names in model.class_names.items():
        fates = {
            "mapped by name": [name for name in names if name in known[task]],
            "initialised": [name for name in names if name not in known[task]],
            "dropped": [name for name in known[task] if name not in names],
        }
        fate = "; ".join(f"{join_first(words, separator=', ')} {fate}" for fate, words in fates.items() if words)
        said.append(f"{task}: {fate}")
    return "; ".join(said)
