"""Converting ground truth and results to COCO data sets that pycocotools and hotcoco score identically.

Images, categories and annotations are renumbered from 1 in the order of their ids, and optional fields are filled in:
pycocotools confuses the annotation id 0 with "no match", and the engines differ in text ids and in missing fields.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..formats.detections import checked_mask_areas
from ..formats.rle import size_problem
from ..structures import DataError
from .coco_columns import Columns, IdNumbers, Sizes, read_annotation_columns, read_result_columns
from .keypoints import keypoint_names

Task = Literal["bbox", "segm", "boundary", "keypoints"]
Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class CocoInputs:
    """Ground truth and detections for an engine; ``class_names`` are in the order of the new category ids 1, 2, ..."""

    images: list[dict[str, Any]]
    """The ``images`` of both data sets, with new ids from 1."""
    truths: Columns
    found: Columns
    """The detections."""
    class_names: tuple[str, ...]
    keypoint_names: tuple[str, ...] = ()
    """The names of the keypoints; empty if keypoints are not scored."""

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The ``categories`` of both data sets."""
        return [{"id": number, "name": name} for number, name in enumerate(self.class_names, start=1)]

    @property
    def ground_truth(self) -> dict[str, Any]:
        """The ground truth as a dict in COCO's format."""
        return {"images": self.images, "categories": self.categories, "annotations": self.truths.entries()}

    @property
    def detections(self) -> dict[str, Any]:
        """The detections as a dict in COCO's format."""
        return {"images": self.images, "categories": self.categories, "annotations": self.found.entries()}


def build_coco_inputs(ground_truth: dict[str, Any], results: list[dict[str, Any]], task: Task) -> CocoInputs:
    """Return both data sets with ids renumbered from 1; the arguments are not changed.

    The order of ``results`` breaks ties between equal scores in an image, as in pycocotools. For keypoints, classes
    without keypoints are left out. Raises DataError for an invalid annotation or result, and for a result without the
    box, mask or keypoints that ``task`` needs.
    """
    areas = checked_mask_areas(results, ground_truth)
    names = keypoint_names(ground_truth["categories"]) if task == "keypoints" else ()
    scored = [category for category in ground_truth["categories"] if not names or category.get("keypoints")]
    class_names = {entry["id"]: entry["name"] for entry in scored}
    numbers = IdNumbers(
        _number_ids(ground_truth["images"], "image"),
        _number_ids(ground_truth["categories"], "category"),
        _number_ids(scored, "category"),
        _image_sizes(ground_truth["images"]) if task in ("segm", "boundary") else {},
        len(names),
    )
    images = [{"id": number, **_sides(numbers.sizes.get(image_id))} for image_id, number in numbers.images.items()]
    truths = read_annotation_columns(ground_truth["annotations"], numbers)
    found = read_result_columns(results, numbers, areas)
    return CocoInputs(images, truths, found, tuple(class_names[key] for key in numbers.categories), names)


def group_entries(entries: Entries) -> defaultdict[tuple[int, int], list[Mapping[str, Any]]]:
    """Group annotations or detections by (image id, category id)."""
    groups = defaultdict(list)
    for entry in entries:
        groups[entry["image_id"], entry["category_id"]].append(entry)
    return groups


def _number_ids(entries: list[dict[str, Any]], noun: str) -> dict[int | str, int]:
    """Return the new number of each id: 1, 2, ... in sorted order; raise DataError for a duplicate id."""
    ids = [entry["id"] for entry in entries]
    if len(set(ids)) < len(ids):
        duplicate = next(entry_id for entry_id in ids if ids.count(entry_id) > 1)
        case = f"duplicate-{noun}-id"
        raise DataError(f"two entries have the {noun} id {duplicate!r}", "give each a unique id", case=case)
    ordered = sorted(ids, key=lambda entry_id: (isinstance(entry_id, str), entry_id))
    return {entry_id: number for number, entry_id in enumerate(ordered, start=1)}


def _image_sizes(images: list[dict[str, Any]]) -> Sizes:
    """Return (height, width) by image id, which masks need; raise DataError if an image has none."""
    sizes = {}
    for image in images:
        size = image.get("height"), image.get("width")
        fault = size_problem(size)
        if fault is not None:
            fix = "correct its height and width in the annotations, which masks need"
            raise DataError(f"the image {fault}", fix, case="bad-size", image_id=image["id"])
        sizes[image["id"]] = size
    return sizes


def _sides(size: tuple[int, int] | None) -> dict[str, int]:
    return {} if size is None else {"height": size[0], "width": size[1]}
