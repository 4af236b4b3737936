"""Annotations of a COCO file on their way through checks: each is charged with its first fault only."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from ...structures import DataError
from ..report import DataReport
from .keys import as_key

Entry = dict[str, Any]


class AnnotationChecks:
    """The entries, their ids, and which of them were found unusable so far."""

    def __init__(
        self, annotations: Sequence[tuple[int, Any]], report: DataReport, path: str | os.PathLike[str]
    ) -> None:
        """Of ``(row, annotation)`` pairs; two with one id are refused, whatever the report's policy."""
        self.report, self._path = report, path
        self.rows: Int64[ndarray, " n"] = np.array([row for row, _ in annotations], np.int64)
        self.entries: list[Entry] = [
            annotation if isinstance(annotation, dict) else {"id": f"at {row}"} for row, annotation in annotations
        ]
        self.identities = self._identify()
        self.faulty: Bool[ndarray, " n"] = np.zeros(len(annotations), bool)

    def __len__(self) -> int:
        return len(self.entries)

    def values(self, field: str) -> list[Any]:
        """What each entry has in a field; None where it lacks it."""
        return [entry.get(field) for entry in self.entries]

    def reject_where(self, wrong: Bool[ndarray, " n"], case: str, describe: Callable[[Entry], str]) -> None:
        """Charge a whole column of entries."""
        for index in np.flatnonzero(wrong & ~self.faulty).tolist():
            self.refuse(index, case, describe(self.entries[index]))

    def refuse(self, index: int, case: str, what: str, fix: str = "correct it") -> None:
        """Charge one entry: raise, or count it."""
        self.report.fault("annotations", self._error(index, self.identities[index], case, what, fix))
        self.report.faulty_rows.add(self.rows[index].item())
        self.faulty[index] = True

    def _error(self, index: int, identity: int | str, case: str, what: str, fix: str = "correct it") -> DataError:
        return DataError(
            what, f"{fix}, or pass --bad-data=skip", case=case, file=self._path,
            image_id=as_key(self.entries[index].get("image_id")), annotation_id=identity,
        )  # fmt: skip

    def _identify(self) -> list[int | str]:
        """Every entry's id; one without is called by its row, which is counted."""
        identities: dict[int | str, None] = {}
        for index, (entry, row) in enumerate(zip(self.entries, self.rows.tolist(), strict=True)):
            identity = as_key(entry.get("id"))
            if identity is None:
                identity = f"row {row}"
                self.report.note("assigned-id", identity)
            elif identity in identities:
                raise self._error(index, identity, "duplicate-annotation-id", "two annotations have this id")
            identities[identity] = None
        return list(identities)
