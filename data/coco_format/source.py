"""Sources of annotations: a COCO file, or files of another format that are read as the sections of one."""

import hashlib
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ...formats.coco import CocoFile, digest_file, read_coco_file
from ...formats.coco_files import merge_coco_files
from ...formats.json_files import parse_json, read_file
from ...formats.label_formats import LABEL_FORMATS
from ...formats.labels import LabelRequest, files_below
from ...structures import DataError


class AnnotationSource(ABC):
    """Files with annotations of images, which can be read again while they do not change."""

    path: Path
    """The file or folder that messages about the annotations as a whole name."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a text that changes when the files do; raise DataError if there are none."""

    @abstractmethod
    def read(self, fingerprint: str) -> CocoFile:
        """Read the annotations; raise DataError if the files have another ``fingerprint`` now."""

    @abstractmethod
    def read_document(self) -> tuple[dict[str, Any], str]:
        """Return the annotations as a dict in COCO's format, and its digest, which is that of :meth:`read`."""

    @abstractmethod
    def size(self) -> int:
        """Return the number of bytes that take as long to read, after a call of :meth:`fingerprint`."""

    def _changed(self) -> DataError:
        return DataError("the file was changed while it was read", "open it again", case="changed-file", file=self.path)


BYTES_PER_FILE = 512
"""The number of bytes that can be parsed in the time that opening one of many small files takes."""


@dataclass(frozen=True, slots=True)
class CocoSource(AnnotationSource):
    """A COCO file."""

    path: Path

    def fingerprint(self) -> str:
        return digest_file(self.path)

    def read(self, fingerprint: str) -> CocoFile:
        file = read_coco_file(self.path)
        if file.digest != fingerprint:
            raise self._changed()
        return file

    def read_document(self) -> tuple[dict[str, Any], str]:
        content = read_file(self.path)
        return parse_json(content, self.path), hashlib.sha256(content).hexdigest()

    def size(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True, slots=True)
class CocoFilesSource(AnnotationSource):
    """Several COCO files that are read as one."""

    path: Path
    more: tuple[Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, the first of which messages name."""
        return self.path, *self.more

    def fingerprint(self) -> str:
        return hashlib.sha256("".join(map(digest_file, self.paths)).encode()).hexdigest()

    def read(self, fingerprint: str) -> CocoFile:
        file = merge_coco_files(self.paths)
        if file.digest != fingerprint:
            raise self._changed()
        return file

    def read_document(self) -> tuple[dict[str, Any], str]:
        return _as_document(merge_coco_files(self.paths))

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


def _as_document(file: CocoFile) -> tuple[dict[str, Any], str]:
    sections = {name: [msgspec.json.decode(row) for row in getattr(file, name)] for name in ("images", "annotations")}
    return {**sections, "categories": file.categories}, file.digest


@dataclass(slots=True)
class LabelSource(AnnotationSource):
    """Annotations in a format of :mod:`vertebra.formats.label_formats`, given by its name, which can be pickled."""

    format: str
    request: LabelRequest
    path: Path = field(init=False)
    _size: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.path = self.request.path

    def fingerprint(self) -> str:
        """Return the SHA-256 of what is read, and of the names, sizes and modification times of the files."""
        digest = hashlib.sha256(f"{self.format}\0{self.request!r}\0".encode(errors="surrogateescape"))
        self._size = 0
        for root in LABEL_FORMATS[self.format].list_folders(self.request):
            if not root.exists():
                raise DataError("there is no such file or folder", "check the path", case="missing-file", file=root)
            for file in files_below(root) if root.is_dir() else [root]:
                stat = file.stat()
                self._size += stat.st_size if file == root else BYTES_PER_FILE
                digest.update(
                    f"{os.fspath(file)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape")
                )
        return digest.hexdigest()

    def read(self, fingerprint: str) -> CocoFile:
        file = LABEL_FORMATS[self.format].read(self.request)
        if self.fingerprint() != fingerprint:
            raise self._changed()
        return file

    def read_document(self) -> tuple[dict[str, Any], str]:
        return _as_document(LABEL_FORMATS[self.format].read(self.request))

    def size(self) -> int:
        return self._size
