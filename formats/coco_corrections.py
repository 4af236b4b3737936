"""Corrections of COCO entries that annotation tools write in another form, where there is no doubt what is meant."""

from typing import Any

from .segmentations import FEWEST_NUMBERS

_WHOLE_NUMBERS = ("id", "image_id", "category_id", "height", "width", "iscrowd")
_CROWDS = {None: 0, "0": 0, "1": 1}


def correct_entry(entry: dict[str, Any]) -> list[str]:
    """Correct an entry of ``images``, ``annotations`` or ``categories`` in place; return the cases to count.

    ``whole-float``: an id, a size or iscrowd is a whole number written as a float (1.0). ``corrected-crowd``: iscrowd
    is null or text. ``dropped-polygon``: a polygon of an object has fewer than three points or an odd number of
    coordinates, but another polygon of the object is usable.
    """
    cases = []
    for name in _WHOLE_NUMBERS:
        value = entry.get(name)
        if type(value) is float and value.is_integer():
            entry[name] = int(value)
            cases.append("whole-float")
    if "iscrowd" in entry and (entry["iscrowd"] is None or isinstance(entry["iscrowd"], str)):
        crowd = _CROWDS.get(entry["iscrowd"])
        if crowd is not None:
            entry["iscrowd"] = crowd
            cases.append("corrected-crowd")
    polygons = entry.get("segmentation")
    if isinstance(polygons, list):
        kept = [polygon for polygon in polygons if not _has_no_area(polygon)]
        if 0 < len(kept) < len(polygons):
            entry["segmentation"] = kept
            cases.append("dropped-polygon")
    return cases


def correct_document(data: dict[str, Any]) -> None:
    """Correct all entries of the content of a COCO file in place, see :func:`correct_entry`."""
    for section in ("images", "annotations", "categories"):
        for entry in data[section]:
            if isinstance(entry, dict):
                correct_entry(entry)


def _has_no_area(polygon: Any) -> bool:
    """Return whether a polygon is a list with fewer than three points, or with an odd number of coordinates."""
    return isinstance(polygon, list) and (len(polygon) < FEWEST_NUMBERS or len(polygon) % 2 == 1)
