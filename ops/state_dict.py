"""Why a state dict does not fit a network, in words."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor


def state_dict_problems(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    *,
    may_lack: Callable[[str], bool] = lambda name: False,
    may_have: Callable[[str], bool] = lambda name: False,
) -> list[str]:
    """Each tensor that is missing, unexpected, of another shape than the network's ``own``, or not finite.

    ``may_lack`` and ``may_have`` say of a name whether its absence, or its presence, is no fault.
    """
    faults = [f"{name} is missing" for name in sorted(own.keys() - tensors.keys()) if not may_lack(name)]
    faults += [f"{name} is unexpected" for name in sorted(tensors.keys() - own.keys()) if not may_have(name)]
    for name in sorted(own.keys() & tensors.keys()):
        tensor = tensors[name]
        if tensor.shape != own[name].shape:
            faults.append(f"{name} has shape {tuple(tensor.shape)}, wanted {tuple(own[name].shape)}")
        elif tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            faults.append(f"{name} has NaN or infinite values")
    return faults


def join_first(words: Sequence[str], count: int = 6, separator: str = "; ") -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(words) - count} more" if len(words) > count else ""
    return separator.join(words[:count]) + more
