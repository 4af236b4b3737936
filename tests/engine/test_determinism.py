"""``recipe.deterministic``: the same bits for any batch size, and an error if torch cannot guarantee them."""

import json

import pytest
import torch

from vertebra.data import ResizeConfig
from vertebra.engine import train
from vertebra.inference.numerics import deterministic_kernels
from vertebra.structures import UsageError
from vertebra.tools.cli import main

from ..helpers.runs import equal_tensors, newest_weights
from ..helpers.tiny import tiny_config


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """Return a run on images of the same size."""
    config = tiny_config(shapes, recipe={"deterministic": True}, evaluation={"batch_size": 4})
    val = config.val.replace(transform=ResizeConfig(short_sides=(64,), long_side=64))
    folder = tmp_path_factory.mktemp("deterministic")
    train(config.replace(val=val), folder / "run")
    return folder / "run"


def test_results_do_not_depend_on_the_batch_size(run, shapes, tmp_path):
    """docs/faults.md row 134. Law: evaluation with a batch size of four writes the same results file as image by
    image."""
    config = json.loads((run / "config.json").read_text())
    config["evaluation"]["batch_size"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["train", str(tmp_path / "config.json"), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert (run / "results.json").read_bytes() == (tmp_path / "run" / "results.json").read_bytes()
    assert equal_tensors(newest_weights(run), newest_weights(tmp_path / "run"))


def test_torch_settings_are_restored(run):
    """Law: torch's settings are changed inside the context only."""
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_kernels(True):
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()


def test_operation_without_deterministic_kernel_is_named():
    """Oracle: torch's own error, here for ``kthvalue`` on a GPU, becomes one line."""
    refusal = "kthvalue CUDA does not have a deterministic implementation, but you set 'torch.use_deterministic_..."
    with (
        pytest.raises(UsageError, match=r": kthvalue CUDA does not have a deterministic implementation: leave"),
        deterministic_kernels(True),
    ):
        raise RuntimeError(refusal)


@pytest.mark.gpu
def test_two_runs_on_a_gpu_are_bit_equal(shapes, tmp_path):
    """Law: equal weights, which the fastest GPU algorithms do not guarantee."""
    for name in ("first", "second"):
        train(tiny_config(shapes, recipe={"deterministic": True}), tmp_path / name, device="cuda")
    assert equal_tensors(newest_weights(tmp_path / "first"), newest_weights(tmp_path / "second"))
