"""The layout of a YOLO data set: its data.yaml, its class names, and the images of its splits."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..structures import DataError
from .json_files import read_file, read_start
from .labels import list_images_below

SPLITS = ("train", "val", "test")
MOST_KEYPOINTS = 1000
NULLS = ("", "~", "null")
"""Texts that stand for no value in YAML."""
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "labels.txt")
"""Files with one class name per line, in the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class YoloLayout:
    """The folders of a data set, and the content of its data.yaml, which is empty without one."""

    root: Path
    file: Path | None
    description: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path) -> "YoloLayout":
        """Find the data.yaml of a path, read it, and resolve its ``path``."""
        file = path if path.is_file() else find_yaml(path)
        if file is None:
            return cls(path, None, {})
        try:
            # Without resolving types, as a class may be named ``no`` or ``007``.
            description = yaml.load(read_file(file).decode("utf-8-sig"), Loader=yaml.BaseLoader)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
            what = " ".join(str(error).split())
            raise _problem(file, "bad-yaml", f"not valid YAML: {what:.200}", "write the file again") from None
        if not isinstance(description, dict) or "names" not in description:
            raise _problem(file, "bad-yaml", "there are no class names", "add names: [...], see docs/data.md")
        base = description.get("path")
        base = "." if base in (None, *NULLS) else base
        if not isinstance(base, str):
            raise _problem(file, "bad-yaml", f"path is {base!r:.80}, not text", "give the folder of the data set")
        root = file.parent / base
        return cls(root if root.is_dir() else file.parent, file, description)

    def class_names(self) -> list[str]:
        """Return the class names in the order of their numbers."""
        if self.file is not None:
            return _as_names(self.description["names"], self.file)
        for name in CLASS_FILES:
            if (self.root / name).is_file():
                lines = read_file(self.root / name).decode("utf-8-sig", "replace").splitlines()
                return _as_names([line.strip() for line in lines if line.strip()], self.root / name)
        raise _problem(
            self.root, "no-categories", "there are no class names", "add data.yaml, or classes.txt with one name a line"
        )

    def keypoint_shape(self) -> tuple[int, int] | None:
        """Return the number of keypoints of an object and of values per keypoint (2 or 3); None if there are none."""
        shape = self.description.get("kpt_shape")
        if shape in (None, *NULLS):
            return None
        texts = shape if isinstance(shape, list) and len(shape) == 2 else []
        numbers = [int(text) for text in texts if _is_number(text)]
        if len(numbers) != 2 or not 1 <= numbers[0] <= MOST_KEYPOINTS or numbers[1] not in (2, 3):
            fix = f"give [number of keypoints up to {MOST_KEYPOINTS}, 2 or 3]"
            raise _problem(self.file, "bad-yaml", f"kpt_shape is {shape!r:.80}", fix)
        return numbers[0], numbers[1]

    def keypoint_names(self, count: int) -> list[str]:
        """Return the names of keypoints in ``kpt_names``, else their numbers."""
        names = self.description.get("kpt_names")
        names = next(iter(names.values()), None) if isinstance(names, dict) else names
        if isinstance(names, list) and len(names) == count and len(set(map(str, names))) == count:
            return [str(name) for name in names]
        return [str(number) for number in range(count)]

    def splits(self) -> tuple[str, ...]:
        """Return the splits that data.yaml names or, without it, those that have a folder."""
        if self.file is not None:
            return tuple(name for name in SPLITS if self.description.get(name) not in (None, *NULLS))
        return tuple(name for name in (*SPLITS, "valid") if self._folder_of(name) is not None)

    def _folder_of(self, split: str) -> str | None:
        """Return the folder of a split's images without data.yaml: that of Darknet, or one in ``images``."""
        folders = (f"images/{split}", f"obj_{split}_data", f"{split}/images")
        return next((folder for folder in folders if (self.root / folder).is_dir()), None)

    def list_images(self, split: str | None) -> list[str]:
        """Return the paths of the images of a split, or of all splits for None, relative to the root."""
        splits = self.splits() if split is None else (split,)
        found: dict[str, None] = {}
        for name in splits:
            places = self.description.get(name) if self.file is not None else self._folder_of(name)
            for place in places if isinstance(places, list) else [places]:
                found |= dict.fromkeys(self._images_at(place, name))
        if not splits:
            folder = self.root / "images" if (self.root / "images").is_dir() else self.root
            found = dict.fromkeys(_relative(self.root, folder, list_images_below(folder)))
        return list(found)

    def _images_at(self, place: Any, split: str) -> list[str]:
        """Return the images of a folder or a list of images that data.yaml names."""
        if not isinstance(place, str):
            raise _problem(self.file, "bad-yaml", f"{split} is {place!r:.80}", "give a folder or a list of images")
        candidates = [self.root / place]
        if place.startswith("../"):  # Roboflow writes ../train/images for the folder beside data.yaml
            candidates.append(self.root / place[3:])
        path = next((candidate for candidate in candidates if candidate.exists()), None)
        if path is None:
            what = f"there is no such folder for {split}"
            raise _problem(self.root / place, "missing-folder", what, "correct data.yaml")
        path = Path(os.path.normpath(path))
        if path.is_dir():
            return _relative(self.root, path, list_images_below(path))
        lines = [line.strip() for line in read_file(path).decode("utf-8-sig", "replace").splitlines()]
        beside = [line for line in lines if line.startswith("./")]  # relative to the list, as in ultralytics' lists
        others = [line for line in lines if line and not line.startswith("./")]
        return [*_relative(self.root, path.parent, beside), *_relative(self.root, self.root, others)]


def _relative(root: Path, folder: Path, names: list[str]) -> list[str]:
    """Return the paths of files in a folder relative to the root; a folder elsewhere gives paths with ``..``."""
    prefix = os.path.relpath(folder, root)
    return [os.path.normpath(os.path.join(prefix, name)) for name in names]  # noqa: PTH118


def find_yaml(folder: Path) -> Path | None:
    """Return the data.yaml of a folder, else its only YAML file with names; None if there is none."""
    if (folder / "data.yaml").is_file():
        return folder / "data.yaml"
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".yaml", ".yml") and path.is_file()]
    named = [path for path in files if "names" in read_start(path)]
    return named[0] if len(named) == 1 else None


def _as_names(names: Any, file: Path) -> list[str]:
    """Return class names, given as a list or as a mapping from 0, 1, ...; raise DataError for anything else."""
    if isinstance(names, dict):
        numbers = {int(key): name for key, name in names.items() if _is_number(key)}
        if sorted(numbers) != list(range(len(names))):
            raise _problem(file, "bad-yaml", "the class numbers are not 0, 1, 2, ...", "number the names from 0 on")
        names = [numbers[number] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names) or not names:
        raise _problem(file, "bad-yaml", f"names is {names!r:.80}, not a list of class names", "correct it")
    return names


def _is_number(text: Any) -> bool:
    return isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 10


def _problem(file: Path | None, case: str, what: str, fix: str) -> DataError:
    return DataError(what, fix, case=case, file=file)
