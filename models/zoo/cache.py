"""Downloading of published weights into torch.hub's cache, where torchvision and other tools find them too."""

import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import filelock
import torch

from ...structures import CheckpointError
from .published import PublishedWeights

if TYPE_CHECKING:
    from rich.progress import Progress

OFFLINE = "VERTEBRA_OFFLINE"
"""The environment variable that forbids downloads if it is set to anything but ``0``."""

_ATTEMPTS = 4
_WAIT = 1.0  # seconds before the second attempt; doubled before each further one
_TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 1 << 20


def cached_path(weights: PublishedWeights) -> Path:
    """Return the path of published weights in torch.hub's cache, whether they are there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(weights.url).path).name


def download(weights: PublishedWeights) -> Path:
    """Return the file of published weights, which is downloaded if it is not in the cache.

    An interrupted download is continued from where it stopped, also by a later call. The file appears in the cache
    once it is complete and its digest is right; several processes download it once. Raises CheckpointError, with the
    address and the path to save the file to, if it cannot be downloaded.
    """
    path = cached_path(weights)
    if path.exists():
        return path
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise _error(weights, path, "is not in the cache, and downloads are switched off (--offline)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if not path.exists():  # another process may have been faster
                _download_complete(weights, path)
    except OSError as error:
        raise _error(weights, path, f"could not be downloaded: {_describe(error)}") from error
    return path


def _download_complete(weights: PublishedWeights, path: Path) -> None:
    """Download a file to ``path``, with several attempts; raise OSError or CheckpointError if all of them fail."""
    part = path.with_name(f"{path.name}.part")
    for attempt in range(_ATTEMPTS):
        try:
            _continue_download(weights.url, part)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == _ATTEMPTS - 1:
                raise
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS - 1:
                raise OSError(_describe(error)) from error
        time.sleep(_WAIT * 2**attempt)
    for name, expected in (("sha256", weights.sha256), ("md5", weights.md5)):
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, name).hexdigest() if expected else ""
        if not digest.startswith(expected):
            part.unlink()
            fault = f"its {name.upper()} digest begins with {digest[: len(expected)]}, not {expected}"
            raise _error(weights, path, f"was downloaded, but {fault}")
    part.replace(path)


def _continue_download(url: str, part: Path) -> None:
    """Download what is missing of a file; raise OSError if the connection ends before the file is complete."""
    present = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "vertebra"} | ({"Range": f"bytes={present}-"} if present else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # complete already, or of another file
            part.unlink()
            raise OSError("the partial file does not fit") from error
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            present = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else present + int(length)
        with part.open("ab" if present else "wb") as file, _progress() as progress:
            task = progress.add_task(PurePosixPath(urlsplit(url).path).name, total=total, completed=present)
            while block := response.read(_BLOCK):
                file.write(block)
                progress.advance(task, len(block))
            received = file.tell()
    if total is not None and received < total:
        raise OSError(f"the connection ended after {received} of {total} bytes")


def _progress() -> "Progress":
    """Return a progress bar on stderr, which is shown on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def _error(weights: PublishedWeights, path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{weights.url} {what}", "download it elsewhere and save it to this path", file=path)


def _describe(error: BaseException) -> str:
    """Return an error of the network as one line."""
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__
