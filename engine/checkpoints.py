"""A run's checkpoints: the state of its training saved and restored, each in a folder that is complete or not there.

:mod:`vertebra.inference.checkpoint` reads what prediction needs of them. ``SHA256SUMS`` holds the sums of a folder's
files, as ``sha256sum -c`` reads them.
"""

import contextlib
import errno
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..backbones import weights_metadata
from ..inference import Checkpoint
from ..inference.checkpoint import (
    AVERAGE,
    BEST,
    CHECKSUMS,
    FORMAT,
    MODEL,
    OPTIMIZER,
    SCORES,
    STATE,
    checkpoint_path,
    checkpoint_paths,
    follow_best,
    load_weights,
    read_checksums,
    read_tensors,
    sha256_of_file,
)
from ..structures import CheckpointError
from .distributed.sharding import full_tensor, shard_like
from .loop.step import TrainingState

PACKAGES = ("vertebra", "torch", "torchvision", "timm", "safetensors")
UNFINISHED = ".writing-"
"""The start of the names of folders and links that are not complete yet."""


def save_checkpoint(folder: Path, step: int, state: TrainingState, description: Mapping[str, Any]) -> Path:
    """Write ``folder/step-N``. A kill or a full disk at any moment leaves the earlier checkpoints as they were.

    ``description`` holds the fields of :class:`~vertebra.inference.Checkpoint` that the state does not tell: the config
    and what prediction needs of it, classes, digests, origin, pending values and user modules. The file of the weights
    also says by itself how they want their pixels, and their origin. Every rank calls this, since each may hold a shard
    of the weights; rank zero writes.
    """
    target = checkpoint_path(folder, step)
    tensors, groups = _collect_tensors(state)
    if not state.distributed.is_rank_zero:
        return target
    with write_atomic_folder(target) as writing:
        model, origin = state.model, description.get("origin")
        metadata = weights_metadata(model.preprocess.config, model.backbone.config, origin)
        for name, named_tensors in tensors.items():
            save_tensors(writing / name, named_tensors, {} if name == OPTIMIZER else metadata)
        facts = {
            "format": FORMAT,
            "step": step,
            **description,
            "world_size": state.distributed.world_size,
            "device": state.distributed.device.type,
            "optimizer_groups": groups,
            "scaler": state.scaler.state_dict(),
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        (writing / STATE).write_text(json.dumps(facts, indent=1, default=asdict), encoding="utf-8")
    return target


def restore_state(checkpoint: Checkpoint, state: TrainingState, say: Callable[[str], None]) -> None:
    """Restore all that a step changes: weights, momentum, averages, scales."""
    device = state.distributed.device.type
    if checkpoint.device != device:
        say(f"the run was trained on {checkpoint.device}, this is {device}: it goes on, but not to the same bits")
    load_weights(checkpoint, state.model, convert=shard_like)
    if state.average is not None:
        load_weights(checkpoint, state.average.model, averaged=True, convert=shard_like)
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(checkpoint.path / OPTIMIZER).items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = shard_like(tensor, parameters[int(index)])
    facts = json.loads((checkpoint.path / STATE).read_text(encoding="utf-8"))
    state.optimizer.load_state_dict({"state": moments, "param_groups": facts["optimizer_groups"]})
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(facts["scaler"])


def add_scores(folder: Path, step: int, scores: str) -> None:
    """Add the scores of a step (JSON) to the checkpoint ``folder/step-N``, unless it has some.

    A kill at any moment leaves the checkpoint as it was, or with its scores.
    """
    target = checkpoint_path(folder, step)
    if SCORES in read_checksums(target):
        return
    with write_errors(target):
        (target / SCORES).write_text(scores, encoding="utf-8")
        _sync(target / SCORES)
        temporary = target / f".{CHECKSUMS}.writing"
        temporary.write_text((target / CHECKSUMS).read_text(encoding="utf-8") + _checksum_line(target / SCORES))
        _sync(temporary)
        temporary.replace(target / CHECKSUMS)
        _sync(target)


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints and the best one, and what a killed save left behind."""
    best = follow_best(folder / BEST).resolve()
    old = [path for path in checkpoint_paths(folder)[:-keep] if path.resolve() != best]
    for path in [*old, *folder.glob(f"{UNFINISHED}*")]:
        shutil.rmtree(path, ignore_errors=True)


def link_best(folder: Path, step: int) -> None:
    """Let ``folder/best`` lead to the checkpoint of a step.

    It is a link, or a text file with the checkpoint's name where there are no links: on Windows they need a right that
    few users have.
    """
    link, temporary, name = folder / BEST, folder / f"{UNFINISHED}{BEST}", checkpoint_path(folder, step).name
    with write_errors(link):
        if link.is_dir() and not link.is_symlink():  # a copy of the run in which the link became what it led to
            shutil.rmtree(link)
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(name)
        except (OSError, NotImplementedError) as error:
            if is_disk_full(error):
                raise
            temporary.write_text(name + "\n", encoding="utf-8")
        temporary.replace(link)


def rename_damaged_checkpoints(folder: Path, sound: Path) -> None:
    """Rename the checkpoints that are newer than the newest sound one: a resumed run writes those steps again."""
    for path in checkpoint_paths(folder):
        if path > sound:
            renamed = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(renamed, ignore_errors=True)
            path.rename(renamed)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on nothing but the tensors and the metadata.

    Tensors that share memory, as tied weights do, are each written in full.
    """
    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    save_file(separate, path, dict(metadata) or None)  # without tensors and with {} the library writes broken JSON
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Sort the keys of a safetensors file's metadata, which the library writes in a random order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            assert len(text) <= length, "sorting makes the header no longer"
            file.seek(8)
            file.write(text.ljust(length))


def _collect_tensors(state: TrainingState) -> tuple[dict[str, dict[str, Tensor]], list[dict[str, Any]]]:
    """Return what each file holds, empty but on rank zero, and the optimizer's groups, which are plain JSON.

    The optimizer's tensors are named ``parameter.key``.
    """
    models = {MODEL: state.model} | ({} if state.average is None else {AVERAGE: state.average.model})
    tensors = {name: model.state_dict() for name, model in models.items()}
    optimizer = state.optimizer.state_dict()
    tensors[OPTIMIZER] = {
        f"{index}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in optimizer["state"].items()
        for key, value in values.items()
        if value is not None
    }
    keep = state.distributed.is_rank_zero
    return {name: _unsharded(named, keep) for name, named in tensors.items()}, optimizer["param_groups"]


def _unsharded(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Return full tensors on the CPU, since a device may not have room for all; none of them unless ``keep``."""
    full: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = full_tensor(tensor.detach())
        if keep:
            full[name] = tensor.cpu().contiguous()
    return full


@contextlib.contextmanager
def write_atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to write files into, which becomes ``target`` at the end.

    A kill, a full disk or an error at any moment leaves nothing at ``target``; the name of what a kill leaves beside it
    begins with ``UNFINISHED``.
    """
    temporary = target.with_name(UNFINISHED + target.name)
    shutil.rmtree(temporary, ignore_errors=True)  # of a save that was killed
    with write_errors(target):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            names = sorted(path.name for path in temporary.iterdir())
            (temporary / CHECKSUMS).write_text("".join(_checksum_line(temporary / name) for name in names))
            for name in (*names, CHECKSUMS, "."):
                _sync(temporary / name)
            temporary.rename(target)
            _sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turn what the system says of a write that it refuses into a CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        fix = "free some space" if is_disk_full(error) else "look at the disk and the rights to it"
        raise CheckpointError(
            f"could not be written: {error}", f"{fix}; earlier checkpoints are intact", file=target
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether the system refused a write because the disk, or the user's quota of it, is full."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, SafetensorError):  # it has the system's words only
        return any(f"(os error {number})" in str(error) for number in numbers)
    return isinstance(error, OSError) and error.errno in numbers


def _checksum_line(path: Path) -> str:
    return f"{sha256_of_file(path)}  {path.name}\n"


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
