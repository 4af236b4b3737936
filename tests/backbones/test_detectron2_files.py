"""Backbones in files of detectron2 and Caffe2: names, pixels and style."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vertebra
from vertebra.backbones import ResNet, weights_input
from vertebra.backbones.detectron2_files import rename_detectron2_backbone
from vertebra.structures import DETECTRON2_INPUT, DETECTRON2_INPUT_WITH_STD, CheckpointError, InputConfig

BLOBS = {
    "conv1_w": "stem.conv1.weight",
    "res_conv1_bn_gamma": "stem.conv1.norm.weight",
    "res_conv1_bn_running_var": "stem.conv1.norm.running_var",
    "res2_0_branch1_w": "res2.0.shortcut.weight",
    "res5_0_branch1_bn_beta": "res5.0.shortcut.norm.bias",
    "res4_5_branch2c_bn_running_mean": "res4.5.conv3.norm.running_mean",
    "res5_1_branch2a_w": "res5.1.conv1.weight",
    "res4_5_branch2b_w": "res4.5.conv2.weight",
}
"""Names in MSRA's R-50.pkl and in detectron2's models, from a log in detectron2's issues 1698 and 2267."""


def build(name: str = "resnet26", **options) -> ResNet:
    """Build the first two stages of a ResNet, which have all types of layers."""
    return vertebra.create_backbone(name, **{"levels": ("c2", "c3"), **options})


def backbone(name: str = "resnet26", **options) -> ResNet:
    """Return a ResNet with random weights, also of its norms, whose stem has the scale of its style's pixels."""
    torch.manual_seed(0)
    network = build(name, norm="frozen", **options)
    for tensor_name, tensor in network.state_dict().items():
        if "bn" in tensor_name or "downsample.1" in tensor_name:
            tensor.uniform_(0.5, 1.5)
    scale = 58.0 if options.get("style") == "caffe" else 1.0
    network.bn1.running_var.copy_(network.conv1.weight.square().sum(dim=(1, 2, 3)) * scale**2)
    return network.eval()


def caffe2_names(tensors: dict[str, Tensor], norm: str = "bn") -> dict[str, Tensor]:
    """Return a state dict with the names of Caffe2's blobs."""
    values = {"running_mean": "rm", "running_var": "riv", "bias": "b"}
    named = {}
    for name, tensor in tensors.items():
        *path, value = name.split(".")
        if path in (["conv1"], ["bn1"]):
            start, is_norm = "conv1" if path == ["conv1"] else "res_conv1", path == ["bn1"]
        else:
            stage, block, layer = int(path[0][-1]) + 1, path[1], path[2]
            branch = "1" if layer == "downsample" else f"2{'abc'[int(layer[-1]) - 1]}"
            start, is_norm = f"res{stage}_{block}_branch{branch}", layer.startswith("bn") or path[-1] == "1"
        ending = values.get(value, "s" if is_norm else "w")
        named[f"{start}_{norm}_{ending}" if is_norm else f"{start}_{ending}"] = tensor
    return named


def detectron2_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with the names that detectron2's conversion of torchvision's ResNets gives."""
    named = {}
    for name, tensor in tensors.items():
        new = name if name.startswith("layer") else f"stem.{name}"
        new = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", new)
        new = re.sub(r"bn(\d)", r"conv\1.norm", new)
        named[new.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")] = tensor
    return named


def write(path: Path, tensors: dict[str, Tensor], **facts) -> str:
    """Write a pickle as detectron2 does if there are ``facts``, otherwise as Caffe2 does."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    path.write_bytes(pickle.dumps({"model": arrays, **facts} if facts else arrays, 2))
    return str(path)


def test_names_of_blobs_stand_for_detectron2s():
    """Oracle: names that detectron2's log lists for its R-50.pkl, translated from both sides."""
    for blob, other in BLOBS.items():
        tensor = torch.ones(1)
        from_blob = rename_detectron2_backbone({blob: tensor, "conv1_w": tensor})
        from_other = rename_detectron2_backbone({other: tensor, "res2.0.conv1.weight": tensor})
        assert next(iter(from_blob)) == next(iter(from_other)) not in (blob, other)


def test_names_are_those_of_detectron2s_conversion():
    """Oracle: detectron2's own conversion of Caffe2's names, for every tensor of a ResNet-50 and its classifier."""
    conversion = pytest.importorskip("detectron2.checkpoint.c2_model_loading", reason="detectron2 is not installed")
    tensors = backbone("resnet50", levels=None).state_dict()
    blobs = [*caffe2_names(tensors), "pred_w", "pred_b"]
    assert len(blobs) == len(tensors) + 2
    converted = conversion.convert_basic_c2_names(blobs)
    from_blobs = rename_detectron2_backbone(dict.fromkeys(blobs, torch.ones(1)))
    from_converted = rename_detectron2_backbone(dict.fromkeys(converted, torch.ones(1)))
    assert list(from_blobs) == list(from_converted) == [*tensors, "fc.weight", "fc.bias"]


def test_msras_weights_load_in_caffe_style(tmp_path):
    """Law: a ResNet that was renamed to Caffe2's blobs gives the same features, with detectron2's pixels."""
    source = backbone(style="caffe")
    blobs = caffe2_names(source.state_dict()) | {"fc1000_w": torch.ones(10, 512), "fc1000_b": torch.ones(10)}
    file = write(tmp_path / "R-26.pkl", blobs)
    loaded = build(weights=file, style="caffe", norm="frozen").eval()
    assert loaded.input == DETECTRON2_INPUT == weights_input(loaded.config, file)
    pixels = torch.randn(1, 3, 64, 64) * 50
    with torch.no_grad():
        for level, features in source(pixels).items():
            assert torch.equal(loaded(pixels)[level], features)


def test_msras_weights_are_refused_in_pytorch_style(tmp_path):
    """By hand: R-50.pkl is refused by a ResNet of PyTorch's style; the message says to build one of Caffe's style."""
    file = write(tmp_path / "R-26.pkl", caffe2_names(backbone(style="caffe").state_dict()))
    with pytest.raises(CheckpointError, match=r"R-26\.pkl: .*style='caffe'.*: build it with style='caffe'"):
        build(weights=file)


def test_resnexts_of_fair_have_their_stride_in_the_3x3_convolution(tmp_path):
    """By hand: X-101-32x8d.pkl needs PyTorch's style, and BGR pixels with a standard deviation."""
    file = write(tmp_path / "X.pkl", caffe2_names(backbone("resnext50_32x4d").state_dict()))
    loaded = build("resnext50_32x4d", weights=file, norm="frozen")
    assert loaded.input == DETECTRON2_INPUT_WITH_STD
    with pytest.raises(CheckpointError, match="build it with style='pytorch'"):
        build("resnext50_32x4d", weights=file, style="caffe")


def test_group_norms_of_fair_load(tmp_path):
    """By hand: R-50-GN.pkl needs PyTorch's style and pixels without a standard deviation."""
    source = build(norm="group")
    file = write(tmp_path / "R-26-GN.pkl", caffe2_names(source.state_dict(), norm="gn"))
    loaded = build(weights=file, norm="group")
    assert loaded.input == DETECTRON2_INPUT
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in source.state_dict().items())


def test_torchvisions_weights_in_detectron2s_format_load(tmp_path):
    """By hand: a pickle that states torchvision as its author gives a backbone RGB pixels and PyTorch's style."""
    source = backbone()
    tensors = detectron2_names(source.state_dict() | {"fc.weight": torch.ones(10, 512)})
    assert "res2.0.shortcut.norm.running_var" in tensors
    file = write(tmp_path / "R-26.pkl", tensors, __author__="torchvision", matching_heuristics=True)
    loaded = build(weights=file, norm="frozen")
    assert loaded.input == InputConfig()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in source.state_dict().items())
    with pytest.raises(CheckpointError, match="build it with style='pytorch'"):
        build(weights=file, style="caffe")


@pytest.mark.parametrize("ending", ["pkl", "pth"])
def test_backbone_of_a_detector_loads(ending, tmp_path):
    """By hand: of a complete detector of detectron2 the backbone is loaded, and the report counts the rest."""
    source = backbone(style="caffe")
    tensors = {f"backbone.bottom_up.{name}": tensor for name, tensor in detectron2_names(source.state_dict()).items()}
    tensors |= {"backbone.fpn_lateral2.weight": torch.ones(1), "roi_heads.box_head.fc1.weight": torch.ones(1)}
    file = tmp_path / f"model_final.{ending}"
    if ending == "pkl":
        write(file, tensors, __author__="Detectron2 Model Zoo")
    else:
        torch.save(tensors, file)
    loaded = build(style="caffe", norm="frozen")
    report = vertebra.load_backbone_weights(loaded, file)
    assert "other parts of the model (2)" in report
    assert "WARNING" not in report
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in source.state_dict().items())
    assert "style='caffe'" in vertebra.load_backbone_weights(build(), file)


def test_fused_norms_of_the_first_detectron_load(tmp_path):
    """By hand: Caffe2's fused norm (scale and shift) becomes a frozen norm with mean 0 and variance 1."""
    blobs = caffe2_names(backbone(style="caffe").state_dict())
    fused = {name: tensor for name, tensor in blobs.items() if not name.endswith(("_rm", "_riv"))}
    file = write(tmp_path / "R-26.pkl", fused)
    loaded = build(weights=file, style="caffe", norm="frozen").eval()
    hidden = torch.randn(1, 64, 8, 8)
    expected = hidden * fused["res_conv1_bn_s"][:, None, None] + fused["res_conv1_bn_b"][:, None, None]
    torch.testing.assert_close(loaded.bn1(hidden), expected)
