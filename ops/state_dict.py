"""Why a state dict does not fit a network, in words."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor


def state_dict_problems(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    may_lack: Callable[[str], bool] = lambda name: False,
    may_have: Callable[[str], bool] = lambda name: False,
) -> list[str]:
    """Describe each tensor that is missing, unexpected, of another shape than the network's, or not finite.

    ``expected`` is the network's own state dict. ``may_lack`` and ``may_have`` tell whether the absence, or the
    presence, of a name is fine.
    """
    problems = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys()) if not may_lack(name)]
    problems += [f"{name} is unexpected" for name in sorted(tensors.keys() - expected.keys()) if not may_have(name)]
    for name in sorted(expected.keys() & tensors.keys()):
        tensor = tensors[name]
        if tensor.shape != expected[name].shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, wanted {tuple(expected[name].shape)}")
        elif tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            problems.append(f"{name} has NaN or infinite values")
    return problems


def join_first(words: Sequence[str], count: int = 6, separator: str = "; ") -> str:
    """Join the first ``count`` words, and say how many more there are."""
    more = f" and {len(words) - count} more" if len(words) > count else ""
    return separator.join(words[:count]) + more
