"""Disks that are full or read-only: small file systems that are mounted for the test, and limits on file sizes."""

import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vertebra.engine import ScheduleConfig, train
from vertebra.engine.checkpoints import write_errors
from vertebra.inference import checkpoint_paths, open_checkpoint
from vertebra.structures import CheckpointError

from ..helpers.runs import equal_tensors, newest_weights, read_metrics, start_training
from ..helpers.tiny import tiny_classifier

Mount = Callable[[str], Path]
LONG = {"recipe": {"schedule": ScheduleConfig(steps=100_000)}, "run": {"checkpoint_every": 100_000}}


@pytest.fixture
def mount(tmp_path) -> Iterator[Mount]:
    """Return a function that mounts a file system in memory with options, or changes those of the mounted one."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        if subprocess.run(command, stderr=subprocess.DEVNULL, timeout=10).returncode:
            pytest.skip("only root may mount a file system, and not everywhere")
        return disk

    yield mount
    subprocess.run(["umount", "--lazy", str(disk)], stderr=subprocess.DEVNULL, timeout=10)


def check_first_checkpoint_is_intact(run: Path) -> None:
    """Check that the first checkpoint is intact, and that there are no other files beside it."""
    assert open_checkpoint(run).step == 2
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-0000002"]


def test_full_disk_during_a_save_leaves_the_earlier_checkpoint(mount, tmp_path):
    """docs/faults.md row 107. By hand: exit code 4, the earlier checkpoint is intact, and no partial files remain.

    Law: with space on the disk the run resumes to the same end.
    """
    train(tiny_classifier(), tmp_path / "unbroken")
    size = sum(path.stat().st_size for path in checkpoint_paths(tmp_path / "unbroken" / "checkpoints")[0].iterdir())
    disk = mount(f"size={size * 3 // 2}")
    with pytest.raises(CheckpointError, match=r"step-0000004: could not be written: .*No space left") as caught:
        train(tiny_classifier(), disk / "run")
    assert caught.value.exit_code == 4
    check_first_checkpoint_is_intact(disk / "run")
    mount(f"remount,size={size * 4}")
    train(tiny_classifier(), disk / "run", resume=True)
    assert equal_tensors(newest_weights(disk / "run"), newest_weights(tmp_path / "unbroken"))
    assert read_metrics(disk / "run") == read_metrics(tmp_path / "unbroken")


@pytest.mark.parametrize(
    ("number", "fix"), [(errno.ENOSPC, "free some space;"), (errno.EACCES, "check the disk and its permissions;")]
)
def test_advice_depends_on_the_system_error(number, fix, tmp_path):
    """By hand: deleting files helps only if the disk is full."""
    with pytest.raises(CheckpointError, match=fix), write_errors(tmp_path):
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Make the system refuse to write files larger than ``size``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_file_size_limit_during_a_save_leaves_the_earlier_checkpoint(tmp_path):
    """docs/faults.md row 107. By hand: for machines where nothing can be mounted: the system limits file sizes to
    less than the weights."""
    config = tiny_classifier(recipe={"schedule": ScheduleConfig(steps=4, warmup_steps=2)}, run={"checkpoint_every": 2})
    train(config, tmp_path / "unbroken")
    run = tmp_path / "run"
    train(config, run)
    last = checkpoint_paths(run / "checkpoints")[-1]
    for path in (*last.iterdir(), last):
        path.rmdir() if path.is_dir() else path.unlink()
    with file_size_limit(100_000), pytest.raises(CheckpointError, match="could not be written") as caught:
        train(config, run, resume=True)
    assert caught.value.exit_code == 4
    assert [path.name for path in checkpoint_paths(run / "checkpoints")] == ["step-0000002"]
    assert not list((run / "checkpoints").glob(".writing-*"))
    train(config, run, resume=True)
    assert equal_tensors(newest_weights(run), newest_weights(tmp_path / "unbroken"))


@pytest.mark.parametrize("room", [40, *(pytest.param(room, marks=pytest.mark.slow) for room in (44, 48, 52, 56))])
def test_full_disk_while_logging_is_one_line(mount, room):
    """By hand: exit code 2 naming the run, without a traceback of Vertebra's or of TensorBoard's thread.

    The space that is left decides which of the two log files cannot be written first.
    """
    disk = mount(f"size={room}k")
    process = start_training(tiny_classifier(**LONG), disk / "run", config_folder=disk.parent)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 2, printed
    assert "Traceback" not in printed and "Exception" not in printed
    (error,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert f"{disk}/run" in error and "No space left on device" in error and "free some space" in error


def test_read_only_disk_is_refused_before_the_first_step(mount):
    """docs/faults.md row 108. By hand: exit code 2."""
    disk = mount("size=1m,ro")
    process = start_training(tiny_classifier(**LONG), disk / "run", config_folder=disk.parent)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 2
    assert printed.startswith(f"error: usage: {disk}/run: the run folder cannot be written: Read-only file system")
    assert printed.count("\n") == 1
