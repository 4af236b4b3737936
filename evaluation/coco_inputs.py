"""Ground truth and results as two COCO data sets that any engine scores alike.

Images, categories and annotations are numbered from 1 in the order of their own ids: pycocotools takes an annotation
with the id 0 for "no match", and engines differ over text ids and over fields that are left out.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from hotcoco import mask as rle

from ..formats.rle import size_problem
from ..formats.segmentations import segmentation_problem
from ..structures import DataError
from .checks import Fault, ResultError, area_problem, box_problem, crowd_problem, id_problem

Task = Literal["bbox", "segm", "boundary"]


@dataclass(frozen=True, slots=True)
class CocoInputs:
    """What an engine is given; ``class_names`` are in the order of the category numbers."""

    truth: dict[str, Any]
    detections: dict[str, Any]
    class_names: tuple[str, ...]


def build_coco_inputs(ground_truth: dict[str, Any], results: list[dict[str, Any]], task: Task) -> CocoInputs:
    """Both data sets in numbers of our own; the inputs stay as they are. ``results`` are checked ones, in their order:
    it breaks ties between equal scores of an image, as it does for the official API.

    DataError for an annotation, or a result without a mask, that the task cannot use.
    """
    image_numbers = _number_ids(ground_truth["images"], "image")
    category_numbers = _number_ids(ground_truth["categories"], "category")
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    # Boxes are scored without the size of the image, so annotations that do not tell it will do.
    sizes = {} if task == "bbox" else _image_sizes(ground_truth["images"])
    shared = {
        "images": [{"id": number} | _sides(sizes.get(identity)) for identity, number in image_numbers.items()],
        "categories": [{"id": number, "name": names[identity]} for identity, number in category_numbers.items()],
    }

    def place(number: int, entry: dict[str, Any]) -> dict[str, int]:
        image, category = image_numbers[entry["image_id"]], category_numbers[entry["category_id"]]
        return {"id": number, "image_id": image, "category_id": category}

    annotations = []
    for number, annotation in enumerate(ground_truth["annotations"], start=1):
        fault = _annotation_fault(annotation, image_numbers.keys(), category_numbers.keys(), sizes)
        if fault is not None:
            raise _annotation_error(number - 1, annotation, fault)
        annotations.append(place(number, annotation) | _true_shape(annotation, sizes.get(annotation["image_id"])))
    detections = []
    for number, result in enumerate(results, start=1):
        fault = _shape_fault(result, sizes.get(result["image_id"]))
        if fault is not None:
            raise ResultError.of(number - 1, result, ("no-shape", fault))
        shape = _found_box(result) if task == "bbox" else _found_mask(result)
        detections.append(place(number, result) | shape | {"score": result["score"], "iscrowd": 0})
    return CocoInputs(
        shared | {"annotations": annotations}, shared | {"annotations": detections},
        tuple(category["name"] for category in shared["categories"]),
    )  # fmt: skip


def _number_ids(entries: list[dict[str, Any]], kind: str) -> dict[int | str, int]:
    """1, 2, ... for each id, in the order of the ids."""
    identities = [entry["id"] for entry in entries]
    if len(set(identities)) < len(identities):
        twice = next(identity for identity in identities if identities.count(identity) > 1)
        raise DataError(f"two entries have the {kind} id {twice!r}", "give each its own", case=f"duplicate-{kind}-id")
    ordered = sorted(identities, key=lambda identity: (isinstance(identity, str), identity))
    return {identity: number for number, identity in enumerate(ordered, start=1)}


def _image_sizes(images: list[dict[str, Any]]) -> dict[int | str, tuple[int, int]]:
    """(height, width) by image id; without them a polygon cannot be drawn."""
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


def _annotation_fault(
    annotation: dict[str, Any],
    image_ids: Set[int | str],
    category_ids: Set[int | str],
    sizes: Mapping[int | str, tuple[int, int]],
) -> Fault | None:
    """What is wrong with an annotation, if anything: it must be about something known, and have its shape, which is a
    mask where there are ``sizes`` of images, otherwise a box."""
    image_id: Any = annotation.get("image_id")
    area = annotation.get("area")
    return (
        id_problem("image", image_id, image_ids)
        or id_problem("category", annotation.get("category_id"), category_ids)
        or crowd_problem(annotation.get("iscrowd", 0))
        or (image_id in sizes and segmentation_problem(annotation.get("segmentation"), sizes[image_id]))
        or (area is not None and area_problem(area))
        or (not sizes and box_problem(annotation.get("bbox")))
        or None
    )


def _annotation_error(row: int, annotation: dict[str, Any], fault: Fault) -> DataError:
    """It tells the annotation by its id, and one without by its row."""
    (case, what), image_id, identity = fault, annotation.get("image_id"), annotation.get("id")
    return DataError(
        f"the annotation {what}", "correct the annotations", case=case,
        image_id=image_id if isinstance(image_id, int | str) else None,
        annotation_id=identity if isinstance(identity, int | str) else f"row {row}",
    )  # fmt: skip


def _true_shape(annotation: dict[str, Any], size: tuple[int, int] | None) -> dict[str, Any]:
    """What the engine matches: the mask where the image's (height, width) is given, otherwise the box. The area, which
    decides small, medium and large, is that of the same shape where none is given, as it is of what was found."""
    shape, area = ("bbox" if size is None else "segmentation"), annotation.get("area")
    if area is None:
        area = _box_area(annotation["bbox"]) if size is None else _mask_area(annotation["segmentation"], size)
    return {shape: annotation[shape], "area": area, "iscrowd": int(annotation.get("iscrowd", 0))}


def _box_area(box: Sequence[Any]) -> float:
    """Of x, y, width and height."""
    return float(box[2] * box[3])


def _mask_area(segmentation: Any, size: tuple[int, int]) -> float:
    """In pixels; those of several polygons are joined."""
    encoded = rle.frPyObjects(segmentation, *size)
    return float(rle.area(rle.merge(encoded) if isinstance(encoded, list) else encoded))


def _shape_fault(result: dict[str, Any], size: tuple[int, int] | None) -> str | None:
    """Why the task has nothing to compare: masks where the image's (height, width) is given, otherwise boxes."""
    if size is None:
        return None if "bbox" in result else "has no bbox to score"
    if "segmentation" not in result:
        return "has no segmentation to score"
    own = tuple(result["segmentation"]["size"])
    return None if own == size else f"has a mask of (height, width) {list(own)} in an image of {list(size)}"


def _found_box(result: dict[str, Any]) -> dict[str, Any]:
    return {"bbox": result["bbox"], "area": _box_area(result["bbox"])}


def _found_mask(result: dict[str, Any]) -> dict[str, Any]:
    """The mask and its own area, also where a box is given (the box's area would put it in another size range)."""
    mask = result["segmentation"]
    counts = mask["counts"].decode("ascii") if isinstance(mask["counts"], bytes) else mask["counts"]
    compressed: Any = {"size": mask["size"], "counts": counts}
    return {"segmentation": compressed, "area": float(rle.area(compressed))}
