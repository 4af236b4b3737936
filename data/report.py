"""The report of a data set's validation: it raises or counts every problem, so that nothing is left out silently."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..formats import write_json
from ..structures import DataError

Policy = Literal["error", "skip", "skip-any"]
"""The policy for images and annotations that cannot be used. ``error``: raise DataError. ``skip``: leave them out and
count them, unless they are most of the images or annotations, which is an error. ``skip-any``: leave out any number."""
Kind = Literal["images", "annotations"]

SHOWN_IDS = 100
"""Maximum number of ids that a report lists per case."""
MOST = 0.5
"""If more than this fraction of the images or annotations is unusable, the policy "skip" does not leave them out."""


def require_policy(policy: str) -> None:
    """Raise ValueError if ``policy`` is not a :data:`Policy`."""
    if policy not in get_args(Policy):
        raise ValueError(
            "the policy for bad data must be 'error' (stop), 'skip' (leave it out, unless most data are bad) or "
            f"'skip-any' (leave out any number), got {policy!r}"
        )


@dataclass(slots=True)
class Case:
    """The number of occurrences of a case, and the ids of the first hundred."""

    count: int = 0
    ids: list[int | str] = field(default_factory=list)
    error: DataError | None = None
    """The first error, if the items of the case are unusable; None if they are left out for another reason."""

    def add(self, item_id: int | str) -> None:
        self.count += 1
        if len(self.ids) < SHOWN_IDS:
            self.ids.append(item_id)


class DataReport:
    """Counts of the problems and corrections found while opening a data set, by case.

    For images and for annotations, read = used + skipped.
    """

    def __init__(
        self,
        policy: Policy = "error",
        source: str | os.PathLike[str] = "",
        kinds: Sequence[Kind] = ("images", "annotations"),
    ) -> None:
        require_policy(policy)
        self.policy: Policy = policy
        self.source = os.fspath(source)
        self.read: dict[Kind, int] = dict.fromkeys(kinds, 0)
        self.skipped: dict[Kind, dict[str, Case]] = {kind: {} for kind in kinds}
        self.noted: dict[str, Case] = {}
        self.warnings: list[str] = []
        self.parts: dict[str, DataReport] = {}
        """The reports of the parts of a joint data set, by task."""
        self.rejected_rows: set[int] = set()
        """The indices of the unusable entries of ``annotations`` in a COCO file."""

    def reject(self, kind: Kind, error: DataError) -> None:
        """Count an unusable image or annotation as skipped; :meth:`require_usable` raises its error if it must."""
        item_id = error.image_id if kind == "images" else error.annotation_id
        self.skip(kind, error.case, "" if item_id is None else item_id)
        case = self.skipped[kind][error.case]
        case.error = case.error or error

    def skip(self, kind: Kind, case: str, item_id: int | str) -> None:
        """Count an image or annotation that is left out under either policy, such as an object of another class."""
        self.skipped[kind].setdefault(case, Case()).add(item_id)

    def note(self, case: str, item_id: int | str) -> None:
        """Count an item that is used, but was corrected (``clipped-box``) or is worth knowing about (``crowd``)."""
        self.noted.setdefault(case, Case()).add(item_id)

    def used(self, kind: Kind) -> int:
        """Return the number of images or annotations that are in the data set."""
        return self.read[kind] - self.skipped_count(kind)

    def skipped_count(self, kind: Kind) -> int:
        """Return the number of images or annotations that were left out."""
        return sum(case.count for case in self.skipped[kind].values())

    def require_usable(self, images: int, fix: str) -> None:
        """Raise DataError if the data must not be used: to be called at the end of opening a data set.

        Under the policy "error" any rejected image or annotation is an error, and under "skip" a majority of either.
        ``images`` is the number of usable images; 0 is an error under any policy, with ``fix`` as what to do about it.
        """
        unusable: dict[Kind, list[Case]] = {
            kind: [case for case in cases.values() if case.error] for kind, cases in self.skipped.items()
        }
        fractions: dict[Kind, float] = {
            kind: sum(case.count for case in cases) / max(self.read[kind], 1) for kind, cases in unusable.items()
        }
        worst = max(fractions, key=fractions.__getitem__)
        if not images and (self.policy != "error" or not fractions[worst]):
            what = f"no image is left to use: {self.summary()}"
            raise DataError(what, fix, case="empty-dataset", file=self.source)
        if fractions[worst] > {"error": 0, "skip": MOST, "skip-any": 1}[self.policy]:
            raise self._widespread_error(worst, unusable[worst])

    def _widespread_error(self, kind: Kind, cases: Sequence[Case]) -> DataError:
        """Return the first error of the most frequent case, with its number, and the policy that would leave it out.

        The policy "skip" is not suggested for a fault of most images or annotations.
        """
        case = max(cases, key=lambda case: case.count)
        error, read = case.error, self.read[kind]
        assert error is not None, "the cases are of unusable items"
        what = error.what if case.count == 1 else f"{error.what} ({case.count} of {read} {kind} have this fault)"
        fix = error.fix or "correct it"
        if case.count <= MOST * read:
            fix = f"{fix}, or pass --bad-data=skip"
        elif self.policy == "skip":
            fix = f"{fix}, or pass --bad-data=skip-any to use the others"
        return DataError(
            what, fix, case=error.case, file=error.file, image_id=error.image_id, annotation_id=error.annotation_id
        )

    def summary(self) -> str:
        """Return one line with the numbers of used items, skipped items by case and noted items, and the warnings."""
        objects = f" with {self.used('annotations')} objects" if "annotations" in self.read else ""
        sections = [f"{self.used('images')} images{objects} from {self.source}"]
        for kind, cases in self.skipped.items():
            if cases:
                sections.append(f"skipped {kind}: " + ", ".join(f"{case.count} {name}" for name, case in cases.items()))
        if self.noted:
            sections.append("noted: " + ", ".join(f"{case.count} {name}" for name, case in self.noted.items()))
        sections += self.warnings
        return "; ".join([*sections, *(f"{name}: {report.summary()}" for name, report in self.parts.items())])

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``data_report.json``."""
        totals = {
            kind: {"read": count, "used": self.used(kind), "skipped": count - self.used(kind)}
            for kind, count in self.read.items()
        }
        return {
            "source": self.source,
            "policy": self.policy,
            "totals": totals,
            "skipped": {kind: _cases(cases) for kind, cases in self.skipped.items()},
            "noted": _cases(self.noted),
            "warnings": self.warnings,
            **({"parts": {name: report.as_json() for name, report in self.parts.items()}} if self.parts else {}),
        }

    def state(self) -> dict[str, Any]:
        """Return the findings of the validation as values of JSON types, for :meth:`add`."""
        return {
            "read": self.read,
            "skipped": {kind: _cases(cases) for kind, cases in self.skipped.items()},
            "errors": {
                kind: {name: _fields(case.error) for name, case in cases.items() if case.error is not None}
                for kind, cases in self.skipped.items()
            },
            "noted": _cases(self.noted),
            "warnings": self.warnings,
            "rejected_rows": sorted(self.rejected_rows),
        }

    def add(self, state: Mapping[str, Any]) -> None:
        """Add the findings of an earlier validation of the same data, as :meth:`state` returned them."""
        for kind in self.read:
            self.read[kind] += state["read"][kind]
            _add_cases(self.skipped[kind], state["skipped"][kind])
            for name, fields in state["errors"][kind].items():
                case = self.skipped[kind][name]
                case.error = case.error or DataError(**fields)
        _add_cases(self.noted, state["noted"])
        self.warnings += state["warnings"]
        self.rejected_rows.update(state["rejected_rows"])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON."""
        write_json(path, self.as_json())


def _cases(cases: Mapping[str, Case]) -> dict[str, Any]:
    return {name: {"count": case.count, "ids": case.ids} for name, case in cases.items()}


def _fields(error: DataError) -> dict[str, Any]:
    """Return the arguments from which an error is built again, as values of JSON types."""
    names = ("what", "fix", "case", "file", "image_id", "annotation_id")
    return {name: getattr(error, name) for name in names}


def _add_cases(cases: dict[str, Case], added: Mapping[str, Any]) -> None:
    for name, fields in added.items():
        case = cases.setdefault(name, Case())
        case.count += fields["count"]
        case.ids = [*case.ids, *fields["ids"]][:SHOWN_IDS]
