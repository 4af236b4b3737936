"""Writing of a data set in PASCAL VOC's layout: ``JPEGImages``, ``Annotations``, ``ImageSets/Main``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ..structures import UsageError
from .converted import ConvertedData, corners
from .json_files import write_text

SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class VocEntry:
    """An object of an annotation file."""

    name: str
    box: Sequence[int | float]
    """xmin, ymin, xmax, ymax: pixels are counted from 1, and both ends are included."""
    truncated: bool = False
    difficult: bool = False


def voc_annotation_xml(
    file_name: str, size: tuple[int, int, int], entries: Sequence[VocEntry], segmented: bool
) -> bytes:
    """Return the XML of an annotation file; ``size`` is the (height, width, channels) of the image."""
    root = ElementTree.Element("annotation")
    _fill(root, folder="voc", filename=file_name)
    height, width, depth = size
    _fill(ElementTree.SubElement(root, "size"), width=width, height=height, depth=depth)
    _fill(root, segmented=int(segmented))
    for entry in entries:
        element = ElementTree.SubElement(root, "object")
        _fill(element, name=entry.name, pose="Unspecified")
        _fill(element, truncated=int(entry.truncated), difficult=int(entry.difficult))
        sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), entry.box, strict=True))
        _fill(ElementTree.SubElement(element, "bndbox"), **sides)
    ElementTree.indent(root)
    return ElementTree.tostring(root) + b"\n"


def _fill(element: ElementTree.Element, **texts: str | int | float) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(element, tag).text = str(text)


def voc_image_path(split: str, name: str) -> str:
    """Return where an image is in the folder of the data set; raise UsageError for a type that VOC does not have."""
    if Path(name).suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"a VOC folder holds .jpg and .png images, not {name!r}", "convert the images, or choose --to coco"
        )
    return f"JPEGImages/{name}"


def write_voc(folder: Path, data: ConvertedData) -> None:
    """Write the annotations, the list of each split, and class_names.txt.

    Crowds become difficult objects; masks and keypoints are counted as lost.
    """
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    names = {category["id"]: str(category["name"]) for category in data.categories}
    for split, images in data.splits.items():
        for image in images:
            entries = [_entry(entry, names, data) for entry in image.objects]
            stem = Path(image.name).stem
            content = voc_annotation_xml(image.name, (*image.size, 3), entries, segmented=False)
            (folder / "Annotations" / f"{stem}.xml").write_bytes(content)
        text = "".join(f"{Path(image.name).stem}\n" for image in images)
        write_text(folder / "ImageSets" / "Main" / f"{split}.txt", text)
    write_text(folder / "class_names.txt", "".join(f"{name}\n" for name in names.values()))


def _entry(entry: Mapping, names: Mapping[int, str], data: ConvertedData) -> VocEntry:
    """Return the object of an annotation."""
    x1, y1, x2, y2 = corners(entry)
    crowd = bool(entry.get("iscrowd"))
    data.lost["mask left out"] += bool(entry.get("segmentation"))
    data.lost["keypoints left out"] += bool(entry.get("keypoints"))
    data.lost["crowd written as a difficult object"] += crowd and "difficult" not in entry
    return VocEntry(names[entry["category_id"]], (x1 + 1, y1 + 1, x2, y2), difficult=crowd)
