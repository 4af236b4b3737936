"""Finding the state dict in the value of a checkpoint file, whatever training script or library wrote it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..ops import join_first
from ..structures import CheckpointError

EMA_ENTRIES = ("state_dict_ema", "model_ema", "ema")
"""Entries with an exponential moving average of the weights, preferred to the weights themselves, as timm does.

mmengine and Lightning save the average as ``state_dict`` and the weights under another name."""
ENTRIES = ("state_dict", "model_state_dict", "model", "module")
"""Entries with the weights, in the order in which they are preferred."""

_PREFIXES = ("module.", "model.")
"""Prefixes of all names: ``DataParallel`` and ``AveragedModel``, and Lightning modules, which have a ``model``."""
_INFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts of names, at any position, that ``torch.compile``, FSDP and activation checkpointing add."""
_AVERAGE_COUNTER = "n_averaged"  # of torch's AveragedModel, beside the tensors of its module
_LIGHTNING = "pytorch-lightning_version"


@dataclass(frozen=True, slots=True, eq=False)
class UnwrappedWeights:
    """A state dict without the wrapping in which its file had it."""

    tensors: Mapping[str, Tensor]
    removed: tuple[str, ...] = field(default=())
    """Phrases that say which entry was taken, and what was removed from the names; empty for a plain state dict."""


def unwrap_state_dict(value: object) -> UnwrappedWeights:
    """Find the state dict in the value of a checkpoint file, and remove what wrappers added to the names.

    An entry with averaged weights is preferred (``EMA_ENTRIES``), then one of ``ENTRIES``, then the only entry with a
    state dict. Entries may be nested. Raises CheckpointError, listing the entries, if there is no state dict.
    """
    entries, tensors = _find_state_dict(value)
    removed = [f"took the entry {'.'.join(entries)}"] if entries else []
    tensors = _keep_module_of_average(tensors, removed)
    if isinstance(value, Mapping) and _LIGHTNING in value:
        tensors = _keep_model_of_lightning(tensors, removed)
    return UnwrappedWeights(_plain_names(tensors, removed), tuple(removed))


def _find_state_dict(value: object) -> tuple[tuple[str, ...], Mapping[str, Tensor]]:
    """Return the names of the nested entries that lead to the state dict, and the state dict."""
    found = next(_state_dicts(value), None)
    if found is not None:
        return found
    if isinstance(value, Mapping) and value:
        kinds = [f"{key} ({type(entry).__name__})" for key, entry in value.items()]
        content = f"its entries are {join_first(kinds, count=12, separator=', ')}"
    else:
        content = "it is empty" if isinstance(value, Mapping) else f"it is a {type(value).__name__}"
    raise CheckpointError(f"this is not a state dict of tensors: {content}", "save model.state_dict()")


def _state_dicts(value: object) -> Iterator[tuple[tuple[str, ...], Mapping[str, Tensor]]]:
    """Yield (names of entries, state dict), the preferred one first."""
    if not isinstance(value, Mapping):
        return
    if value and all(isinstance(key, str) and isinstance(entry, Tensor) for key, entry in value.items()):
        yield (), value
        return
    for name in (*EMA_ENTRIES, *ENTRIES):
        for entries, tensors in _state_dicts(value.get(name)):
            yield (name, *entries), tensors
    others = [(key, found) for key, entry in value.items() if isinstance(key, str) for found in _state_dicts(entry)]
    if len(others) == 1:
        key, (entries, tensors) = others[0]
        yield (key, *entries), tensors


def _keep_module_of_average(tensors: Mapping[str, Tensor], removed: list[str]) -> Mapping[str, Tensor]:
    """Return the tensors without the counter that torch's ``AveragedModel`` has beside its module."""
    if _AVERAGE_COUNTER not in tensors:
        return tensors
    removed.append(f"left out {_AVERAGE_COUNTER}")
    return {name: tensor for name, tensor in tensors.items() if name != _AVERAGE_COUNTER}


def _keep_model_of_lightning(tensors: Mapping[str, Tensor], removed: list[str]) -> Mapping[str, Tensor]:
    """Return the tensors of ``model``, if a Lightning module has one, without those of its losses and metrics."""
    others = [name for name in tensors if not name.startswith("model.")]
    if not others or len(others) == len(tensors):
        return tensors
    removed.append(f"left out {join_first(others, count=3, separator=', ')}, which are outside of model.")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def _plain_names(tensors: Mapping[str, Tensor], removed: list[str]) -> Mapping[str, Tensor]:
    """Return the tensors without the prefixes that all names have, and without the parts that wrappers insert."""
    for infix in _INFIXES:
        if any(infix in name for name in tensors):
            removed.append(f"removed {infix} from the names")
            tensors = {name.replace(infix, ""): tensor for name, tensor in tensors.items()}
    while prefix := next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), None):
        removed.append(f"removed {prefix} from the names")
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
