"""Conversion of data sets of objects from any format that is found from a path to COCO's, VOC's or YOLO's."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..formats import LABEL_FORMATS, segmentation_problem
from ..formats.coco_writer import coco_image_path, write_coco
from ..formats.converted import ConvertedData, ConvertedImage
from ..formats.voc_writer import voc_image_path, write_voc
from ..formats.yolo_writer import write_yolo, yolo_image_path
from ..structures import UsageError
from .dataset import Dataset, DatasetConfig, build_dataset
from .from_path import DataPath, find_format
from .report import Policy

Target = Literal["coco", "voc", "yolo"]
SPLIT_NAMES = {"valid": "val"}
"""The name that a split gets, if it is not its own."""
WHOLE = "train"
"""The name of the only split of data that list none."""


@dataclass(frozen=True, slots=True)
class Writer:
    """How a data set is written in a format."""

    image_path: Callable[[str, str], str]
    """Return where an image of a split with a name is in the folder."""
    write: Callable[[Path, ConvertedData], None]
    """Write the annotations, and count what the format cannot hold."""


WRITERS: dict[Target, Writer] = {
    "coco": Writer(coco_image_path, write_coco),
    "voc": Writer(voc_image_path, write_voc),
    "yolo": Writer(yolo_image_path, write_yolo),
}


def convert_data(
    data: DataPath, out: Path, target: Target, *, link: bool = False, bad_data: Policy = "error"
) -> list[str]:
    """Convert the data set at a path, and return lines that say what was read, written and lost.

    ``out`` is a new or empty folder; it appears when it is complete. Images are copied, or with ``link`` hard-linked.
    Raises UsageError or DataError if the data cannot be read or the folder cannot be written.
    """
    if target not in get_args(Target):
        raise UsageError(f"there is no format {target!r} to convert to", f"choose one of {', '.join(get_args(Target))}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("this folder is not empty", "choose a new folder", file=out)
    configs = _configs_of_splits(data)
    datasets = {name: build_dataset(config, bad_data) for name, config in configs.items()}
    converted, files = _read(datasets)
    lines = [f"{name}: {dataset.report.summary()}" for name, dataset in datasets.items()]
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.absolute().parent) as scratch:
        folder = Path(scratch) / "data"
        folder.mkdir()
        _place_images(folder, files, converted, WRITERS[target], link)
        WRITERS[target].write(folder, converted)
        folder.replace(out)
    lost = [f"{count} x {what}" for what, count in sorted(converted.lost.items()) if count]
    images, objects = sum(map(len, converted.splits.values())), len(converted.all_objects())
    written = f"{out}: {images} images with {objects} objects of {len(converted.categories)} classes"
    return [*lines, written, f"changed or lost in {target}: {', '.join(lost) or 'nothing'}"]


def _configs_of_splits(data: DataPath) -> dict[str, DatasetConfig]:
    """Return the config of each split that the data list, or of all images."""
    found = find_format(data)
    label_format = LABEL_FORMATS.get(found.key)
    if label_format is not None and (splits := label_format.list_splits(data.path)):
        whole = found.configure(data, "all")
        return {SPLIT_NAMES.get(name, name): whole.replace(split=name) for name in splits}
    if found.has_parts(data):
        return {"train": found.configure(data, "train"), "val": found.configure(data, "val")}
    return {WHOLE: found.configure(data, "all")}


def _read(datasets: Mapping[str, Dataset]) -> tuple[ConvertedData, dict[str, list[str]]]:
    """Return the checked annotations of all splits, and the image files of each, in the same order."""
    files = {split: [dataset.file_name(index) for index in range(len(dataset))] for split, dataset in datasets.items()}
    names = iter(unique_names([file for split in files.values() for file in split]))
    categories: list[Mapping[str, Any]] = []
    converted = ConvertedData(categories)
    for split, dataset in datasets.items():
        truth = dataset.ground_truth()
        ids = _merge_categories(categories, truth["categories"])
        objects: dict[Any, list[dict[str, Any]]] = {entry["id"]: [] for entry in truth["images"]}
        for entry in truth["annotations"]:
            objects[entry["image_id"]].append({**entry, "category_id": ids[entry["category_id"]]})
        converted.splits[split] = [
            _image(entry, next(names), objects[entry["id"]], converted) for entry in truth["images"]
        ]
    categories.sort(key=lambda category: category["id"])
    return converted, files


def _merge_categories(categories: list[Mapping[str, Any]], added: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Add the categories of a split to those of the others, and return the id that each of its ids gets."""
    by_name = {category["name"]: category["id"] for category in categories}
    for category in added:
        if category["name"] not in by_name:
            taken = set(by_name.values())
            category_id = category["id"] if category["id"] not in taken else max(taken) + 1
            by_name[category["name"]] = category_id
            categories.append({**category, "id": category_id})
    return {category["id"]: by_name[category["name"]] for category in added}


def _image(
    entry: Mapping[str, Any], name: str, objects: list[dict[str, Any]], converted: ConvertedData
) -> ConvertedImage:
    """Return an image with its objects, without masks that cannot be used."""
    size = (entry["height"], entry["width"])
    for item in objects:
        problem = segmentation_problem(item.get("segmentation"), size)
        if problem is not None:
            converted.lost["mask that cannot be used left out"] += problem.case != "no-mask"
            item.pop("segmentation", None)
    return ConvertedImage(name, size, entry, objects)


def unique_names(files: Sequence[str]) -> list[str]:
    """Return a file name for each image file that is unique without its suffix and without regard to case.

    It is the file's own name, if that is unique; else its path below the common folder, with ``_`` for ``/``; else
    that with the suffix as part of the stem, or with a number.
    """
    paths = [Path(file) for file in files]
    common = os.path.commonpath([path.parent for path in paths]) if paths else ""
    relative = [path.relative_to(common).as_posix().replace("/", "_") for path in paths]
    schemes = (
        [path.name for path in paths],
        relative,
        [f"{name.replace('.', '_')}{path.suffix}" for name, path in zip(relative, paths, strict=True)],
    )
    for names in schemes:
        if len({Path(name).stem.lower() for name in names}) == len(names):
            return names
    return [f"{index:06d}_{path.name}" for index, path in enumerate(paths)]


def _place_images(
    folder: Path, files: Mapping[str, Sequence[str]], converted: ConvertedData, writer: Writer, link: bool
) -> None:
    """Copy or link the images of all splits."""
    for split, images in converted.splits.items():
        for file, image in zip(files[split], images, strict=True):
            target = folder / writer.image_path(split, image.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not link:
                shutil.copyfile(file, target)
                continue
            try:
                os.link(Path(file).resolve(), target)
            except OSError as error:
                what = f"the image cannot be linked: {error.strerror}"
                raise UsageError(what, "leave out --link to copy the images", file=file) from None
