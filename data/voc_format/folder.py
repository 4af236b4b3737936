"""The folder layout of PASCAL VOC, and the images of the data sets that use it.

``ImageSets/TASK/SPLIT.txt`` lists the images by file stem, one per line. The files of an image are
``JPEGImages/STEM.jpg`` (or ``.jpeg`` or ``.png``, the first that exists), ``Annotations/STEM.xml`` and
``SegmentationClass/STEM.png``. The file name in an annotation is ignored, since it is often out of date.
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
"""The 20 object classes of PASCAL VOC, in the order of their values 1 to 20 in its masks; 0 is the background."""
BACKGROUND = "background"
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


class VocFolderConfig(ImageFilesConfig):
    """Base class of the configs of data sets in PASCAL VOC's layout."""

    root: Path
    """The folder that contains ``ImageSets`` and ``JPEGImages``, or a folder with several such folders."""
    splits: tuple[str, ...]
    """Image lists in ``ImageSets``, such as ``("trainval",)``, or in folders below the root, such as
    ``("VOC2007/trainval", "VOC2012/trainval")``; the folder is then part of the image id (``VOC2007/000005``). Empty:
    all images in the root that have an annotation file or a mask, in the order of their names."""
    class_names: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The classes to use, in the order of their labels; None takes those in ``class_names.txt`` in the root (one per
    line) or, without this file, the classes of VOC."""
    subset: int | None = Field(default=None, gt=0)
    """Use only this number of images, from the beginning of the lists."""
    allow_outside: bool = False
    """Accept images outside the image folder, through links or paths in a list."""
    images: str = "JPEGImages"
    """The folder of the images below the root; ``.`` is the root itself."""

    def classes(self) -> tuple[str, ...]:
        """Return ``class_names``; raise UsageError if it is None."""
        return self.class_names if self.class_names is not None else super().classes()


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image in an image list."""

    folder: Path
    stem: str
    image_id: str
    images: str = "JPEGImages"
    """The folder of the images below ``folder``."""

    def find_file(self, allow_outside: bool) -> Path:
        """Return the path of the image file; raise DataError if it does not exist or is outside its folder."""
        folder = self.folder / self.images
        candidates = (folder / f"{self.stem}{suffix}" for suffix in SUFFIXES)
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            raise DataError(
                "the image is listed, but there is no such .jpg, .jpeg or .png file", "check the list and the folder",
                case="missing-image", file=folder / self.stem, image_id=self.image_id,
            )  # fmt: skip
        if not allow_outside and not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(
                f"the file lies outside {folder}", "set allow_outside to allow it",
                case="outside-root", file=path, image_id=self.image_id,
            )  # fmt: skip
        return path


def list_images(config: VocFolderConfig, task: str, annotations: str, report: DataReport) -> list[ListedImage]:
    """Return the images of all splits in order, each once; repeated images are counted in the report.

    ``task`` is the folder of the image lists, ``Main`` or ``Segmentation``. Without splits, the images are those with a
    file that matches the pattern ``annotations``, such as ``Annotations/*.xml``.
    """
    images: dict[str, ListedImage] = {}
    if not config.splits:
        stems = sorted(path.stem for path in config.root.glob(annotations))
        images = {stem: ListedImage(config.root, stem, stem, config.images) for stem in stems}
    for split in config.splits:
        subfolder, _, name = split.rpartition("/")
        folder = config.root / subfolder
        for stem in read_voc_list(folder / "ImageSets" / task, name):
            image_id = f"{subfolder}/{stem}" if subfolder else stem
            if image_id in images:
                report.note("listed-twice", image_id)
            images[image_id] = ListedImage(folder, stem, image_id, config.images)
    return list(images.values())[: config.subset]


class VocImages(Dataset):
    """Base class of data sets in PASCAL VOC's layout, with the usable listed images; subclasses add the annotations."""

    config: VocFolderConfig

    def _store_images(self, image_ids: Sequence[str], paths: Sequence[str | os.PathLike[str]]) -> None:
        """Store image ids and paths as arrays, whose memory worker processes can share."""
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
