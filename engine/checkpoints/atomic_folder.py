"""A folder that is written whole or not at all, and that can tell whether it is still what was written.

``SHA256SUMS`` holds the sums of its files, as ``sha256sum -c`` reads them.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from ...structures import CheckpointError

SUMS = "SHA256SUMS"
UNFINISHED = ".writing-"
"""What the names of folders and links begin with until they are whole."""


@contextlib.contextmanager
def write_atomic_folder(target: Path) -> Iterator[Path]:
    """A folder to write files into, which becomes ``target`` at the end.

    A kill, a full disk or an error at any moment leaves nothing at ``target``; what a kill leaves beside it begins
    with ``UNFINISHED``.
    """
    temporary = target.with_name(UNFINISHED + target.name)
    shutil.rmtree(temporary, ignore_errors=True)  # of a save that was killed
    with write_errors(target):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            names = sorted(path.name for path in temporary.iterdir())
            (temporary / SUMS).write_text("".join(_line(temporary / name) for name in names))
            for name in (*names, SUMS, "."):
                _sync(temporary / name)
            temporary.rename(target)
            _sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def add_file(folder: Path, name: str, text: str) -> None:
    """Put one more file into a sealed folder, unless it is in it. A kill leaves the folder as it was, or with it."""
    if name in read_checksums(folder):
        return
    with write_errors(folder):
        (folder / name).write_text(text)
        _sync(folder / name)
        temporary = folder / f".{SUMS}.writing"
        temporary.write_text((folder / SUMS).read_text() + _line(folder / name))
        _sync(temporary)
        temporary.replace(folder / SUMS)
        _sync(folder)


def read_checksums(folder: Path) -> dict[str, str]:
    """The sum of each file that was sealed."""
    lines = (folder / SUMS).read_text().splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def verify_checksums(folder: Path, wanted: Iterable[str]) -> None:
    """CheckpointError for a file that is damaged; KeyError where one of the ``wanted`` was never sealed."""
    sums = read_checksums(folder)
    for name in {*wanted, *sums}:
        if _sha256(folder / name) != sums[name]:
            raise CheckpointError("the file is damaged (checksum mismatch)", "use another copy", file=folder / name)


@contextlib.contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """What the system says of a write that it refuses, as a CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        fix = "free some space" if is_disk_full(error) else "look at the disk and the rights to it"
        raise CheckpointError(
            f"could not be written: {error}", f"{fix}; earlier checkpoints are intact", file=target
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the system refused a write because the disk, or one's share of it, is full."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, SafetensorError):  # it has the system's words only
        return any(f"(os error {number})" in str(error) for number in numbers)
    return isinstance(error, OSError) and error.errno in numbers


def _line(path: Path) -> str:
    return f"{_sha256(path)}  {path.name}\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
