"""Caffe's style: ResNets as their authors published them, with the stride in the first 1x1 and BGR pixels."""

from pathlib import Path

import cv2
import pytest
import torch
import torch.nn.functional as F

from vertebra.backbones import create_backbone
from vertebra.models import Preprocess
from vertebra.structures import Images

from ..helpers.reference_resnets import (
    assert_equal,
    backbone_weights,
    count_blocks,
    load_backbone,
    normalize,
    random_pixels,
    reference_network,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"
WEIGHTS = SHARED / "weights" / "resnet50_msra_c4.pt"


def layer_by_layer(weights, pixels):
    """Return every layer's output by name, of a bottleneck network written out with the stride in the first 1x1."""
    layers = {"conv1": F.conv2d(pixels, weights["conv1.weight"], stride=2, padding=3)}
    hidden = F.max_pool2d(F.relu(normalize(weights, "bn1", layers["conv1"])), 3, stride=2, padding=1)
    for layer in sorted({name.partition(".")[0] for name in weights if name.startswith("layer")}):
        for block in range(count_blocks(weights, layer)):
            name, stride = f"{layer}.{block}", 2 if block == 0 and layer != "layer1" else 1
            layers[f"{name}.conv1"] = F.conv2d(hidden, weights[f"{name}.conv1.weight"], stride=stride)
            residual = F.relu(normalize(weights, f"{name}.bn1", layers[f"{name}.conv1"]))
            layers[f"{name}.conv2"] = F.conv2d(residual, weights[f"{name}.conv2.weight"], padding=1)
            residual = F.relu(normalize(weights, f"{name}.bn2", layers[f"{name}.conv2"]))
            layers[f"{name}.conv3"] = F.conv2d(residual, weights[f"{name}.conv3.weight"])
            if block == 0:
                hidden = F.conv2d(hidden, weights[f"{name}.downsample.0.weight"], stride=stride)
                hidden = normalize(weights, f"{name}.downsample.1", hidden)
            hidden = F.relu(normalize(weights, f"{name}.bn3", layers[f"{name}.conv3"]) + hidden)
            layers[name] = hidden
    return layers


def outputs_of(backbone, pixels, names):
    """Return the outputs of the backbone's modules with these names."""
    outputs = {}
    for name in names:
        module = backbone.get_submodule(name)
        module.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output.clone()}))
    with torch.no_grad():
        backbone(pixels)
    return {name: outputs[name] for name in names}


def test_caffe_style_equals_the_layers_written_out():
    """Oracle: an independent forward pass, every layer, on odd sizes."""
    weights = backbone_weights(reference_network("resnet50"))
    with torch.no_grad():
        expected = layer_by_layer(weights, random_pixels())
    assert_equal(
        outputs_of(load_backbone("resnet50", weights, style="caffe").eval(), random_pixels(), expected), expected
    )


@pytest.mark.skipif(not WEIGHTS.exists(), reason="needs the published weights resnet50_msra_c4.pt")
def test_published_weights_on_a_photo_equal_the_layers_written_out():
    """Oracle: the independent forward pass on BGR pixels 0..255 less the published mean."""
    weights = torch.load(WEIGHTS, weights_only=True)
    photo = cv2.imread(str(next((SHARED / "tiny_coco").rglob("*.jpg"))))[:161, :231]
    with torch.no_grad():
        blob = torch.tensor(photo).permute(2, 0, 1)[None].float()
        expected = layer_by_layer(weights, blob - torch.tensor([103.939, 116.779, 123.68])[:, None, None])
    backbone = create_backbone("resnet50", style="caffe", levels=("c2", "c3", "c4"), weights=WEIGHTS).eval()
    rgb = Images.from_list([torch.tensor(photo[..., ::-1].copy()).permute(2, 0, 1)], divisor=1)
    outputs = outputs_of(backbone, Preprocess(backbone.input)(rgb), expected)
    assert len(outputs) == 1 + 4 * (3 + 4 + 6)
    for name, output in outputs.items():
        torch.testing.assert_close(output, expected[name], rtol=1e-4, atol=1e-3)


def test_dilated_network_contains_the_strided_one():
    """Law (1606.00915): every second or fourth cell of the dilated network is a cell of the strided network."""
    weights = backbone_weights(reference_network("resnet50"))
    strided, dilated = (
        load_backbone("resnet50", weights, style="caffe", output_stride=stride).double().eval() for stride in (32, 8)
    )
    pixels = random_pixels(49, 65).double()
    with torch.no_grad():
        expected, features = strided(pixels), dilated(pixels)
    torch.testing.assert_close(features["c4"][..., ::2, ::2], expected["c4"])
    torch.testing.assert_close(features["c5"][..., ::4, ::4], expected["c5"])


def test_style_does_not_change_the_layers_of_basic_blocks():
    """Law: basic blocks have no 1x1 convolution to stride in, so that only the pixels differ."""
    weights = backbone_weights(reference_network("resnet18"))
    with torch.no_grad():
        assert_equal(
            load_backbone("resnet18", weights, style="caffe", output_stride=16).eval()(random_pixels()),
            load_backbone("resnet18", weights, output_stride=16).eval()(random_pixels()),
        )
