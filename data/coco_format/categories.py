"""The classes of a COCO file: which labels stand for which of its category ids."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...structures import DataError, UsageError, suggest
from .keys import as_key, is_text


@dataclass(frozen=True, slots=True)
class Categories:
    """The name of each label, the label of each wanted category id, and all ids that the file declares."""

    names: tuple[str, ...]
    labels: Mapping[int, int]
    declared: frozenset[int]

    @property
    def ids(self) -> tuple[int, ...]:
        """Of each label."""
        return tuple(self.labels)

    def label(self, identity: Any) -> int:
        """That of a category id; -1 for a class left out by choice, -2 for one that the file does not declare."""
        known: Any = as_key(identity)
        return self.labels.get(known, -1 if known in self.declared else -2)


def read_categories(categories: list[Any], wanted: Sequence[str] | None, path: str | os.PathLike[str]) -> Categories:
    """The ``wanted`` classes, in that order; None takes all, by id."""

    def fault(case: str, what: str) -> DataError:
        return DataError(what, "correct the categories", case=case, file=path)

    if not categories:
        raise fault("no-categories", "the list of categories is empty")
    by_id: dict[int, str] = {}
    for category in categories:
        identity, name = (category.get("id"), category.get("name")) if isinstance(category, dict) else (None, None)
        identity = as_key(identity)
        if not isinstance(identity, int) or not is_text(name):
            raise fault("bad-category", f"a category needs an integer id and a name; found {category!r:.80}")
        if identity in by_id:
            raise fault("duplicate-category", f"two categories have the id {identity}")
        by_id[identity] = name
    ids = {name: identity for identity, name in by_id.items()}
    if len(ids) < len(by_id):
        twice = sorted({name for name in by_id.values() if list(by_id.values()).count(name) > 1})
        raise fault("duplicate-category", f"several categories are named {', '.join(map(repr, twice))}")
    if wanted is None:
        wanted = [by_id[identity] for identity in sorted(by_id)]
    for name in wanted:
        if name not in ids:
            raise UsageError(f"there is no class {name!r} in the annotations", suggest(name, ids), file=path)
    labels = {ids[name]: label for label, name in enumerate(wanted)}
    return Categories(tuple(wanted), labels, frozenset(by_id))
