"""The networks for small images and their plain counterparts, which neither torchvision nor timm has."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vertebra.backbones import create_backbone

from ..helpers.reference_resnets import (
    CIFAR,
    assert_equal,
    count_blocks,
    load_backbone,
    normalize,
    random_pixels,
    randomize,
)

SHALLOW = [name for name in CIFAR if int(name[-2:]) in (20, 32)]
PUBLISHED = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}  # 10^6 parameters: 1512.03385 Table 6


def layer_by_layer(weights, pixels, shortcut):
    """Return the levels of a network written out from 1512.03385 section 4.2, with shortcuts of option A or none."""
    hidden = F.relu(normalize(weights, "bn1", F.conv2d(pixels, weights["conv1.weight"], padding=1)))
    features = {}
    for level, layer in (("c0", "layer1"), ("c1", "layer2"), ("c2", "layer3")):
        for block in range(count_blocks(weights, layer)):
            name, stride = f"{layer}.{block}", 2 if block == 0 and layer != "layer1" else 1
            residual = F.conv2d(hidden, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            residual = F.relu(normalize(weights, f"{name}.bn1", residual))
            residual = F.conv2d(residual, weights[f"{name}.conv2.weight"], padding=1)
            residual = normalize(weights, f"{name}.bn2", residual)
            kept = torch.zeros_like(residual)
            kept[:, : hidden.shape[1]] = hidden[:, :, ::stride, ::stride]
            hidden = F.relu(residual + kept if shortcut else residual)
        features[level] = hidden
    return features


@pytest.mark.parametrize("name", SHALLOW)
def test_features_equal_the_paper_written_out(name):
    """Oracle: an independent forward pass, on odd sizes."""
    weights = randomize(create_backbone(name)).state_dict()
    pixels = random_pixels(33, 31)
    with torch.no_grad():
        features = load_backbone(name, weights).eval()(pixels)
        assert_equal(features, layer_by_layer(weights, pixels, shortcut="resnet" in name))


@pytest.mark.parametrize("name", CIFAR)
def test_depth_and_parameters_are_the_papers(name):
    """Oracle: 6n + 2 weighted layers including the classifier, and the parameter counts of Table 6."""
    with torch.device("meta"):
        backbone = create_backbone(name)
    depth = int(name.removeprefix("cifar_resnet").removeprefix("cifar_plain"))
    assert 1 + sum(isinstance(module, nn.Conv2d) for module in backbone.modules()) == depth
    parameters = sum(parameter.numel() for parameter in backbone.parameters()) + 64 * 10 + 10
    assert round(parameters / 1e6, 2 if depth < 100 else 1) == PUBLISHED[depth]


def test_plain_network_takes_the_weights_of_its_residual_counterpart():
    """Law: a shortcut of option A has no weights, so that the two differ by it alone (1512.03385 section 4.2)."""
    plain, residual = create_backbone("cifar_plain20"), create_backbone("cifar_resnet20")
    plain.load_state_dict(residual.state_dict())
    with torch.no_grad():
        assert not torch.equal(plain(random_pixels())["c2"], residual(random_pixels())["c2"])
