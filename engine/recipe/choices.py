"""Choices of a recipe: values of config fields, each with its reason. What the user set is never changed."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ...structures import Config, usage_error_from_validation
from ..config import ExperimentConfig
from ..overrides import override
from .facts import DataFacts
from .source import value_source


@dataclass(frozen=True, slots=True)
class Choice:
    """A value that a rule chooses for a config field."""

    field: str
    """The dotted path of the field: ``recipe.schedule.steps``."""
    value: Any
    reason: str
    """Why, as the end of a sentence that begins with "because"."""


Rule = Callable[[DataFacts, ExperimentConfig], Iterable[Choice]]
"""A rule gets the facts about the data and the config with all earlier choices, and chooses values of some fields."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The final value of a field: chosen by a rule, or set by the user."""

    field: str
    default: Any
    value: Any
    reason: str
    by_user: bool = False

    def describe(self) -> str:
        """Describe the decision in the form ``default -> chosen, because ...``."""
        default, value = (
            f"{value:.4g}" if isinstance(value, float) else value_source(value) for value in (self.default, self.value)
        )
        change = value if default == value else f"{default} -> {value}"
        return f"{change}, set by you" if self.by_user else f"{change}, because {self.reason}"


@dataclass(frozen=True, slots=True)
class UserChanges:
    """The fields that the user set, and a function that sets them in a config."""

    fields: tuple[str, ...] = ()
    """The dotted paths of the fields."""
    apply: Callable[[ExperimentConfig], ExperimentConfig] = lambda config: config

    @classmethod
    def from_assignments(cls, assignments: Sequence[str]) -> "UserChanges":
        """Return the changes of ``KEY=VALUE`` assignments, as ``--set`` takes them."""
        fields = tuple(assignment.partition("=")[0].strip() for assignment in assignments)
        return cls(fields, functools.partial(override, assignments=assignments))

    @classmethod
    def from_mapping(cls, changes: Mapping[str, Any]) -> "UserChanges":
        """Return the changes of a nested mapping, as :meth:`Config.replace` takes it."""

        def apply(config: ExperimentConfig) -> ExperimentConfig:
            try:
                return config.replace(**changes)
            except ValidationError as error:
                raise usage_error_from_validation("changes", error) from None

        return cls(tuple(_paths(changes)), apply)

    def cover(self, path: str) -> bool:
        """Return whether the user set a field, a part of it, or a config that contains it."""
        return any(_is_below(path, key) or _is_below(key, path) for key in self.fields)


def _paths(changes: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for name, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}.")


@dataclass(slots=True)
class Decider:
    """A config to which rules are applied one after the other, with a record of what was decided."""

    base: ExperimentConfig
    """The config before any choice: its values are the defaults that are shown."""
    user: UserChanges = field(default_factory=UserChanges)
    config: ExperimentConfig = field(init=False)
    """The config with the user's changes and all choices so far."""
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = self.user.apply(self.base)

    def apply(self, rules: Iterable[Callable[[ExperimentConfig], Iterable[Choice]]]) -> None:
        """Apply rules in order; each gets the config with the choices of those before it."""
        for rule in rules:
            for choice in rule(self.config):
                default = get_field(self.base, choice.field)
                by_user = self.user.cover(choice.field)
                if not by_user:
                    self.config = set_field(self.config, choice.field, choice.value)
                value = get_field(self.config, choice.field)
                self.decisions.append(Decision(choice.field, default, value, choice.reason, by_user))

    def finish(self) -> None:
        """Record the fields that the user set and no rule chooses."""
        decided = [decision.field for decision in self.decisions]
        for key in self.user.fields:
            if not any(_is_below(path, key) or _is_below(key, path) for path in decided):
                default, value = get_field(self.base, key), get_field(self.config, key)
                self.decisions.append(Decision(key, default, value, "", by_user=True))


def get_field(config: Config, path: str) -> Any:
    """Return the value at a dotted path; None if a part on the way to it is None or another part."""
    value: Any = config
    names = path.split(".")
    for index, name in enumerate(names):
        if isinstance(value, Mapping):
            return value.get(".".join(names[index:]), value.get(name))
        value = getattr(value, name, None)
    return value


def has_field(config: Config, path: str) -> bool:
    """Return whether there is a field at a dotted path."""
    parent, _, name = path.rpartition(".")
    holder = get_field(config, parent)
    return isinstance(holder, Config) and name in type(holder).model_fields


def set_field(config: ExperimentConfig, path: str, value: Any) -> ExperimentConfig:
    """Return the config with the field at a dotted path changed."""
    for name in reversed(path.split(".")):
        value = {name: value}
    try:
        return config.replace(**value)
    except ValidationError as error:  # of what the user set, in combination with a choice
        raise usage_error_from_validation("the recipe", error) from None
