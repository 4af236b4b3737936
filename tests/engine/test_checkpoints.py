"""Damaged checkpoints: every file of a checkpoint has a checksum, and a run falls back to the one before."""

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
    """Return a finished run that nothing interrupted, with checkpoints of steps 2 and 4."""
    output = tmp_path_factory.mktemp("checkpoints") / "run"
    train(tiny_classifier(), output)
    return output


@pytest.fixture
def run(unbroken, tmp_path) -> Path:
    """Return a copy of the run, to be damaged."""
    return shutil.copytree(unbroken, tmp_path / "run")


def newest(run: Path) -> Path:
    return checkpoint_paths(run / "checkpoints")[-1]


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_run_that_fell_back_saves_the_damaged_step_again(run, unbroken):
    """Law: resumed past a damaged checkpoint a run ends as the unbroken one.

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
def test_a_changed_letter_is_damage(run, file, old, new):
    """docs/faults.md row 102: exit code 4, and a run falls back to the checkpoint before."""
    path = newest(run) / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(newest(run))
    assert caught.value.exit_code == 4
    assert open_checkpoint(run, lambda line: None).step == 2


def test_a_part_that_this_version_does_not_know_is_an_error_of_the_checkpoint(run):
    """docs/faults.md row 102: exit code 4 where the part is needed, although the checksums are right."""
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
    """Oracle: coreutils finds every file of a checkpoint intact."""
    output = subprocess.check_output(["sha256sum", "-c", "SHA256SUMS"], cwd=newest(unbroken), text=True)
    assert output.count(": OK") == len(list(newest(unbroken).iterdir())) - 1 == 4


def test_a_checkpoint_has_the_permissions_of_the_run_folder(unbroken):
    """Law: its folder has the permissions that the process gives to any other."""
    assert newest(unbroken).stat().st_mode == unbroken.stat().st_mode
