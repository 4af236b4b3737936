"""Detections as values of other libraries: plain Python, COCO results, pandas and supervision.

pandas and supervision are imported when they are used, and are no dependencies.
"""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..formats import detection_rows, encode_patch
from ..ops import paste_mask_patches, paste_masks
from ..structures import Classes, Detections, UsageError

if TYPE_CHECKING:
    from pandas import DataFrame  # pyright: ignore[reportMissingImports]


def to_dict(found: Detections, classes: Classes) -> dict[str, Any]:
    """Return the detections of an image as lists, which JSON can hold, by field.

    ``boxes`` are (x1, y1, x2, y2), ``labels`` numbers and ``names`` their classes; then ``scores`` and, if there are
    any, ``masks`` as COCO's compressed RLE and ``keypoints`` as (x, y, score).
    """
    labels = found.labels.tolist()
    names = [classes.names[label] for label in labels]
    values = {"boxes": found.boxes.tolist(), "labels": labels, "names": names, "scores": found.scores.tolist()}
    if found.masks is not None:
        values["masks"] = list(_encode_masks(found))
    if found.keypoints is not None:
        values["keypoints"] = found.keypoints.tolist()
    return values


def to_coco(found: Detections, classes: Classes, image_id: int | str = 1) -> list[dict[str, Any]]:
    """Return the detections of an image as rows of COCO's results format, with the category ids of the classes."""
    masks = None if found.masks is None else _encode_masks(found)
    offset = 0.0 if classes.skeleton is None else classes.skeleton.offset
    return detection_rows(found, masks, image_id, classes.ids, offset)


def to_pandas(found: Detections, classes: Classes) -> "DataFrame":
    """Return the detections of an image as a pandas DataFrame with a row for each, without masks.

    The columns are ``x1``, ``y1``, ``x2``, ``y2``, ``label``, ``name``, ``score``, and for each keypoint its name with
    ``_x``, ``_y`` and ``_score``. Raises UsageError if pandas is not installed.
    """
    values = to_dict(replace(found, masks=None), classes)
    corners = found.boxes.cpu().numpy()
    columns: dict[str, Any] = {name: corners[:, index] for index, name in enumerate(("x1", "y1", "x2", "y2"))}
    columns |= {"label": values["labels"], "name": values["names"], "score": values["scores"]}
    if found.keypoints is not None:
        points, skeleton = found.keypoints.cpu().numpy(), classes.skeleton
        names = range(points.shape[1]) if skeleton is None else skeleton.names
        for index, name in enumerate(names):
            columns |= {f"{name}_{part}": points[:, index, axis] for axis, part in enumerate(("x", "y", "score"))}
    return _import("pandas").DataFrame(columns)


def to_supervision(found: Detections, classes: Classes) -> Any:
    """Return the detections of an image as ``supervision.Detections``, with class names and full-size masks.

    Masks take a byte per object and pixel of the image. Raises UsageError if supervision is not installed.
    """
    masks = None if found.masks is None else paste_masks(found.masks, found.boxes).cpu().numpy()
    labels = found.labels.cpu().numpy()
    return _import("supervision").Detections(
        xyxy=found.boxes.cpu().numpy(),
        mask=masks,
        confidence=found.scores.cpu().numpy(),
        class_id=labels,
        data={"class_name": np.array([classes.names[label] for label in labels.tolist()], dtype=str)},
    )


def _encode_masks(found: Detections) -> Iterator[dict[str, Any]]:
    """Yield the mask of each detection as compressed RLE of its image."""
    assert found.masks is not None, "the caller has checked it"
    for patch, corner in paste_mask_patches(found.masks, found.boxes):
        yield encode_patch(patch.cpu().numpy(), corner, found.masks.size)


def _import(package: str) -> Any:
    """Import an optional package; raise UsageError if it is missing."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UsageError(f"this needs the package {package}: {error}", f"pip install {package}") from None
