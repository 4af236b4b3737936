"""Registries: parts (backbones, necks, heads, data sets, ...) by the name that a config selects them with."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BeforeValidator, SerializeAsAny

from .config import PartConfig, PartField, suggest
from .errors import UsageError

T = TypeVar("T")
Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class RegistryEntry(Generic[T]):
    """A registered part: its config type, and the callable that builds it and takes the config as its last argument."""

    config: type[PartConfig]
    build: Callable[..., T]


class Registry(Generic[T]):
    """A mapping from part names to config types and builders.

    ``noun`` is the word for a part in error messages (``"head"``). Registering a name twice raises ValueError. Looking
    up an unknown name raises UsageError; ``suggest`` writes the end of its message, by default the closest names.
    """

    def __init__(self, noun: str, suggest: Callable[[str, Iterable[str]], str] = suggest) -> None:
        self.noun = noun
        self._suggest = suggest
        self._entries: dict[str, RegistryEntry[T]] = {}
        self._families: dict[str, RegistryEntry[T]] = {}

    def register(self, name: str, config: type[PartConfig]) -> Callable[[Builder], Builder]:
        """Return a decorator that registers a class or function ``build(*parts, config)`` under ``name``.

        A name that ends in ``/`` registers a family: it matches every name with that prefix and is not listed. Running
        a definition again, as in a notebook, replaces the earlier entry.
        """
        entries = self._families if name.endswith("/") else self._entries

        def add(build: Builder) -> Builder:
            if name in entries and not _is_same_definition(entries[name].build, build):
                raise ValueError(f"the {self.noun} name {name!r} is taken; choose another")
            entries[name] = RegistryEntry(config, build)
            return build

        return add

    def __getitem__(self, name: object) -> RegistryEntry[T]:
        if not isinstance(name, str):  # names come from config files
            raise UsageError(f"the name of a {self.noun} is text, got {name!r}")
        entry = self._find(name)
        if entry is None:
            raise UsageError(f"there is no {self.noun} named {name!r}", self._suggest(name, self._entries))
        return entry

    def _find(self, name: str) -> RegistryEntry[T] | None:
        return self._entries.get(name) or self._families.get(name[: name.find("/") + 1])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __len__(self) -> int:
        return len(self._entries)

    def names(self, pattern: str = "*") -> list[str]:
        """Return the registered names that match a shell pattern (``resnext*``), in the order of registration."""
        return [name for name in self._entries if fnmatch.fnmatchcase(name, pattern)]

    def resolve(self, value: PartConfig | Mapping[str, Any]) -> PartConfig:
        """Return the config of a part, built from a mapping with its ``name``; a config is checked and returned.

        Raises ValueError for a mapping without a name and for a config of a part from another registry.
        """
        if isinstance(value, PartConfig):
            expected = self[value.name].config
            if not isinstance(value, expected) and _is_same_definition(type(value), expected):
                return expected.model_validate(value.model_dump())
            if not isinstance(value, expected):
                raise ValueError(
                    f"the {self.noun} {value.name!r} needs a {expected.__name__}; got a {type(value).__name__}"
                )
            return value
        if not isinstance(value, Mapping) or "name" not in value:
            raise ValueError(f"a {self.noun} needs a 'name'; known: {', '.join(self._entries)}")
        return self[value["name"]].config.model_validate(dict(value))

    def build(self, config: PartConfig, *parts: Any) -> T:
        """Build the part named ``config.name``; ``parts`` are passed to its builder before the config."""
        return self[config.name].build(*parts, config)

    def field(self) -> tuple[Any, ...]:
        """Return the pydantic annotations of a config field that holds a part of this registry.

        Example: ``backbone: Annotated[PartConfig, *BACKBONES.field()]``.
        """
        serialize: Any = SerializeAsAny  # type checkers see a type, pydantic an annotation
        return (BeforeValidator(self.resolve), serialize(), PartField(lambda name: self[name].config))


def _is_same_definition(first: Any, second: Any) -> bool:
    """Return whether two classes or functions have the same definition, so that its module or cell was run twice."""
    names = [(getattr(value, "__module__", None), getattr(value, "__qualname__", None)) for value in (first, second)]
    return names[0] == names[1] and "<lambda>" not in str(names[0][1])
