"""The images and videos that paths, folders, patterns, lists and the standard input stand for."""

import glob
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..formats.images import IMAGE_SUFFIXES
from ..structures import UsageError

LIST_SUFFIXES = frozenset((".txt", ".lst", ".list"))
"""Lower-case suffixes of text files with one path per line."""
VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts"))
"""Lower-case suffixes of video files."""
STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An image or video file, and its name in the output."""

    path: Path
    name: str
    """A relative path with ``/``: the path below the given folder or pattern, the path in a list, or the file name."""

    @property
    def identity(self) -> str:
        """The absolute path, by which a file that is given twice, or was predicted before, is recognized."""
        return os.path.abspath(self.path)  # noqa: PTH100  # Path.absolute keeps "..", and resolve follows links


@dataclass(frozen=True, slots=True)
class Sources:
    """The images and videos to predict, in the order in which they were given."""

    images: tuple[SourceFile, ...] = ()
    videos: tuple[SourceFile, ...] = ()
    cameras: tuple[int, ...] = ()
    reads_input: bool = False
    """Whether further paths of images come on standard input."""

    def __bool__(self) -> bool:
        return bool(self.images or self.videos or self.cameras or self.reads_input)


def find_sources(
    words: Sequence[str | os.PathLike[str]], *, recursive: bool = True, outside: Path | None = None
) -> Sources:
    """Return the images and videos that words stand for, each once.

    | word | stands for | names in the output |
    |---|---|---|
    | a folder | the image files in it and, with ``recursive``, below it, sorted | below the folder |
    | a pattern such as ``photos/*.jpg`` or ``data/**/*.png`` | the files that it matches, sorted | below the part before the first ``*``, ``?`` or ``[`` |
    | a text file (``.txt``) | a path per line, relative to the folder of the file or to the working directory | the path in the file |
    | a video file | its frames | the file name |
    | a number that is no file | a camera | |
    | ``-`` | a path per line of standard input | the path |
    | any other file | an image | the file name |

    Folders and patterns leave out what is below ``outside``, the output folder. Raises UsageError for a word that
    stands for nothing.
    """  # noqa: E501
    found: list[SourceFile] = []
    cameras: list[int] = []
    names = list(dict.fromkeys(os.fspath(word) for word in words))
    for word in names:
        path = Path(word)
        if word == STANDARD_INPUT:
            continue
        if path.is_dir():
            found += _require_some(_files_of_folder(path, recursive, outside), path)
        elif path.exists():
            found += _files_of_list(path) if path.suffix.lower() in LIST_SUFFIXES else [SourceFile(path, path.name)]
        elif word.isdecimal():
            cameras.append(int(word))
        elif glob.has_magic(word):
            found += _files_of_pattern(word, outside)
        else:
            raise UsageError("there is no such image or folder", file=word)
    unique: dict[str, SourceFile] = {}
    for file in found:
        unique.setdefault(file.identity, file)
    files = unique.values()
    return Sources(
        images=tuple(file for file in files if not is_video(file.path)),
        videos=tuple(file for file in files if is_video(file.path)),
        cameras=tuple(cameras),
        reads_input=STANDARD_INPUT in names,
    )


def is_video(path: Path) -> bool:
    """Return whether a file has the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_input_paths() -> Iterator[SourceFile]:
    """Yield the paths on standard input as they come, one per line."""
    # A buffer of its own: the interpreter, when it ends, would wait for the lock of sys.stdin in a blocked thread.
    with io.open(0, "rb", closefd=False) as lines:  # noqa: UP020
        for line in lines:
            word = os.fsdecode(line.rstrip(b"\r\n"))
            if word.strip():
                yield SourceFile(Path(word), listed_name(word))


def listed_name(word: str) -> str:
    """Return the name in the output of a file in a list: its path without a root and without ``..``."""
    path = PurePath(word)
    parts = [part for part in path.parts if part not in (path.anchor, ".", "..")]
    return "/".join(parts) or path.name


def _files_of_folder(folder: Path, recursive: bool, outside: Path | None) -> list[SourceFile]:
    files = sorted(folder.rglob("*") if recursive else folder.glob("*"))
    files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    return [SourceFile(file, file.relative_to(folder).as_posix()) for file in files if not is_below(file, outside)]


def _files_of_pattern(pattern: str, outside: Path | None) -> list[SourceFile]:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    files = [Path(file) for file in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  # Path.glob is relative
    files = [file for file in files if file.is_file() and not is_below(file, outside)]
    return _require_some([SourceFile(file, file.relative_to(root).as_posix()) for file in files], Path(pattern))


def _files_of_list(path: Path) -> list[SourceFile]:
    try:
        words = path.read_text(encoding="utf-8-sig").split("\n")
    except (UnicodeDecodeError, OSError) as error:
        raise UsageError(f"this list of paths cannot be read: {error}", "save it as UTF-8 text", file=path) from None
    files = []
    for word in filter(None, map(str.strip, words)):
        beside = path.parent / word
        files.append(SourceFile(beside if beside.exists() else Path(word), listed_name(word)))
    return _require_some(files, path)


def _require_some(files: list[SourceFile], source: Path) -> list[SourceFile]:
    if not files:
        what = "folder" if source.is_dir() else "list" if source.is_file() else "pattern"
        raise UsageError(f"there are no images in this {what}", file=source)
    return files


def is_below(file: Path, folder: Path | None) -> bool:
    """Return whether a file is in a folder or below it; links are not followed."""
    return folder is not None and Path(os.path.abspath(file)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100
