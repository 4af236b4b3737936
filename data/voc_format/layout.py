"""The folders of PASCAL VOC, and the lists in them.

``ImageSets/TASK/SPLIT.txt`` has an image a line by its stem; its files are ``JPEGImages/STEM.jpg`` (or ``.jpeg``, or
``.png``: the first that is there), ``Annotations/STEM.xml`` and ``SegmentationClass/STEM.png``. What an annotation
says of its image's file name is often out of date, and is not looked at.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ...structures import DataError, suggest
from ..image_files import ImageFilesConfig
from ..report import DataReport

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
        """The class names, as far as the config states them."""
        return self.class_names if self.class_names is not None else super().classes()


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One line of a list."""

    folder: Path
    stem: str
    image_id: str

    def find(self, allow_outside: bool) -> Path:
        """The image file; DataError where there is none, or where it lies outside its folder."""
        folder = self.folder / "JPEGImages"
        places = (folder / f"{self.stem}{suffix}" for suffix in SUFFIXES)
        path = next((place for place in places if place.is_file()), None)
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
    """The images of all splits in order, each once; ``task`` is the folder of the lists, ``Main`` or
    ``Segmentation``."""
    images: dict[str, ListedImage] = {}
    for split in config.splits:
        below, _, name = split.rpartition("/")
        folder = config.root / below
        for stem in _read_list(folder / "ImageSets" / task, name):
            image_id = f"{below}/{stem}" if below else stem
            if image_id in images:
                report.note("listed-twice", image_id)
            images[image_id] = ListedImage(folder, stem, image_id)
    return list(images.values())[: config.subset]


def read_class_names(root: Path) -> tuple[str, ...] | None:
    """The lines of ``class_names.txt``, or None where there is no such file."""
    path = root / "class_names.txt"
    if not path.exists():
        return None
    names = _read_lines(path)
    if not names or len(set(names)) < len(names):
        what = "a class is named twice" if names else "no class is named"
        raise DataError(what, "write each class once, one a line", case="bad-class-names", file=path)
    return tuple(names)


def _read_list(folder: Path, split: str) -> list[str]:
    try:
        return _read_lines(folder / f"{split}.txt")
    except FileNotFoundError:
        others = [path.stem for path in folder.glob("*.txt")]
        raise DataError(
            "there is no such list", suggest(split, others), case="missing-list", file=folder / f"{split}.txt"
        ) from None


def _read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines that are not blank, without the spaces around them; DataError where the file cannot be read."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        what = f"no valid UTF-8 at byte {error.start}"
        raise DataError(what, "save it as UTF-8", case="bad-list", file=path) from None
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", "check the path", case="unreadable-file", file=path
        ) from error
    return [line.strip() for line in text.split("\n") if line.strip()]
