"""Names that a user chooses from: backbones, necks, heads, data sets."""

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BeforeValidator, SerializeAsAny

from .config import PartConfig, suggest
from .errors import UsageError

T = TypeVar("T")
Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """How to make one named part: the type of its config, and the callable that takes it last."""

    config: type[PartConfig]
    build: Callable[..., T]


class Registry(Generic[T]):
    """Names, each with a config type and a builder. A duplicate name raises; an unknown one suggests the nearest."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}
        self._families: dict[str, Entry[T]] = {}

    def register(self, name: str, config: type[PartConfig]) -> Callable[[Builder], Builder]:
        """Decorate a class or function ``build(*parts, config)`` to make it known under ``name``.

        A name that ends in ``/`` is a family: it stands for every name that begins with it, and is not listed itself.
        """

        entries = self._families if name.endswith("/") else self._entries

        def add(build: Builder) -> Builder:
            if name in entries:
                raise ValueError(f"the {self.kind} name {name!r} is taken; choose another")
            entries[name] = Entry(config, build)
            return build

        return add

    def __getitem__(self, name: str) -> Entry[T]:
        entry = self._find(name)
        if entry is None:
            raise UsageError(f"there is no {self.kind} named {name!r}", suggest(name, self._entries))
        return entry

    def _find(self, name: str) -> Entry[T] | None:
        return self._entries.get(name) or self._families.get(name[: name.find("/") + 1])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __len__(self) -> int:
        return len(self._entries)

    def names(self, pattern: str = "*") -> list[str]:
        """Registered names that match a shell pattern (``resnext*``), in the order of registration."""
        return [name for name in self._entries if fnmatch.fnmatchcase(name, pattern)]

    def resolve(self, value: PartConfig | Mapping[str, Any]) -> PartConfig:
        """A config of the right type from a mapping whose ``name`` says which; a config passes through."""
        if isinstance(value, PartConfig):
            self[value.name]
            return value
        if not isinstance(value, Mapping) or "name" not in value:
            raise ValueError(f"a {self.kind} needs a 'name'; known: {', '.join(self._entries)}")
        return self[value["name"]].config.model_validate(dict(value))

    def build(self, config: PartConfig, *parts: Any) -> T:
        """Make the part that ``config.name`` names out of the parts it stands on."""
        return self[config.name].build(*parts, config)

    def field(self) -> tuple[Any, ...]:
        """What makes a config field hold one of these: ``backbone: Annotated[PartConfig, *backbones.field()]``."""
        serialize: Any = SerializeAsAny  # a type to a type checker, and an annotation to pydantic
        return (BeforeValidator(self.resolve), serialize())
