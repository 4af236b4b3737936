"""The classes of a COCO file, and the mapping between labels and category ids."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...formats.checks import as_id, is_text
from ...formats.coco_corrections import correct_entry
from ...structures import DataError, Skeleton, UsageError, suggest
from .keypoints import CocoKeypointsConfig, read_skeleton

OTHER_CLASS, UNDECLARED = -1, -2
"""Used in place of a label: a class that is not selected, and a category id that the file does not declare."""


@dataclass(frozen=True, slots=True)
class Categories:
    """The selected classes, in the order of their labels."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    label_of: Mapping[Any, int]
    """The label of each category id of the file; ``OTHER_CLASS`` for a class that is not selected."""
    skeleton: Skeleton | None
    """The keypoints of the objects; None if they are not read."""


def read_categories(
    categories: list[Any],
    wanted: Sequence[str] | None,
    path: str | os.PathLike[str],
    keypoints: CocoKeypointsConfig | None = None,
) -> Categories:
    """Return the ``wanted`` classes, in this order; None selects all classes, sorted by id.

    With a ``keypoints`` config, at least one of them must have keypoints. Raises DataError for invalid categories, and
    UsageError for a wanted class that the file does not have.
    """

    def problem(case: str, what: str) -> DataError:
        return DataError(what, "correct the categories", case=case, file=path)

    if not categories:
        raise problem("no-categories", "the list of categories is empty")
    names: dict[int, str] = {}
    for category in categories:
        if isinstance(category, dict):
            correct_entry(category)
        category_id, name = (category.get("id"), category.get("name")) if isinstance(category, dict) else (None, None)
        category_id = as_id(category_id)
        if not isinstance(category_id, int) or not is_text(name):
            raise problem("bad-category", f"a category needs an integer id and a name; found {category!r:.80}")
        if category_id in names:
            raise problem("duplicate-category", f"two categories have the id {category_id}")
        names[category_id] = name
    ids = {name: category_id for category_id, name in names.items()}
    if len(ids) < len(names):
        twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
        raise problem("duplicate-category", f"several categories are named {', '.join(map(repr, twice))}")
    if wanted is None:
        wanted = [names[category_id] for category_id in sorted(names)]
    for name in wanted:
        if name not in ids:
            raise UsageError(f"there is no class {name!r} in the annotations", suggest(name, ids), file=path)
    chosen = tuple(ids[name] for name in wanted)
    labels = {category_id: label for label, category_id in enumerate(chosen)}
    skeleton = None
    if keypoints is not None:
        entries = {category["id"]: category for category in categories}
        skeleton = read_skeleton([entries[category_id] for category_id in chosen], keypoints, path)
    return Categories(tuple(wanted), chosen, dict.fromkeys(names, OTHER_CLASS) | labels, skeleton)
