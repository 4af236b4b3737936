"""Error messages for a state dict that does not fit a network."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor


def state_dict_problems(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    may_lack: Callable[[str], bool] = lambda name: False,
    may_have: Callable[[str], bool] = lambda name: False,
) -> list[str]:
    """Describe each tensor that is missing, unexpected or not finite, or has another shape than the network's.

    ``expected`` is the state dict of the network. ``may_lack(name)`` returns whether a missing tensor is accepted,
    ``may_have(name)`` whether an unexpected one is.
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
    """Join the first ``count`` words, and append the number of omitted words ("a; b and 3 more")."""
    more = f" and {len(words) - count} more" if len(words) > count else ""
    return separator.join(words[:count]) + more
