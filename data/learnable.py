"""Check that a data set has objects to learn from or to score."""

from ..structures import DataError, UsageError
from .dataset import Dataset
from .report import DataReport

CURES = {
    "tiny-box": "boxes are in pixels: correct them, or lower min_box",
    "crowd": "iscrowd=1 marks groups of objects, which are ignored: set it to 0 for single objects",
    "difficult": "difficult objects are ignored: set difficult to 0",
    "other-class": "name the classes of the file in class_names, or leave it out",
    "outside-box": "boxes are x, y, width, height in pixels of their image: correct them",
}
"""Instructions for the user if no object is left to train on, by the commonest case of the report."""


def require_objects(dataset: Dataset) -> None:
    """Raise DataError if objects were read, but none is left to train on; warn in the report if none was read.

    Data sets that do not know their labels without reading the files are not checked.
    """
    if _has_objects(dataset):
        return
    reports = _reports_of_objects(dataset.report)
    if not sum(report.read["annotations"] for report in reports):
        dataset.report.warnings.append("warning: there are no objects at all: the model learns the background only")
        return
    cases: dict[str, int] = {}
    for report in reports:
        noted = {name: case for name, case in report.noted.items() if name in CURES}
        for name, case in [*report.skipped["annotations"].items(), *noted.items()]:
            cases[name] = cases.get(name, 0) + case.count
    counts = ", ".join(f"{count} {name}" for name, count in sorted(cases.items(), key=lambda item: -item[1]))
    commonest = max(cases, key=lambda name: cases[name], default="")
    raise DataError(
        f"there is no object to learn from in these {len(dataset)} images: {counts or 'all are on other images'}",
        CURES.get(commonest, "correct the annotations"),
        case="nothing-to-learn", file=dataset.report.source,
    )  # fmt: skip


def warn_without_objects(dataset: Dataset) -> None:
    """Add a warning to the report if validation data have no objects, so that nothing can be scored."""
    if not _has_objects(dataset):
        dataset.report.warnings.append("warning: there are no objects to score: the scores are null")


def _has_objects(dataset: Dataset) -> bool:
    """Return whether every task has a labeled object, image or pixel; True if that is unknown."""
    for task in dataset.classes:
        try:
            if not len(dataset.part(task).image_labels()):
                return False
        except UsageError:
            continue
    return True


def _reports_of_objects(report: DataReport) -> list[DataReport]:
    """Return a report and the reports of its parts that count annotations."""
    own = [report] if "annotations" in report.read else []
    return own + [found for part in report.parts.values() for found in _reports_of_objects(part)]
