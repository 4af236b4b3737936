"""Findings from the reports that data sets write when they are opened."""

from collections.abc import Iterable
from typing import NamedTuple

from ...data import DataReport
from ...data.report import Case
from .findings import Finding, Severity
from .splits import Split, first_examples

MANY_IGNORED = 0.2
"""Above this fraction of the annotations, ignore regions are a warning: they are neither learned nor scored."""
MASK_CASES = ("no-mask", "bad-polygon", "bad-run-lengths", "empty-mask", "dropped-polygon")
"""The cases that only a data set opened with masks reports."""


class Description(NamedTuple):
    """How a case of a data report is presented."""

    severity: Severity
    what: str
    fix: str


DESCRIPTIONS: dict[str, Description] = {
    "outside-box": Description("warning", "boxes lie outside their image and are left out", "correct or delete them"),
    "tiny-box": Description("warning", "boxes have a side below min_box and are left out", "delete or correct them"),
    "other-class": Description("note", "objects have a class that is not selected", "add it to class_names if wanted"),
    "clipped-box": Description("note", "boxes reach over the border and are clipped", "none needed"),
    "crowd": Description("note", "annotations are crowds, which are ignored", "set iscrowd to 0 for single objects"),
    "difficult": Description("note", "objects are difficult and ignored", "set use_difficult to train on them"),
    "image-without-objects": Description(
        "note", "images have no object: the model learns that they are background", "annotate them, if objects are seen"
    ),
    "assigned-id": Description("note", "annotations have no id", "give them one if other tools read the file"),
    "renumbered-id": Description("warning", "annotations have the id of another one", "give every one its own id"),
    "computed-area": Description("note", "annotations have no area; that of the box or mask is used", "none needed"),
    "corrected-crowd": Description("note", "annotations have an iscrowd that is no number", "write 0 or 1"),
    "whole-float": Description("note", "ids or sizes are written as floats", "write whole numbers"),
    "size-from-file": Description("note", "images have no size in the file", "add height and width"),
    "size-from-image": Description("note", "images have no size in their annotation", "add it"),
    "dropped-polygon": Description(
        "warning", "objects have a polygon without area beside usable ones", "delete the polygon"
    ),
    "empty-mask": Description("warning", "masks cover no pixel; the box is used without it", "draw the mask again"),
    "no-mask": Description("warning", "objects have no mask, though others have", "add it, or train boxes alone"),
    "jpeg-without-end": Description("note", "JPEG files lack their end marker; the pixels are complete", "save again"),
    "listed-twice": Description("warning", "images are listed twice and used once", "correct the list"),
    "stray-file": Description("note", "files in the folder are no images", "none needed"),
    "empty-class": Description("warning", "class folders have no image", "add images, or remove the class"),
    "unlabeled-image": Description("warning", "images have no file of labels and are not used", "annotate them"),
    "backslash-in-name": Description("warning", "file names have backslashes", "write slashes"),
    "other-folder": Description("note", "file names have folders that are not here", "correct the names"),
    "no-keypoints": Description("note", "objects of a class with keypoints have none", "annotate them if visible"),
    "few-pixels": Description("note", "images have fewer pixels of objects than min_pixels", "none needed"),
    "not-in-every-part": Description("note", "images are not in every part of the joint data set", "annotate them"),
}
"""Severity, description and instruction of each case of a data report that has no error of its own to describe it."""
CONSEQUENCES = ("on-skipped-image", "other-part", "class-without-objects")
"""Cases that follow from others, or that a check describes with more facts."""


def find_reported(split: Split) -> Iterable[Finding]:
    """Yield what the data set left out, corrected or noticed when it was opened."""
    yield from _of_report(split, split.dataset.report)
    if split.masked is not None:
        masks = split.masked.report
        for kind, name, case, error_severity in _cases(masks):
            if name in MASK_CASES:
                yield _describe(split, masks, kind, name, case, error_severity)


def _of_report(split: Split, report: DataReport) -> Iterable[Finding]:
    for kind, name, case, severity in _cases(report):
        if name not in CONSEQUENCES:
            yield _describe(split, report, kind, name, case, severity)
    for warning in report.warnings:
        what, _, fix = warning.removeprefix("warning: ").partition("; ")
        case = "corner-boxes" if "leave their image" in warning else "fraction-boxes"
        yield Finding(case if "boxes" in warning else "warning", "warning", split.name, what, fix or "check it")
    for part in report.parts.values():
        yield from _of_report(split, part)


def _cases(report: DataReport) -> Iterable[tuple[str, str, Case, Severity]]:
    """Yield (kind of item, name, case, severity if no description has one) of all cases."""
    for kind, cases in report.skipped.items():
        for name, case in cases.items():
            yield kind, name, case, "error"
    for name, case in report.noted.items():
        yield "noted", name, case, "note"


def _describe(split: Split, report: DataReport, kind: str, name: str, case: Case, severity: Severity) -> Finding:
    """Return the finding for a case; ``kind`` is ``images``, ``annotations`` or ``noted``."""
    is_image = kind == "images" or "image" in name or name in ("jpeg-without-end", "listed-twice", "size-from-file")
    total = report.read.get("images" if is_image else "annotations")
    described = DESCRIPTIONS.get(name)
    if described is not None:
        severity, what, fix = described
        if name in ("crowd", "difficult") and total and case.count > MANY_IGNORED * total:
            severity = "warning"
    else:
        error = case.error
        noun = "images" if is_image else "annotations"
        what = f"{noun} are left out; the first: {error.what}" if error is not None else f"{noun}: {name}"
        fix = (error.fix if error is not None else "") or "correct it"
    examples = first_examples(split.reported_example(item, is_image) for item in case.ids)
    return Finding(name, severity, split.name, what, fix, case.count, total, examples)
