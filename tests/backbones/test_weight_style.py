"""Weights of a ResNet in PyTorch's or Caffe's style: the wrong style is refused where it is known, else warned of."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vertebra.backbones import create_backbone, load_backbone_weights, weights_input, weights_metadata
from vertebra.backbones.weight_style import guess_style
from vertebra.structures import CheckpointError

from ..helpers.reference_resnets import randomize

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "weights" / "resnet50_msra_c4.pt"
SHIPPED = Path(__file__).parents[2] / "backbones" / "pretrained" / "shapes_resnet10t.safetensors"


def trained(name, style="pytorch", **options):
    """Return a backbone whose first norm has the statistics of pixels of unit variance, or 58 times that for Caffe."""
    backbone = randomize(create_backbone(name, style=style, **options))
    convolution, norm = backbone.conv1, backbone.bn1
    if isinstance(convolution, torch.nn.Sequential):
        convolution, norm = backbone.conv1[0], backbone.conv1[1]
    scale = {"pytorch": 1.0, "caffe": 58.0}[style]
    norm.running_var.copy_(scale**2 * convolution.weight.detach().flatten(1).square().sum(dim=1))
    return backbone


@pytest.mark.parametrize("name", ["resnet18", "resnet26", "resnet14t"])
@pytest.mark.parametrize(("saved", "built"), [("caffe", "pytorch"), ("pytorch", "caffe")])
def test_weights_saved_with_the_other_style_are_refused(name, saved, built, tmp_path):
    """By hand: exit code 4, both styles and the option to change; also before anything is loaded."""
    backbone, path = trained(name, saved), tmp_path / "backbone.safetensors"
    save_file(backbone.state_dict(), path, weights_metadata(backbone.input, backbone.config, None))
    with pytest.raises(
        CheckpointError, match=f"trained with style='{saved}'.*the backbone has style='{built}'"
    ) as caught:
        create_backbone(name, style=built, weights=path)
    assert caught.value.exit_code == 4 and f"build it with style='{saved}'" in str(caught.value)
    with pytest.raises(CheckpointError, match="style"):
        weights_input(create_backbone(name, style=built).config, path)
    assert create_backbone(name, style=saved, weights=path).input == backbone.input


@pytest.mark.parametrize("source", ["torchvision/IMAGENET1K_V1", "timm/a1_in1k"])
def test_torchvisions_and_timms_weights_are_refused_in_caffe_style(source):
    """By hand: both libraries stride in the 3x3 convolution and take RGB pixels."""
    with pytest.raises(CheckpointError, match="trained with style='pytorch'"):
        weights_input(create_backbone("resnet50", style="caffe", levels=("c2",)).config, source)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["resnet18", "resnet26", "resnet14t"])
@pytest.mark.parametrize(("saved", "built"), [("caffe", "pytorch"), ("pytorch", "caffe")])
def test_file_that_looks_like_the_other_style_is_warned_of(name, saved, built, ending, tmp_path, caplog):
    """Law: pixels 58 times as large give the first norm 58^2 times the variance; names and shapes are equal."""
    weights, path = trained(name, saved).state_dict(), tmp_path / f"weights.{ending}"
    (torch.save if ending == "pth" else save_file)(weights, path)
    with caplog.at_level(logging.INFO, "vertebra"):
        create_backbone(name, style=built, weights=path)
        create_backbone(name, style=saved, weights=path)
    suspicious, plain = caplog.records
    assert suspicious.levelno == logging.WARNING and f"build the backbone with style='{saved}'" in suspicious.message
    assert plain.levelno == logging.INFO and "WARNING" not in plain.message
    assert "WARNING: loaded as" in load_backbone_weights(create_backbone(name, style=built), path)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published weights resnet50_msra_c4.pt")
def test_published_caffe_weights_are_warned_of_in_pytorch_style():
    """Oracle: weights published in Caffe's style."""
    levels = ("c2", "c3", "c4")
    line = load_backbone_weights(create_backbone("resnet50", levels=levels), PUBLISHED)
    assert "WARNING" in line and "style='caffe'" in line
    assert "WARNING" not in load_backbone_weights(create_backbone("resnet50", levels=levels, style="caffe"), PUBLISHED)


def test_trained_weights_without_metadata_are_not_warned_of(tmp_path):
    """Learning: real weights in PyTorch's style, those that ship with the package."""
    save_file(load_file(SHIPPED), tmp_path / "weights.safetensors")
    backbone = create_backbone("resnet10t", levels=("c2", "c3", "c4"))
    assert "WARNING" not in load_backbone_weights(backbone, tmp_path / "weights.safetensors")


@pytest.mark.parametrize("norm", ["group", "none"])
def test_style_is_not_guessed_without_running_statistics(norm):
    """By hand: such weights say nothing about the scale of their pixels."""
    assert guess_style(create_backbone("resnet18", norm=norm).state_dict()) is None


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50d"])
def test_untrained_weights_look_like_pytorch(name):
    """By hand: a state dict that was never trained is no reason for a warning."""
    assert guess_style(create_backbone(name).state_dict()) == "pytorch"
