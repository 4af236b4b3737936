"""Classification data with one folder per class: the layout of torchvision's ImageFolder and of unpacked ImageNet."""

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field

from ..formats import IMAGE_SUFFIXES, ImagePair, check_image, read_pairs
from ..structures import DataError, UsageError, suggest
from .dataset import DATASETS, Dataset
from .file_checks import check_files_once
from .image_files import ImageFilesConfig, read_image_record
from .report import DataReport, Policy
from .types import Record

SPLIT_FOLDERS = frozenset({"train", "val", "valid", "validation", "test"})
"""The names of folders that hold parts of a data set, each with a folder per class."""


class ImageFolderConfig(ImageFilesConfig):
    """A classification data set with one folder per class, and images at any depth in it: ``root/CLASS/.../IMAGE``."""

    name: Literal["image_folder"] = "image_folder"
    root: Path
    class_names: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The class folders to use, in the order of their labels; None takes all, sorted by name."""
    subset: int | None = Field(default=None, gt=0)
    """Use only this number of images, evenly spaced over the sorted list of all images."""
    pairs: Path | None = None
    """A file of image pairs in the format of LFW's ``pairs.txt``, for the verification scores of embeddings. Image 1 of
    the class ``NAME`` is the file ``NAME/NAME_0001`` with any suffix."""

    def classes(self) -> tuple[str, ...]:
        """Return ``class_names``; raise UsageError if it is None."""
        return self.class_names if self.class_names is not None else super().classes()


@DATASETS.register("image_folder", ImageFolderConfig)
class ImageFolder(Dataset):
    """A classification data set of images in class folders.

    The id of an image is its path below the root. Hidden folders are skipped.
    """

    task: ClassVar[str] = "classification"

    def __init__(self, policy: Policy, config: ImageFolderConfig) -> None:
        self.config = config
        self.report = report = DataReport(policy, config.root, kinds=("images",))
        self.class_names = _choose_classes(config.root, config.class_names)
        self.category_ids = tuple(range(len(self.class_names)))
        names, labels = _list_images(config.root, self.class_names, report)
        if len(self.class_names) == 1:
            report.warnings.append("there is only one class, so nothing can be learned: every image has the same label")
        if config.subset is not None and config.subset < len(names):
            chosen = [number * len(names) // config.subset for number in range(config.subset)]
            names, labels = [names[index] for index in chosen], [labels[index] for index in chosen]
        for label in sorted(set(range(len(self.class_names))) - set(labels)):
            report.note("empty-class", self.class_names[label])
        report.read["images"] = len(names) + report.skipped_count("images")
        folder = os.fspath(config.root)

        def check(index: int) -> list[str]:
            path = os.path.join(folder, names[index])  # noqa: PTH118 - a Path takes longer than the check
            return check_image(path, None, names[index])

        usable = check_files_once(config.root, names, check, report)
        report.require_usable(int(usable.sum()), "check the path and the classes")
        names = list(itertools.compress(names, usable.tolist()))
        self.image_ids = names
        # Arrays and not lists, since worker processes can share their memory.
        self._names = np.array([os.fsencode(name) for name in names])
        self._labels = np.array(labels, np.int64)[usable]
        self.pairs = [] if config.pairs is None else _find_pairs(config.pairs, names, report)

    def __len__(self) -> int:
        return len(self._names)

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Return the (image index, label) pairs of all images."""
        return np.stack([np.arange(len(self)), self._labels], axis=1)

    def file_name(self, index: int) -> str:
        return os.fspath(self._path(os.fsdecode(self._names[index].item())))

    def read_image(self, index: int) -> Record:
        name = os.fsdecode(self._names[index].item())
        return read_image_record(self._path(name), name, self.config.decode_short_side)

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the label of the image to its record."""
        return replace(record, label=self._labels[index].item())

    def ground_truth(self) -> dict[Any, Any]:
        """Return a dict from image id to label."""
        return dict(zip(self.image_ids, self._labels.tolist(), strict=True))

    def _path(self, name: str) -> Path:
        return self.config.root / name


def _choose_classes(root: Path, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names of the class folders to use, in the order of their labels; None as ``wanted`` takes all.

    Raises DataError if there are no class folders, and UsageError if a wanted one is missing.
    """
    try:
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"the folder cannot be listed: {error.strerror}", "check the path", case="missing-folder", file=root
        ) from error
    if not folders:
        raise DataError(
            "there are no class folders in it", "give the folder that holds one folder per class",
            case="no-classes", file=root,
        )  # fmt: skip
    if wanted is None and "train" in folders and SPLIT_FOLDERS.issuperset(folders):
        raise UsageError(
            f"its folders are {' and '.join(folders)}, which are parts of a data set and no classes",
            f"give {root / 'train'}", file=root,
        )  # fmt: skip
    for name in wanted or ():
        if name not in folders:
            raise UsageError(f"there is no class folder {name!r}", suggest(name, folders), file=root)
    return tuple(folders) if wanted is None else wanted


def _list_images(root: Path, class_names: Sequence[str], report: DataReport) -> tuple[list[str], list[int]]:
    """Return the sorted paths of the images below the root, and their labels; other files are counted in the report.

    Under the policy "error", raises DataError for an empty class folder.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    names: list[str] = []
    labels: list[int] = []
    for name in _files_below(root, report):
        folder, slash, _ = name.partition("/")
        if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:  # noqa: PTH122 - ImageNet has a million names
            report.note("stray-file", name)
        elif not slash:
            what = "the image lies in no class folder"
            report.reject(
                "images", DataError(what, "move it into one", case="no-class", file=root / name, image_id=name)
            )
        elif folder not in label_of:
            report.skip("images", "other-class", name)
        else:
            names.append(name)
            labels.append(label_of[folder])
    for label in sorted(set(label_of.values()) - set(labels)):
        if report.policy == "error":
            raise DataError(
                "there is no image in this class folder", "add some, or leave it out by class_names",
                case="empty-class", file=root / class_names[label],
            )  # fmt: skip
    return names, labels


def _find_pairs(path: Path, image_ids: Sequence[str], report: DataReport) -> list[ImagePair]:
    """Read a file of pairs, and replace the names of its images by their image ids.

    Raises DataError for a pair with a missing image, or with one that several files have with different suffixes.
    Under the other policies than "error", leaves the pair out and counts it.
    """
    ids_of_name = defaultdict(list)
    for image_id in image_ids:
        ids_of_name[image_id.rpartition(".")[0]].append(image_id)
    pairs = []
    for pair in read_pairs(path):
        found = {str(name): ids_of_name.get(str(name), []) for name in (pair.first, pair.second)}
        missing = [name for name, ids in found.items() if not ids]
        ambiguous = [name for name, ids in found.items() if len(ids) > 1]
        if not missing and not ambiguous:
            (first,), (second,) = found.values()
            pairs.append(replace(pair, first=first, second=second))
        elif report.policy != "error":
            report.note("pair-without-image" if missing else "ambiguous-pair", (missing or ambiguous)[0])
        elif not missing:
            files = " and ".join(found[ambiguous[0]])
            raise DataError(
                f"line {pair.line} names an image that is in several files, {files}", "remove all but one of them",
                case="ambiguous-pair", file=path, image_id=ambiguous[0],
            )  # fmt: skip
        else:
            raise DataError(
                f"line {pair.line} names an image that is not in the data set", "correct the line, or add the image",
                case="missing-image", file=path, image_id=missing[0],
            )  # fmt: skip
    if not pairs:
        what = "no pair of the file has both its images in the data set"
        raise DataError(what, "check the file and the folder", case="no-pairs", file=path)
    return pairs


def _files_below(root: Path, report: DataReport) -> Iterator[str]:
    """Yield the sorted paths of all files below the root; raise DataError if a folder cannot be listed.

    Links to folders are followed, except for links to a parent folder, which are counted in the report.
    """

    def refuse(error: OSError) -> None:
        raise DataError(
            f"the folder cannot be listed: {error.strerror}", "check its permissions",
            case="unreadable-folder", file=error.filename,
        ) from error  # fmt: skip

    for parent, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for loop in [folder for folder in folders if _is_link_to_parent(Path(parent, folder), root)]:
            report.note("link-loop", Path(parent, loop).relative_to(root).as_posix())
            folders.remove(loop)
        below = Path(parent).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        yield from (prefix + file for file in sorted(files))


def _is_link_to_parent(folder: Path, root: Path) -> bool:
    """Return whether a folder is a link to the root or to another of its parent folders below the root."""
    parents = [parent for parent in folder.parents if parent.is_relative_to(root)]
    return any(folder.samefile(parent) for parent in parents)
