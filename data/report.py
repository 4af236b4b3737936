"""What validation found in a data set: stop at it, or skip it and say so. Nothing is left out silently."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..structures import DataError

Policy = Literal["error", "skip"]
Kind = Literal["images", "annotations"]

SHOWN_IDS = 100


@dataclass(slots=True)
class Case:
    """How often something was met, and where (the first hundred)."""

    count: int = 0
    ids: list[int | str] = field(default_factory=list)

    def add(self, identity: int | str) -> None:
        self.count += 1
        if len(self.ids) < SHOWN_IDS:
            self.ids.append(identity)


class DataReport:
    """Counts by case. For each kind of thing in the data, read = used + skipped."""

    def __init__(
        self,
        policy: Policy = "error",
        source: str | os.PathLike[str] = "",
        kinds: Sequence[Kind] = ("images", "annotations"),
    ) -> None:
        self.policy, self.source = policy, os.fspath(source)
        self.read: dict[Kind, int] = dict.fromkeys(kinds, 0)
        self.skipped: dict[Kind, dict[str, Case]] = {kind: {} for kind in kinds}
        self.notes: dict[str, Case] = {}
        self.warnings: list[str] = []
        self.parts: dict[str, DataReport] = {}
        """Of the data sets that this one is made of."""
        self.faulty_rows: set[int] = set()
        """Where unusable annotations stand in the file."""

    def fault(self, kind: Kind, error: DataError) -> None:
        """Something unusable: raise it, or under the policy ``skip`` leave it out."""
        if self.policy == "error":
            raise error
        identity = error.image_id if kind == "images" else error.annotation_id
        self.skip(kind, error.case, "" if identity is None else identity)

    def skip(self, kind: Kind, case: str, identity: int | str) -> None:
        """Something left out by rule, whatever the policy."""
        self.skipped[kind].setdefault(case, Case()).add(identity)

    def note(self, case: str, identity: int | str) -> None:
        """Something used after a correction, or worth knowing."""
        self.notes.setdefault(case, Case()).add(identity)

    def used(self, kind: Kind) -> int:
        """How many of what was read are in the data set."""
        return self.read[kind] - self.skipped_count(kind)

    def skipped_count(self, kind: Kind) -> int:
        """How many were left out."""
        return sum(case.count for case in self.skipped[kind].values())

    def require_images(self, count: int, fix: str) -> None:
        """DataError where none is left to use; ``count`` says how many are."""
        if not count:
            what = f"no image is left to use: {self.summary()}"
            raise DataError(what, fix, case="empty-dataset", file=self.source)

    def summary(self) -> str:
        """One line: what is used, what was skipped and why, what was noted."""
        objects = f" with {self.used('annotations')} objects" if "annotations" in self.read else ""
        parts = [f"{self.used('images')} images{objects} from {self.source}"]
        for kind, cases in self.skipped.items():
            if cases:
                parts.append(f"skipped {kind}: " + ", ".join(f"{case.count} {name}" for name, case in cases.items()))
        if self.notes:
            parts.append("noted: " + ", ".join(f"{case.count} {name}" for name, case in self.notes.items()))
        parts += self.warnings
        return "; ".join([*parts, *(f"{name}: {report.summary()}" for name, report in self.parts.items())])

    def as_json(self) -> dict[str, Any]:
        """What ``data_report.json`` holds."""
        totals = {
            kind: {"read": count, "used": self.used(kind), "skipped": count - self.used(kind)}
            for kind, count in self.read.items()
        }
        skipped = {kind: _cases(cases) for kind, cases in self.skipped.items()}
        return {
            "source": self.source,
            "policy": self.policy,
            "totals": totals,
            "skipped": skipped,
            "noted": _cases(self.notes),
            "warnings": self.warnings,
            **({"parts": {name: report.as_json() for name, report in self.parts.items()}} if self.parts else {}),
        }

    def state(self) -> dict[str, Any]:
        """Return all that validation has found, in values of JSON's types; :meth:`restore` takes it back."""
        return {
            "read": self.read,
            "skipped": {kind: _cases(cases) for kind, cases in self.skipped.items()},
            "notes": _cases(self.notes),
            "warnings": self.warnings,
            "faulty_rows": sorted(self.faulty_rows),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what the validation of the same data found before."""
        self.read = dict(state["read"])
        self.skipped = {
            kind: {name: Case(**case) for name, case in cases.items()} for kind, cases in state["skipped"].items()
        }
        self.notes = {name: Case(**case) for name, case in state["notes"].items()}
        self.warnings = list(state["warnings"])
        self.faulty_rows = set(state["faulty_rows"])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON."""
        Path(path).write_text(json.dumps(self.as_json(), indent=1) + "\n")


def _cases(cases: dict[str, Case]) -> dict[str, Any]:
    return {name: {"count": case.count, "ids": case.ids} for name, case in cases.items()}
