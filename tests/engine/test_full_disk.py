"""A disk that is full or read-only: small file systems that are mounted for the test, and limits on file sizes."""

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


def check_that_nothing_is_lost(run: Path) -> None:
    """Check that the first checkpoint is intact, and that nothing is beside it."""
    assert open_checkpoint(run).step == 2
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-0000002"]


def test_a_save_on_a_full_disk_leaves_the_earlier_checkpoint(mount, tmp_path):
    """docs/faults.md row 107: exit code 4, the checkpoint before intact, nothing left over.

    With room on the disk the run resumes to the same end.
    """
    train(tiny_classifier(), tmp_path / "unbroken")
    size = sum(path.stat().st_size for path in checkpoint_paths(tmp_path / "unbroken" / "checkpoints")[0].iterdir())
    disk = mount(f"size={size * 3 // 2}")
    with pytest.raises(CheckpointError, match=r"step-0000004: could not be written: .*No space left") as caught:
        train(tiny_classifier(), disk / "run")
    assert caught.value.exit_code == 4
    check_that_nothing_is_lost(disk / "run")
    mount(f"remount,size={size * 4}")
    train(tiny_classifier(), disk / "run", resume=True)
    assert equal_tensors(newest_weights(disk / "run"), newest_weights(tmp_path / "unbroken"))
    assert read_metrics(disk / "run") == read_metrics(tmp_path / "unbroken")


@pytest.mark.parametrize(
    ("number", "fix"), [(errno.ENOSPC, "free some space;"), (errno.EACCES, "look at the disk and the rights to it;")]
)
def test_the_fix_depends_on_the_error_of_the_system(number, fix, tmp_path):
    """By hand: where the disk refuses for another reason than room, deleting files does not help."""
    with pytest.raises(CheckpointError, match=fix), write_errors(tmp_path):
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the system refuse to write files beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_that_the_system_refuses_leaves_the_earlier_checkpoint(tmp_path):
    """docs/faults.md row 107, where nothing can be mounted: the system lets no file grow as large as the weights."""
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
def test_a_log_on_a_full_disk_is_an_error_of_one_line(mount, room):
    """Exit code 2 naming the run, and no traceback of ours or of TensorBoard's thread.

    The room that is left decides which of the two files is refused first.
    """
    disk = mount(f"size={room}k")
    process = start_training(tiny_classifier(**LONG), disk / "run", config_folder=disk.parent)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 2, printed
    assert "Traceback" not in printed and "Exception" not in printed
    (error,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert f"{disk}/run" in error and "No space left on device" in error and "free some space" in error


def test_a_read_only_disk_is_refused_before_the_first_step(mount):
    """docs/faults.md row 108: exit code 2."""
    disk = mount("size=1m,ro")
    process = start_training(tiny_classifier(**LONG), disk / "run", config_folder=disk.parent)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 2
    assert printed.startswith(f"error: usage: {disk}/run: the run folder cannot be written: Read-only file system")
    assert printed.count("\n") == 1
