"""Writing of a data set as COCO files: ``images/NAME`` and ``annotations/instances_SPLIT.json``."""

import json
from pathlib import Path
from typing import Any

from .converted import ConvertedData, ConvertedImage
from .json_files import write_text
from .rle import encode_segmentation, mask_areas


def coco_image_path(split: str, name: str) -> str:
    """Return where an image is in the folder of the data set."""
    return f"images/{name}"


def write_coco(folder: Path, data: ConvertedData) -> None:
    """Write the annotation file of each split. Image ids that are not numbers are replaced by 1, 2, ...

    A missing area becomes that of the mask or, without one, of the box.
    """
    (folder / "annotations").mkdir()
    number = 0
    for split, images in data.splits.items():
        keep = all(isinstance(image.entry["id"], int) for image in images)
        entries: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for position, image in enumerate(images, start=1):
            image_id = image.entry["id"] if keep else position
            height, width = image.size
            entries.append({**image.entry, "id": image_id, "file_name": image.name, "height": height, "width": width})
            for entry in image.objects:
                number += 1
                annotations.append({**entry, "id": number, "image_id": image_id, "area": _area(entry, image)})
        content = {"info": {}, "images": entries, "annotations": annotations, "categories": list(data.categories)}
        write_text(folder / "annotations" / f"instances_{split}.json", json.dumps(content) + "\n")


def _area(entry: Any, image: ConvertedImage) -> float:
    """Return the area of an object in square pixels."""
    if entry.get("area") is not None:
        return float(entry["area"])
    if entry.get("segmentation"):
        return float(mask_areas([encode_segmentation(entry["segmentation"], image.size)])[0])
    return float(entry["bbox"][2] * entry["bbox"][3])
