"""Reference networks of the residual family from torchvision and timm, with random weights."""

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import get_model, list_models

from vertebra.backbones import RESNETS, create_backbone

LEVELS = ("c2", "c3", "c4", "c5")
LAYERS = ("layer1", "layer2", "layer3", "layer4")
CIFAR = [name for name in RESNETS if name.startswith("cifar")]
IMAGENET = [name for name in RESNETS if name not in CIFAR]
WRONG_DEPTHS = ["ecaresnext50t_32x4d"]  # timm before 1.0.31 gives every stage two blocks
TORCHVISION = [name for name in IMAGENET if name in list_models(module=torchvision.models)]


def reference_network(name, output_stride=32):
    """Return the network from torchvision, or from timm if torchvision lacks it, with random weights and statistics."""
    with torch.device("meta"):
        if name in TORCHVISION and (output_stride == 32 or RESNETS[name].block == "bottleneck"):
            dilate = [False, output_stride <= 8, output_stride <= 16]
            reference = get_model(name, weights=None, replace_stride_with_dilation=dilate)
        elif timm.is_model(name):
            options = {"layers": RESNETS[name].depths} if name in WRONG_DEPTHS else {}
            reference = timm.create_model(name, output_stride=output_stride, **options)
        else:
            reference = timm_resnet(RESNETS[name], output_stride)
    return randomize(reference.to_empty(device="cpu"))


def timm_resnet(spec, output_stride):
    """Return timm's ResNet with the options of a row, for a network that neither library has under its name."""
    block = {"basic": timm.models.resnet.BasicBlock, "bottleneck": timm.models.resnet.Bottleneck}[spec.block]
    stem_type, stem_width = {1: ("", 64), 3: ("deep", spec.stem[0])}[len(spec.stem)]
    if spec.stem[:1] * 2 != spec.stem[:2] and stem_type:
        stem_type, stem_width = "deep_tiered", spec.stem[1]
    return timm.models.resnet.ResNet(
        block,
        spec.depths,
        output_stride=output_stride,
        cardinality=spec.groups,
        base_width=spec.width_per_group,
        stem_type=stem_type,
        stem_width=stem_width,
        avg_down=spec.shortcut == "average",
        block_args={"attn_layer": spec.attention} if spec.attention != "none" else {},
    )


def randomize(network):
    """Fill a network with weights and statistics of a plausible size, none of them a default, and return it."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.2, generator=generator)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.num_batches_tracked.zero_()
    return network


def reference_features(reference, pixels):
    """Return c2..c5 of a network of torchvision or timm."""
    hidden = reference.maxpool(torch.relu(reference.bn1(reference.conv1(pixels))))
    features = {}
    for level, layer in zip(LEVELS, LAYERS, strict=True):
        features[level] = hidden = getattr(reference, layer)(hidden)
    return features


def normalize(weights, name, hidden):
    """Apply the batch norm ``name`` of a state dict, in evaluation mode."""
    mean, variance, weight, bias = (
        weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(hidden, mean, variance, weight, bias)


def count_blocks(weights, layer):
    """Count the blocks of a stage of a state dict."""
    return len({name.split(".")[1] for name in weights if name.startswith(f"{layer}.")})


def backbone_weights(reference):
    """Return a network's state dict without the classifier."""
    return {key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")}


def load_backbone(name, weights, **options):
    """Return the backbone ``name`` with these weights, loaded strictly."""
    with torch.device("meta"):
        backbone = create_backbone(name, **options)
    backbone.load_state_dict({key: value.clone() for key, value in weights.items()}, assign=True)
    return backbone


def random_pixels(height=65, width=97, channels=3):
    """Return a batch of two images, of sizes that no stride divides by default."""
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(1))


def assert_equal(features, expected):
    """Check that two pyramids have the same levels, bit for bit."""
    assert list(features) == list(expected)
    for level in features:
        assert features[level].isfinite().all()
        assert torch.equal(features[level], expected[level]), level
