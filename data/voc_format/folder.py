"""The folders of PASCAL VOC, and what the data sets in them have in common: their images.

``ImageSets/TASK/SPLIT.txt`` has an image a line by its stem; its files are ``JPEGImages/STEM.jpg`` (or ``.jpeg``, or
``.png``: the first that is there), ``Annotations/STEM.xml`` and ``SegmentationClass/STEM.png``. What an annotation
says of its image's file name is often out of date, and is not looked at.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from ...formats import read_voc_list
from ...structures import DataError
from ..dataset import Dataset
from ..image_files import ImageFilesConfig, read_image_record
from ..report import DataReport
from ..types import Record

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 object classes of PASCAL VOC, in the order of the values of its masks, where 0 is the background."""
BACKGROUND = "background"
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


class VocFolderConfig(ImageFilesConfig):
    """Which images of which folders."""

    root: Path
    """The folder that holds ``ImageSets`` and ``JPEGImages``, or one that holds several such folders."""
    splits: tuple[str, ...] = Field(min_length=1)
    """Lists in ``ImageSets``, as in ``("trainval",)``. Of folders in the root, as in ``("VOC2007/trainval",
    "VOC2012/trainval")``: then the folder is a part of the image id (``VOC2007/000005``), so that ids are unique."""
    class_names: tuple[str, ...] | None = Field(default=None, min_length=1)
    """None takes those of ``class_names.txt`` in the root (one a line), and where there is no such file VOC's."""
    subset: int | None = Field(default=None, gt=0)
    """The first images only."""
    allow_outside: bool = False
    """Accept images that lie outside their folder: links, or a path in a list."""

    def classes(self) -> tuple[str, ...]:
        """Return the class names that the config states; UsageError where it states none."""
        return self.class_names if self.class_names is not None else super().classes()


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One line of a list."""

    folder: Path
    stem: str
    image_id: str

    def find_file(self, allow_outside: bool) -> Path:
        """Return the path of the image; DataError where there is none, or where it lies outside its folder."""
        folder = self.folder / "JPEGImages"
        candidates = (folder / f"{self.stem}{suffix}" for suffix in SUFFIXES)
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            raise DataError(
                "the image is listed, but there is no such .jpg, .jpeg or .png file", "check the list and the folder",
                case="missing-image", file=folder / self.stem, image_id=self.image_id,
            )  # fmt: skip
        if not allow_outside and not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(
                f"the file lies outside {folder}", "set allow_outside if it may",
                case="outside-root", file=path, image_id=self.image_id,
            )  # fmt: skip
        return path


def list_images(config: VocFolderConfig, task: str, report: DataReport) -> list[ListedImage]:
    """Return the images of all splits in order, each once; ``task`` is the folder of the lists, ``Main`` or
    ``Segmentation``."""
    images: dict[str, ListedImage] = {}
    for split in config.splits:
        below, _, name = split.rpartition("/")
        folder = config.root / below
        for stem in read_voc_list(folder / "ImageSets" / task, name):
            image_id = f"{below}/{stem}" if below else stem
            if image_id in images:
                report.note("listed-twice", image_id)
            images[image_id] = ListedImage(folder, stem, image_id)
    return list(images.values())[: config.subset]


class VocImages(Dataset):
    """The listed images of a folder that can be used; a subclass adds their annotations."""

    config: VocFolderConfig

    def _keep_images(self, image_ids: Sequence[str], paths: Sequence[str | os.PathLike[str]]) -> None:
        """Keep ids and paths as arrays, which the processes of a loader share with their parent."""
        self.image_ids = list(image_ids)
        self._ids = np.array([image_id.encode() for image_id in image_ids])
        self._files = np.array([os.fsencode(path) for path in paths])

    def __len__(self) -> int:
        return len(self._files)

    def file_name(self, index: int) -> str:
        return os.fsdecode(self._files[index].item())

    def read_image(self, index: int) -> Record:
        return read_image_record(self.file_name(index), self._id(index), self.config.decode_short_side)

    def _id(self, index: int) -> str:
        return self._ids[index].item().decode()
