"""What every evaluation comes to, whatever its task."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scores:
    """Numbers in 0..1 by their usual names; None, which JSON writes as null, where there was nothing to find.

    ``per_class`` is the first number of ``summary``, class by class. ``counts`` tells of images, results and what of
    them did not enter the numbers.
    """

    summary: dict[str, float | None]
    per_class: dict[str, float | None]
    counts: dict[str, int]
