"""Saving and restoring checkpoints: each is a folder that appears only once it is complete.

:mod:`vertebra.inference.checkpoint` reads the part of a checkpoint that prediction needs. ``SHA256SUMS`` lists the
checksums of the folder's files in the format of ``sha256sum -c``.
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
"""Prefix of the names of folders and links that are still being written."""


def save_checkpoint(folder: Path, step: int, state: TrainingState, description: Mapping[str, Any]) -> Path:
    """Write the checkpoint ``folder/step-N`` and return its path.

    If the process is killed or the disk is full, earlier checkpoints stay intact. ``description`` holds the fields of
    :class:`~vertebra.inference.Checkpoint` that are not in ``state``: the config, the inference config, the classes,
    the digests of the data, the origin of the weights, pending values and user modules. The metadata of the weights
    file repeats the pixel preprocessing and the origin, so that the file can be used alone. Every rank must call this,
    since each may hold a shard of the weights; only rank zero writes.
    """
    target = checkpoint_path(folder, step)
    tensors, groups = _collect_tensors(state)
    if not state.distributed.is_rank_zero:
        return target
    with write_atomic_folder(target) as temporary:
        model, origin = state.model, description.get("origin")
        metadata = weights_metadata(model.preprocess.config, model.backbone.config, origin)
        for name, named_tensors in tensors.items():
            save_tensors(temporary / name, named_tensors, {} if name == OPTIMIZER else metadata)
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
        (temporary / STATE).write_text(json.dumps(facts, indent=1, default=asdict), encoding="utf-8")
    return target


def restore_state(checkpoint: Checkpoint, state: TrainingState, say: Callable[[str], None]) -> None:
    """Load a checkpoint into ``state``: the weights, their EMA, the optimizer's state and the gradient scaler."""
    device = state.distributed.device.type
    if checkpoint.device != device:
        say(
            f"the run was trained on {checkpoint.device} and resumes on {device}: "
            "its results will not be bit-identical to those of an uninterrupted run"
        )
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
    """Add the scores of a step (JSON text) to the checkpoint ``folder/step-N``, unless it has scores already.

    If the process is killed, the checkpoint is valid either without the scores or with them.
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
    """Delete all checkpoints except the newest ``keep`` and the best, and the remains of interrupted saves."""
    best = follow_best(folder / BEST).resolve()
    old = [path for path in checkpoint_paths(folder)[:-keep] if path.resolve() != best]
    for path in [*old, *folder.glob(f"{UNFINISHED}*")]:
        shutil.rmtree(path, ignore_errors=True)


def link_best(folder: Path, step: int) -> None:
    """Link ``folder/best`` to the checkpoint of a step.

    It is a symbolic link, or a text file with the checkpoint's name where links cannot be created: on Windows they need
    a privilege that few users have.
    """
    link, temporary, name = folder / BEST, folder / f"{UNFINISHED}{BEST}", checkpoint_path(folder, step).name
    with write_errors(link):
        if link.is_dir() and not link.is_symlink():  # the run was copied, and the copy replaced the link by its target
            shutil.rmtree(link)
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(name)
        except (OSError, NotImplementedError) as error:
            if is_disk_full(error):
                raise
            temporary.write_text(name + "\n", encoding="utf-8")
        temporary.replace(link)


def rename_damaged_checkpoints(folder: Path, newest_valid: Path) -> None:
    """Rename the checkpoints newer than ``newest_valid`` to ``damaged-step-N``; the resumed run writes them again."""
    for path in checkpoint_paths(folder):
        if path > newest_valid:
            renamed = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(renamed, ignore_errors=True)
            path.rename(renamed)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend only on the tensors and the metadata.

    Tensors that share memory, such as tied weights, are each written in full.
    """
    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    save_file(separate, path, dict(metadata) or None)  # with no tensors and empty metadata safetensors writes bad JSON
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
    """Return the tensors of each checkpoint file by name, and the optimizer's parameter groups as plain JSON.

    The optimizer's tensors are named ``INDEX.KEY``, with the index of their parameter. On ranks other than zero the
    files are empty.
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
    is_rank_zero = state.distributed.is_rank_zero
    return {name: _unsharded(named, is_rank_zero) for name, named in tensors.items()}, optimizer["param_groups"]


def _unsharded(tensors: Mapping[str, Tensor], is_rank_zero: bool) -> dict[str, Tensor]:
    """Gather the shards of each tensor; return the full tensors on rank zero, and an empty dict on the other ranks.

    Each is moved to the CPU before the next is gathered, since a GPU may not have room for all.
    """
    full: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = full_tensor(tensor.detach())
        if is_rank_zero:
            full[name] = tensor.cpu().contiguous()
    return full


@contextlib.contextmanager
def write_atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder to write files into, and rename it to ``target`` at the end.

    If the block raises, the process is killed or the disk is full, there is nothing at ``target``. A killed process
    may leave the temporary folder beside it, whose name begins with ``UNFINISHED``.
    """
    temporary = target.with_name(UNFINISHED + target.name)
    shutil.rmtree(temporary, ignore_errors=True)  # a killed save may have left it
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
    """Convert errors of the operating system and of safetensors while writing ``target`` to CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        fix = "free some space" if is_disk_full(error) else "check the disk and its permissions"
        raise CheckpointError(
            f"could not be written: {error}", f"{fix}; earlier checkpoints are intact", file=target
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether a write failed because the disk or the user's quota is full, or the file is too large."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, SafetensorError):  # it carries the system's error as text only
        return any(f"(os error {number})" in str(error) for number in numbers)
    return isinstance(error, OSError) and error.errno in numbers


def _checksum_line(path: Path) -> str:
    return f"{sha256_of_file(path)}  {path.name}\n"


def _sync(path: Path) -> None:
    """Sync a file or folder to the disk (fsync)."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
