"""Writing a corrected copy of a data set: COCO files, the images, and a log of every change."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ...data import DatasetConfig, build_dataset
from ...data.coco_format.opening import ObjectsConfig, join_inside
from ...formats import write_json, write_text
from ...formats.checks import as_id, is_text
from ...structures import DataError, UsageError
from .fixes import STEPS, Document, remove_leaked_images
from .splits import DataSource

LOG = "changes.jsonl"


@dataclass(frozen=True, slots=True)
class CorrectedCopy:
    """A corrected copy of a data set on disk."""

    folder: Path
    changes: dict[str, int]
    """The number of changes by case."""

    def describe(self) -> str:
        """Describe the copy and its changes in one line."""
        counts = ", ".join(f"{count} {case}" for case, count in sorted(self.changes.items(), key=lambda item: -item[1]))
        return f"{self.folder}: a corrected copy; {counts or 'nothing had to be changed'}; {LOG} lists every change"


def write_corrected_copy(source: DataSource, folder: Path) -> CorrectedCopy:
    """Write a corrected copy of the splits of a detection data set into a new folder in COCO's format.

    The originals are not changed. Images are hard links where the disk allows it, and copies otherwise. Raises
    UsageError if the folder is not empty or the data are not for detection, and DataError for a fault that only a
    person can correct.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("this folder is not empty", "give --fix a new folder", file=folder)
    documents = [_read_document(name, config) for name, config in source.configs.items()]
    for document in documents:
        for step in STEPS:
            step(document)
        if not document.images:
            raise DataError("no image is left after the corrections", "correct the paths of the images",
                            case="empty-dataset", file=source.name)  # fmt: skip
    for document in documents[1:]:
        remove_leaked_images(documents[0], document)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for document in documents:
        for image in document.images:
            _link(document.files[image["id"]], folder / document.split / image["file_name"])
        write_json(folder / "annotations" / f"instances_{document.split}.json", document.content())
        for change in document.changes:
            counts[change["change"]] = counts.get(change["change"], 0) + 1
    lines = [json.dumps(change, default=repr) for document in documents for change in document.changes]
    write_text(folder / LOG, "".join(f"{line}\n" for line in lines))
    return CorrectedCopy(folder, counts)


def _read_document(name: str, config: DatasetConfig) -> Document:
    """Return the annotations of a split as they are written or, for other data sets, as they are opened."""
    if isinstance(config, ObjectsConfig):
        data, _ = config.source().read_document()
        _require_lists(data, config)
        document = Document(
            name, data["images"], data["annotations"], data["categories"], {}, max(config.min_box, 1e-3)
        )
        _find_files(document, config)
        return document
    dataset = build_dataset(config, "skip-any")
    if dataset.task != "detection":
        raise UsageError(f"{name}: only data for detection can be corrected", "correct the class maps by hand")
    data = dataset.ground_truth()
    files = {image_id: Path(dataset.file_name(index)) for index, image_id in enumerate(dataset.image_ids)}
    for image in data["images"]:
        image["file_name"] = f"{image['id']}{files[image['id']].suffix}"
    document = Document(name, data["images"], data["annotations"], data["categories"], files)
    for cases in dataset.report.skipped.values():
        for case, found in cases.items():
            document.changes += [{"split": name, "change": case, "id": item} for item in found.ids]
    return document


def _require_lists(data: object, config: ObjectsConfig) -> None:
    """Raise DataError if a COCO document lacks a section, or two different images have one id."""
    file = config.source().path
    names: dict[object, object] = {}
    for section in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(section), list):
            raise DataError(f"there is no list {section!r}", "give a COCO annotation file",
                            case=f"no-{section}", file=file)  # fmt: skip
    assert isinstance(data, dict), "checked above"
    for image in data["images"]:
        if isinstance(image, dict) and as_id(image.get("id")) is not None:
            image_id, name = image["id"], image.get("file_name")
            if names.setdefault(image_id, name) != name:
                raise DataError(
                    f"two images have this id, {names[image_id]!r} and {name!r}, so nobody knows whose the objects are",
                    "give every image its own id", case="duplicate-image-id", file=file, image_id=image_id,
                )  # fmt: skip


def _find_files(document: Document, config: ObjectsConfig) -> None:
    """Find the image files of a document; names with backslashes or other folders are corrected if a file is there."""
    folder = config.image_folder()
    for image in document.images:
        if not isinstance(image, dict) or not is_text(name := image.get("file_name")) or as_id(image.get("id")) is None:
            continue
        slashes = name.replace("\\", "/")
        for candidate in dict.fromkeys((name, slashes, slashes.rpartition("/")[2])):
            try:
                path = Path(join_inside(folder, candidate, config.allow_outside, image["id"]))
            except DataError:
                continue
            if path.is_file():
                document.files[image["id"]] = path
                if candidate != name:
                    document.set("file-name", image, "file_name", candidate)
                break


def _link(source: Path, target: Path) -> None:
    """Make a hard link to a file, or a copy if it is on another disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
