"""Tables of tensor names that translate the state dict of another library's model to Vertebra's, and back."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ...ops import join_first
from ...structures import CheckpointError

BATCH_COUNTER = "num_batches_tracked"
"""The last part of the name of a batch norm's counter, which frozen norms and other libraries' files may lack."""

_PLACEHOLDER = re.compile(r"\{(\d*)([a-z])([+-]\d+)?\}")


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the values or the layout of a tensor, and its inverse."""

    to_vertebra: Callable[[Tensor], Tensor]
    from_vertebra: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """A pair of prefixes of tensor names, Vertebra's and the other library's, that stand for each other.

    The rest of the name is the same on both sides. ``{i}`` in both prefixes stands for the same number, and ``{i+2}``
    or ``{3i+1}`` for a number computed from it. ``change`` is applied to the tensors as well.
    """

    vertebra: str
    other: str
    change: Change | None = None

    @cached_property
    def to_vertebra(self) -> "_Renaming":
        """The renaming from the other library's prefix to Vertebra's."""
        return _Renaming(self.other, self.vertebra)

    @cached_property
    def from_vertebra(self) -> "_Renaming":
        """The renaming from Vertebra's prefix to the other library's."""
        return _Renaming(self.vertebra, self.other)


class KeyMap:
    """A one-to-one translation between the tensor names of Vertebra's models and of another library's.

    The first rule whose prefix matches a name translates it. ``former`` are pairs of a former prefix of the other
    library, which its older files have, and the present one. ``ignored`` are prefixes of tensors in its files that hold
    constants, such as anchors, which Vertebra computes from its config. ``added`` are tensors of Vertebra's models that
    the other library does not store, with their initial values.
    """

    def __init__(
        self,
        library: str,
        rules: Sequence[Rule],
        former: Sequence[tuple[str, str]] = (),
        ignored: Sequence[str] = (),
        added: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.library, self.rules, self.ignored = library, tuple(rules), tuple(ignored)
        self.added = dict(added or {})
        self._former = [_Renaming(*pair) for pair in former]

    def to_vertebra(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Translate a state dict of the other library; raise CheckpointError for names that no rule matches."""
        present = {
            self._present_name(name): tensor for name, tensor in tensors.items() if not name.startswith(self.ignored)
        }
        directions = [(rule.to_vertebra, rule.change and rule.change.to_vertebra) for rule in self.rules]
        return _translate(present, directions, self.library) | self.added

    def from_vertebra(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Translate a state dict of Vertebra; raise CheckpointError for names that no rule matches."""
        directions = [(rule.from_vertebra, rule.change and rule.change.from_vertebra) for rule in self.rules]
        present = {name: tensor for name, tensor in tensors.items() if name not in self.added}
        return _translate(present, directions, self.library)

    def _present_name(self, name: str) -> str:
        """Return the present name in the other library of a tensor that may have a former name."""
        return next(filter(None, (rename(name) for rename in self._former)), name)


_Direction = tuple[Callable[[str], str | None], Callable[[Tensor], Tensor] | None]
"""One direction of a rule: the renaming, and the change of the tensor."""


def _translate(tensors: Mapping[str, Tensor], directions: Sequence[_Direction], library: str) -> dict[str, Tensor]:
    """Translate each tensor by the first rule that matches its name."""
    translated: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        match = next(((new, change) for rename, change in directions if (new := rename(name)) is not None), None)
        if match is None:
            unknown.append(name)
            continue
        new_name, change = match
        if new_name in translated:
            raise CheckpointError(f"two tensors stand for {new_name}; the second is {name}")
        translated[new_name] = tensor if change is None or name.endswith(BATCH_COUNTER) else change(tensor)
    if unknown:
        noun = "is not a tensor" if len(unknown) == 1 else "are not tensors"
        raise CheckpointError(
            f"{join_first(unknown, separator=', ')} {noun} of {library}", "name the model that these weights belong to"
        )
    return translated


class _Renaming:
    """A function that replaces a prefix of a name by another prefix with the same numbers."""

    def __init__(self, source: str, target: str) -> None:
        pattern, end = "", 0
        self._numbers: list[tuple[str, int, int]] = []  # the letter, factor and offset of each placeholder
        for match in _PLACEHOLDER.finditer(source):
            pattern += re.escape(source[end : match.start()]) + r"(\d+)"
            self._numbers.append(_parse(match))
            end = match.end()
        self._pattern = re.compile(pattern + re.escape(source[end:]))
        self._target = target

    def __call__(self, name: str) -> str | None:
        """Return the name with the new prefix; None if it does not have the old one."""
        found = self._pattern.match(name)
        if found is None:
            return None
        values: dict[str, int] = {}
        for text, (letter, factor, offset) in zip(found.groups(), self._numbers, strict=True):
            value, remainder = divmod(int(text) - offset, factor)
            if remainder or value < 0:
                return None
            values[letter] = value
        prefix = _PLACEHOLDER.sub(lambda match: str(_evaluate(match, values)), self._target)
        return prefix + name[found.end() :]


def _parse(match: re.Match[str]) -> tuple[str, int, int]:
    """Return (letter, factor, offset) of a placeholder such as ``{3i+1}``."""
    factor, letter, offset = match.groups()
    return letter, int(factor or 1), int(offset or 0)


def _evaluate(match: re.Match[str], values: Mapping[str, int]) -> int:
    """Return the number that a placeholder stands for."""
    letter, factor, offset = _parse(match)
    return factor * values[letter] + offset
