"""Findings about data: what is wrong, how often, where, and what to do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""``error``: training stops at it or learns something false. ``warning``: it probably costs accuracy. ``note``: it is
worth knowing, and may be as it should be."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SHOWN = 3
"""The number of examples of a finding."""

CLEAN, FOUND, UNUSABLE = 0, 1, 3
"""The exit codes of ``vertebra doctor``."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image or object that a finding is about."""

    file: str = ""
    """The path of the image file; empty if it is unknown."""
    image_id: int | str | None = None
    annotation_id: int | str | None = None
    box: tuple[float, float, float, float] | None = None
    """xyxy in original pixels; None if the finding is about the whole image."""
    text: str = ""
    """Further facts about this example, such as the file that it is a copy of."""

    def describe(self) -> str:
        """Describe the example in one line."""
        ids = [
            "" if self.image_id is None else f"image {self.image_id}",
            "" if self.annotation_id is None else f"annotation {self.annotation_id}",
            "" if self.box is None else f"box {', '.join(f'{value:g}' for value in self.box)}",
        ]
        parts = [self.file, *ids, self.text]
        return ", ".join(part for part in parts if part).replace("\r", "\\r").replace("\n", "\\n")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the data that a user should know, with its number of occurrences and up to three examples."""

    case: str
    """A short name, such as ``repeated-object``."""
    severity: Severity
    split: str
    """The name of the split; of a finding about several, their names joined by `` and ``."""
    what: str
    """Description of the finding, as a phrase that follows its count: ``objects are annotated twice``."""
    fix: str
    """Instruction for the user that resolves the finding: ``delete one of the two``."""
    count: int = 1
    total: int | None = None
    """The number of items that were looked at, of which ``count`` have the fault; None if it has no meaning."""
    examples: tuple[Example, ...] = ()
    unusable: bool = False
    """Whether nothing can be trained on because of it."""

    def describe(self) -> str:
        """Describe the finding in one line, without its examples."""
        of = "" if self.total is None else f" of {self.total}"
        digits = 1 if self.total and self.count < 0.1 * self.total else 0
        share = f" ({self.count / self.total:.{digits}%})" if self.total else ""
        number = "" if self.total is None and self.count == 1 else f"{self.count}{of}{share} "
        return f"{self.severity}: {self.split}: {self.case}: {number}{self.what}: {self.fix}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings about the splits of a data set."""

    source: str
    """The config or path that was examined."""
    splits: tuple[str, ...]
    """A line about each split: its numbers of images and objects."""
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, source: str, splits: Sequence[str], findings: Iterable[Finding]) -> "Diagnosis":
        """Return the diagnosis with the findings in the order of their severity."""
        ordered = sorted(findings, key=lambda finding: (not finding.unusable, SEVERITIES.index(finding.severity)))
        return cls(source, tuple(splits), tuple(ordered))

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def exit_code(self, strict: bool = False) -> int:
        """Return the exit code: 3 if data cannot be used, 1 for errors and warnings, 0 otherwise.

        With ``strict`` a note gives 1 too.
        """
        if any(finding.unusable for finding in self.findings):
            return UNUSABLE
        counted = [finding for finding in self.findings if strict or finding.severity != "note"]
        return FOUND if counted else CLEAN

    def summary(self) -> str:
        """Return the numbers of errors, warnings and notes, and the cases of the first two, in one line."""
        numbers = ", ".join(
            f"{count} {severity}{'' if count == 1 else 's'}"
            for severity in SEVERITIES
            if (count := self.count(severity))
        )
        cases = ", ".join(dict.fromkeys(finding.case for finding in self.findings if finding.severity != "note"))
        return f"{numbers or 'nothing found'} ({cases})" if cases else numbers or "nothing found"

    def describe(self) -> str:
        """Describe the splits and all findings, with their examples on indented lines."""
        lines = list(self.splits)
        for finding in self.findings:
            lines += [finding.describe(), *(f"    {example.describe()}" for example in finding.examples)]
        return "\n".join([*lines, self.summary()])

    def as_json(self) -> dict[str, Any]:
        """Return the content of the JSON report."""
        return {
            "source": self.source,
            "splits": list(self.splits),
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "findings": [asdict(finding) for finding in self.findings],
        }
