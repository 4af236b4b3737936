"""Frozen objects with named fields; new fields can be declared without changing the class."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sized
from dataclasses import FrozenInstanceError
from types import MappingProxyType
from typing import Any, TypeVar

from .config import suggest

Table = TypeVar("Table", bound="FieldTable")


class FieldTable(ABC):
    """Base class of frozen objects whose fields are read as attributes.

    A declared field without a value is None. Reading an undeclared name raises an AttributeError that suggests the
    closest field. Subclasses define the declared fields and check the values in their constructor.
    """

    __slots__ = ("_values",)
    _values: dict[str, Any]

    @classmethod
    @abstractmethod
    def declared_fields(cls) -> Iterable[str]:
        """Return the names of all fields that may have a value."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields that have a value, by name."""
        return MappingProxyType(self._values)

    def replace(self: Table, **changes: Any) -> Table:
        """Return a copy with the given fields changed, and all fields checked; None removes a field's value."""
        return type(self)(**(self._values | changes))

    def _set_fields(self, values: Mapping[str, Any]) -> None:
        """Store the values that are not None; raise TypeError for an undeclared field."""
        declared = list(self.declared_fields())
        unknown = sorted(values.keys() - set(declared))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no field {unknown[0]!r}, and a new one must be declared first; "
                f"{suggest(unknown[0], declared)}"
            )
        present = {name: values[name] for name in declared if values.get(name) is not None}
        object.__setattr__(self, "_values", present)

    def replace_unchecked(self: Table, **changes: Any) -> Table:
        """Return a copy with the given fields changed to values that are known to be valid."""
        changed = copy.copy(self)
        object.__setattr__(changed, "_values", self._values | changes)
        return changed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # _values does not exist yet while the object is being unpickled
            raise AttributeError(name)
        if name in self._values:
            return self._values[name]
        declared = list(self.declared_fields())
        if name in declared:
            return None
        raise AttributeError(f"{type(self).__name__} has no field {name!r}; {suggest(name, declared)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}; use replace({name}=...)")

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}: {_describe(value)}" for name, value in self._values.items())
        return f"{type(self).__name__}({values})"


def require_one_per_box(what: str, value: Sized, count: int) -> None:
    """Raise ValueError unless there is one value per box; ``what`` names a value in the message ("label")."""
    if len(value) != count:
        raise ValueError(f"one {what} per box is needed, got {count} boxes and {len(value)} {what}s")


def _describe(value: Any) -> str:
    """Return the shape of an array or tensor, or the number of values of any other collection."""
    shape = getattr(value, "shape", None)
    return f"{len(value)} values" if shape is None else str(tuple(shape))
