"""Converting ground truth and results to COCO data sets that pycocotools and hotcoco score identically.

Images, categories and annotations are renumbered from 1 in the order of their ids, and optional fields are filled in:
pycocotools confuses the annotation id 0 with "no match", and the engines differ in text ids and in missing fields.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..formats.checks import KnownIds, Problem, area_problem, box_problem, crowd_problem, id_problem, keypoints_problem
from ..formats.results import GROUND_TRUTH, ResultError
from ..formats.rle import encode_segmentation, mask_areas, size_problem
from ..formats.segmentations import segmentation_problem
from ..structures import DataError
from .keypoints import keypoint_names, predicted_keypoints

Task = Literal["bbox", "segm", "boundary", "keypoints"]
Entries = Sequence[Mapping[str, Any]]
Sizes = Mapping[int | str, tuple[int, int]]
"""(height, width) by image id; empty if boxes or keypoints are scored, since these need no sizes."""


@dataclass(frozen=True, slots=True)
class CocoInputs:
    """Ground truth and detections for an engine; ``class_names`` are in the order of the new category ids 1, 2, ..."""

    ground_truth: dict[str, Any]
    detections: dict[str, Any]
    class_names: tuple[str, ...]
    keypoint_names: tuple[str, ...] = ()
    """The names of the keypoints; empty if keypoints are not scored."""


def build_coco_inputs(ground_truth: dict[str, Any], results: list[dict[str, Any]], task: Task) -> CocoInputs:
    """Return both data sets with ids renumbered from 1; the arguments are not changed.

    ``results`` must have passed ``check_results``. Their order breaks ties between equal scores in an image, as in
    pycocotools. For keypoints, classes without keypoints are left out. Raises DataError for an invalid annotation, and
    for a result without the box, mask or keypoints that ``task`` needs.
    """
    image_numbers = _number_ids(ground_truth["images"], "image")
    all_categories = _number_ids(ground_truth["categories"], "category")
    names = keypoint_names(ground_truth["categories"]) if task == "keypoints" else ()
    scored = [category for category in ground_truth["categories"] if not names or category.get("keypoints")]
    category_numbers, class_names = _number_ids(scored, "category"), {entry["id"]: entry["name"] for entry in scored}
    sizes = _image_sizes(ground_truth["images"]) if task in ("segm", "boundary") else {}
    shared = {
        "images": [{"id": number, **_sides(sizes.get(image_id))} for image_id, number in image_numbers.items()],
        "categories": [{"id": number, "name": class_names[key]} for key, number in category_numbers.items()],
    }

    def numbered(number: int, entry: dict[str, Any]) -> dict[str, int]:
        image, category = image_numbers[entry["image_id"]], category_numbers[entry["category_id"]]
        return {"id": number, "image_id": image, "category_id": category}

    known = KnownIds.of(image_numbers, GROUND_TRUTH), KnownIds.of(all_categories, GROUND_TRUTH)
    annotations = []
    for number, annotation in enumerate(ground_truth["annotations"], start=1):
        problem = _annotation_problem(annotation, *known)
        if problem is None and annotation["category_id"] in category_numbers:
            problem = _truth_problem(annotation, sizes, len(names))
        if problem is not None:
            raise _annotation_error(number - 1, annotation, problem)
        if annotation["category_id"] in category_numbers:
            fields = _truth_fields(annotation, sizes.get(annotation["image_id"]), len(names))
            annotations.append(numbered(number, annotation) | fields)
    detections = []
    for number, result in enumerate(results, start=1):
        if result["category_id"] not in category_numbers:
            continue
        problem = _shape_problem(result, sizes.get(result["image_id"]), len(names))
        if problem is not None:
            raise ResultError.of(number - 1, result, problem)
        shape = _predicted_shape(result, task)
        detections.append(numbered(number, result) | shape | {"score": result["score"], "iscrowd": 0})
    return CocoInputs(
        shared | {"annotations": annotations}, shared | {"annotations": detections},
        tuple(category["name"] for category in shared["categories"]), names,
    )  # fmt: skip


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


def _annotation_problem(annotation: dict[str, Any], image_ids: KnownIds, category_ids: KnownIds) -> Problem | None:
    """Check the ids of an annotation, its crowd flag and its area; return None if they are valid."""
    return (
        id_problem("image", annotation.get("image_id"), image_ids)
        or id_problem("category", annotation.get("category_id"), category_ids)
        or crowd_problem(annotation.get("iscrowd", 0))
        or area_problem(annotation.get("area"))
    )


def _truth_problem(annotation: dict[str, Any], sizes: Sizes, keypoints: int) -> Problem | None:
    """Check the fields of an annotation that are scored; return None if they are valid.

    This is the mask if ``sizes`` is not empty, and otherwise the box. Keypoints are checked too if their number,
    ``keypoints``, is not 0.
    """
    if sizes:
        return segmentation_problem(annotation.get("segmentation"), sizes[annotation["image_id"]])
    box = box_problem(annotation.get("bbox"))
    if box is not None:
        return Problem("bad-box", box.what)
    if not keypoints:
        return None
    return keypoints_problem(annotation.get("keypoints"), annotation.get("num_keypoints"), keypoints)


def _annotation_error(row: int, annotation: dict[str, Any], problem: Problem) -> DataError:
    """Return the DataError for an annotation, naming its id, or its row if it has no id."""
    image_id, annotation_id = annotation.get("image_id"), annotation.get("id")
    return DataError(
        f"the annotation {problem.what}", "correct the annotations", case=problem.case,
        image_id=image_id if isinstance(image_id, int | str) else None,
        annotation_id=annotation_id if isinstance(annotation_id, int | str) else f"row {row}",
    )  # fmt: skip


def _truth_fields(annotation: dict[str, Any], size: tuple[int, int] | None, keypoints: int) -> dict[str, Any]:
    """Return the fields of an annotation that the engine reads: box or mask, keypoints, area and ``iscrowd``.

    The mask is used if ``size``, the image's (height, width), is given, otherwise the box. A missing area, which
    decides between small, medium and large, is that of this box or mask, as for results. ``keypoints`` is the number of
    keypoints; missing ones are not labeled.
    """
    shape, area = ("bbox" if size is None else "segmentation"), annotation.get("area")
    if area is None:
        value = annotation[shape]
        area = _box_area(value) if size is None else float(mask_areas([encode_segmentation(value, size)])[0])
    fields = {shape: annotation[shape], "area": area, "iscrowd": int(annotation.get("iscrowd", 0))}
    if keypoints:
        fields["keypoints"] = annotation.get("keypoints") or [0] * (3 * keypoints)
        fields["num_keypoints"] = sum(visibility > 0 for visibility in fields["keypoints"][2::3])
    return fields


def _box_area(box: Sequence[Any]) -> float:
    """Return the area of a box (x, y, width, height)."""
    return float(box[2] * box[3])


def _shape_problem(result: dict[str, Any], size: tuple[int, int] | None, keypoints: int) -> Problem | None:
    """Return why a result cannot be scored; None if it can.

    It needs keypoints if their number, ``keypoints``, is not 0, else a mask if ``size`` is given, else a box.
    """
    if keypoints:
        count = len(result.get("keypoints", ())) // 3
        what = f"has {count} keypoints, but the ground truth has {keypoints}"
        return None if count == keypoints else Problem("no-shape", what)
    if size is None:
        return None if "bbox" in result else Problem("no-shape", "has no bbox to score")
    if "segmentation" not in result:
        return Problem("no-shape", "has no segmentation to score")
    mask_size = tuple(result["segmentation"]["size"])
    if mask_size == size:
        return None
    return Problem("no-shape", f"has a mask of size {list(mask_size)} in an image of size {list(size)} (height, width)")


def _predicted_shape(result: dict[str, Any], task: Task) -> dict[str, Any]:
    """Return the fields of a result that are scored (keypoints, box or mask), with its area."""
    if task == "keypoints":
        return predicted_keypoints(result)
    if task == "bbox":
        return {"bbox": result["bbox"], "area": _box_area(result["bbox"])}
    return _predicted_mask(result)


def _predicted_mask(result: dict[str, Any]) -> dict[str, Any]:
    """Return the mask and its area, which is used even if the result has a box: boxes have larger areas."""
    mask = result["segmentation"]
    counts = mask["counts"].decode("ascii") if isinstance(mask["counts"], bytes) else mask["counts"]
    compressed: Any = {"size": mask["size"], "counts": counts}
    return {"segmentation": compressed, "area": float(mask_areas([compressed])[0])}
