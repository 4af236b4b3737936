"""Sharded weights (FSDP2) on two processes with gloo: the training equals that of one process."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vertebra.backbones import create_backbone
from vertebra.engine import AdamWConfig, ExperimentConfig, override, train
from vertebra.engine.distributed.sharding import blocks
from vertebra.inference import checkpoint_paths, load_model
from vertebra.structures import UsageError

from ..helpers.runs import equal_tensors
from .test_several_processes import assert_same_steps, experiment, launch


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet26d", [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]),
        ("timm/test_vit", [f"net.model.blocks.{block}" for block in range(6)]),
        (
            "timm/test_convnext",
            [f"net.stages_{stage}.blocks.{n}" for stage, d in enumerate((1, 2, 4, 2)) for n in range(d)],
        ),
    ],
)
def test_backbone_is_sharded_by_block(name, expected):
    """By hand: residual and transformer blocks, and no layer of a stem or a shortcut."""
    backbone = create_backbone(name)
    names = {module: name for name, module in backbone.named_modules()}
    assert [names[block] for block in blocks(backbone)] == expected


@pytest.fixture(scope="module")
def config(shapes) -> ExperimentConfig:
    """Return an experiment with micro-batches, clipping and EMA."""
    config = experiment(shapes, recipe={"accumulate": 3, "ema_decay": 0.9, "clip_norm": 1.0}, evaluation={"every": 2})
    return config.replace(recipe={"optimizer": AdamWConfig(lr=1e-3), "parallel": "fsdp"})


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory) -> Path:
    """Return the folder in which two processes have finished a sharded run."""
    folder = tmp_path_factory.mktemp("shares")
    launch(2, folder, config)
    return folder


def test_fsdp_equals_one_process(config, folder):
    """Law: two ranks take the steps of one process, and their checkpoint has the same files and shapes (1e-5
    relative)."""
    train(config, folder / "alone")
    run, alone = (folder / name for name in ("run", "alone"))
    assert_same_steps(run, alone, weights_within=1e-5)  # Adam makes steps of the same size of the smallest gradients
    averages = (load_model(folder).state_dict() for folder in (run, alone))
    torch.testing.assert_close(*averages, rtol=1e-4, atol=1e-5)
    ours, theirs = (checkpoint_paths(folder / "checkpoints")[-1] for folder in (run, alone))
    for file in theirs.glob("*.safetensors"):
        assert describe(ours / file.name) == describe(file)


@pytest.mark.slow
def test_fsdp_resumes_exactly(config, folder, tmp_path):
    """Law: a run that lost its last checkpoint ends bit-equal."""
    shutil.copytree(folder / "run", tmp_path / "run", symlinks=True)
    ours = checkpoint_paths(tmp_path / "run" / "checkpoints")[-1]
    unbroken = {file.name: load_file(file) for file in ours.glob("*.safetensors")}
    shutil.rmtree(ours)
    launch(2, tmp_path, config, "--resume")
    assert len(unbroken) == 3
    for name, tensors in unbroken.items():
        assert equal_tensors(load_file(ours / name), tensors)


def describe(file: Path) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Return the dtype and shape of every tensor in a file."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in load_file(file).items()}


def test_fp16_and_channels_last_are_refused_with_fsdp(shapes):
    """By hand: one line for each."""
    config = experiment(shapes)
    for change in ("recipe.precision=fp16", "recipe.channels_last=true"):
        with pytest.raises(UsageError, match="parallel='fsdp' needs"):
            override(config, ["recipe.parallel=fsdp", change])
