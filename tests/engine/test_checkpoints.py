"""Damaged checkpoints: every file has a checksum, and a run falls back to the checkpoint before."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from vertebra.engine import experiment_config, train
from vertebra.inference import checkpoint_paths, load_checkpoint_model, open_checkpoint
from vertebra.structures import CheckpointError

from ..helpers.runs import equal_tensors, newest_weights, read_metrics
from ..helpers.tiny import tiny_classifier


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """Return a finished, uninterrupted run with checkpoints of steps 2 and 4."""
    output = tmp_path_factory.mktemp("checkpoints") / "run"
    train(tiny_classifier(), output)
    return output


@pytest.fixture
def run(unbroken, tmp_path) -> Path:
    """Return a copy of the run, for a test to damage."""
    return shutil.copytree(unbroken, tmp_path / "run")


def newest(run: Path) -> Path:
    return checkpoint_paths(run / "checkpoints")[-1]


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_resuming_past_a_damaged_checkpoint_is_exact(run, unbroken):
    """Law: the resumed run ends like the uninterrupted one.

    The damaged checkpoint is kept under another name.
    """
    flip_last_bit(newest(run) / "model.safetensors")
    train(tiny_classifier(), run, resume=True)
    assert open_checkpoint(newest(run)).step == 4
    assert equal_tensors(newest_weights(run), newest_weights(unbroken)) and read_metrics(run) == read_metrics(unbroken)
    assert [path.name for path in (run / "checkpoints").glob("damaged-*")] == ["damaged-step-0000004"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("state.json", '"step": 4', '"step": 5'),
        ("state.json", '"circle"', '"cirCle"'),
        ("state.json", "resnet10t", "resnet1Ot"),
        ("SHA256SUMS", "model.safetensors", "nodel.safetensors"),
    ],
    ids=lambda value: value.strip('"'),
)
def test_changed_byte_in_a_checkpoint_is_an_error(run, file, old, new):
    """docs/faults.md row 102. By hand: exit code 4, and a run falls back to the checkpoint before."""
    path = newest(run) / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(newest(run))
    assert caught.value.exit_code == 4
    assert open_checkpoint(run, lambda line: None).step == 2


def test_unknown_part_in_a_checkpoint_is_an_error(run):
    """docs/faults.md row 102. By hand: a backbone that does not exist, with correct checksums: exit code 4 when the
    model or config is built."""
    state, sums = newest(run) / "state.json", newest(run) / "SHA256SUMS"
    before = hashlib.sha256(state.read_bytes()).hexdigest()
    state.write_text(state.read_text().replace("resnet10t", "resnet1Ot"))
    sums.write_text(sums.read_text().replace(before, hashlib.sha256(state.read_bytes()).hexdigest()))
    checkpoint = open_checkpoint(newest(run))
    for build in (load_checkpoint_model, experiment_config):
        with pytest.raises(CheckpointError, match="there is no backbone named 'resnet1Ot'") as caught:
            build(checkpoint)
        assert caught.value.exit_code == 4


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="not a GNU system")
def test_sha256sum_confirms_a_checkpoint(unbroken):
    """Oracle: coreutils' sha256sum accepts every file of a checkpoint."""
    output = subprocess.check_output(["sha256sum", "-c", "SHA256SUMS"], cwd=newest(unbroken), text=True)
    assert output.count(": OK") == len(list(newest(unbroken).iterdir())) - 1 == 4


def test_checkpoint_has_the_permissions_of_the_run_folder(unbroken):
    """By hand: its folder has the permissions of any other folder that the process creates."""
    assert newest(unbroken).stat().st_mode == unbroken.stat().st_mode
