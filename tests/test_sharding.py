"""Weights in shares (FSDP2), by two processes that gloo joins: the training is that of one process."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vertebra.backbones import create_backbone
from vertebra.engine import AdamWConfig, checkpoint_paths, load_model, override, train
from vertebra.engine.sharding import blocks
from vertebra.structures import UsageError

from .runs import equal
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
def test_a_backbone_is_cut_between_its_blocks(name, expected):
    """By hand: residual and transformer blocks, and no layer of a stem or a shortcut."""
    backbone = create_backbone(name)
    names = {module: name for name, module in backbone.named_modules()}
    assert [names[block] for block in blocks(backbone)] == expected


def test_shares_take_the_steps_of_one_process_and_resume_exactly(shapes, tmp_path):
    """A law: with micro-batches, clipping and averaged weights the steps of two processes and their checkpoint's files
    are those of one (1e-5 relative); and a run that is cut off ends bit-equal."""
    config = experiment(shapes, accumulate=3, average_decay=0.9, clip_norm=1.0, eval_every=2)
    config = config.model_copy(update={"optimizer": AdamWConfig(lr=1e-3)})
    train(config, tmp_path / "alone")
    launch(2, tmp_path, config.model_copy(update={"parallel": "fsdp"}))
    run, alone = (tmp_path / name for name in ("run", "alone"))
    assert_same_steps(run, alone, weights_within=1e-5)  # Adam makes steps of the same size of the smallest gradients
    averages = (load_model(folder).state_dict() for folder in (run, alone))
    torch.testing.assert_close(*averages, rtol=1e-4, atol=1e-5)
    ours, theirs = (checkpoint_paths(folder / "checkpoints")[-1] for folder in (run, alone))
    for file in theirs.glob("*.safetensors"):
        assert describe(ours / file.name) == describe(file)
    unbroken = {file.name: load_file(file) for file in ours.glob("*.safetensors")}
    shutil.rmtree(ours)
    launch(2, tmp_path, config.model_copy(update={"parallel": "fsdp"}), "--resume")
    assert len(unbroken) == 3
    for name, tensors in unbroken.items():
        assert equal(load_file(ours / name), tensors)


def describe(file: Path) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """What a file holds, but for the numbers."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in load_file(file).items()}


def test_half_precision_and_channels_last_have_no_shares(shapes):
    """By hand: one line each."""
    config = experiment(shapes)
    for change in ("precision=fp16", "channels_last=true"):
        with pytest.raises(UsageError, match="parallel='fsdp' goes with"):
            override(config, ["parallel=fsdp", change])
