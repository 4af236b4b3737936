"""Unknown names of backbones and weights: the error suggests the nearest useful ones."""

import inspect

import pytest
import torch
from torchvision.models import ResNet50_Weights

from vertebra.backbones import BACKBONES, create_backbone, weights_input
from vertebra.structures import CheckpointError, UsageError


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("swin_t", "did you mean 'timm/swin_tiny_patch4_window7_224'?"),
        ("timm/swin_t", "did you mean 'timm/swin_tiny_patch4_window7_224'?"),
        ("vit_b_16", "did you mean 'timm/vit_base_patch16_224'"),
        ("mobilenet_v3_large", "did you mean 'timm/mobilenetv3_large_100'"),
        ("convnext_tiny", "did you mean 'timm/convnext_tiny'?"),
        ("convnext_tinyy", "did you mean 'timm/convnext_tiny'"),
        ("convnext_tiny.fb_in1k", "did you mean 'timm/convnext_tiny' with weights='timm/fb_in1k'?"),
        ("resnet50.a1_in1k", "did you mean 'resnet50' with weights='timm/a1_in1k'?"),
        ("ResNet50", "did you mean 'resnet50'?"),
        ("resnet51", "did you mean 'resnet50'"),
        ("abcdefgh", "list them with `vertebra list backbones`"),
    ],
)
def test_unknown_backbone_suggests_the_nearest(name, suggestion):
    """By hand: exit code 2 and the nearest name, for names of torchvision and timm, with tags, capitals or misspelt."""
    with pytest.raises(UsageError) as caught:
        create_backbone(name)
    assert suggestion in str(caught.value) and caught.value.exit_code == 2


def test_config_with_an_unknown_backbone_suggests_the_nearest():
    """By hand: the name in a config is looked up in the same way."""
    with pytest.raises(UsageError, match="timm/swin_tiny_patch4_window7_224"):
        BACKBONES.resolve({"name": "swin_t"})


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("resnet50", "IMAGENET1K_V2", "no such file or source of weights: did you mean 'torchvision/IMAGENET1K_V2'?"),
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V2", "did you mean 'torchvision/IMAGENET1K_V2'?"),
        ("resnet50", "imagenet", "did you mean 'torchvision/IMAGENET1K_V2' or 'torchvision/IMAGENET1K_V1'?"),
        ("resnet50", "a1_in1k", "did you mean 'timm/a1_in1k'?"),
        ("resnet50", "resnet50.a1_in1k", "did you mean 'timm/a1_in1k'?"),
        ("resnet10t", "vertebra/shapes_resnet99", "did you mean 'vertebra/shapes_resnet10t'?"),
        ("resnet50", "weights/gone.pth", "or a source, such as 'torchvision/IMAGENET1K_V1'"),
        (
            "cifar_plain20",
            "gone.pth",
            "give the path of a file, or a source (list all with `vertebra list backbones cifar_plain20`",
        ),
        ("resnet18", "timm/a1_in1", "timm has no weights 'resnet18.a1_in1': did you mean 'a1_in1k'"),
        ("resnet18", "timm/resnet18gn.a1", "timm has no weights 'resnet18gn.a1': did you mean 'resnet18"),
        ("cifar_plain20", "timm", "timm has no weights 'cifar_plain20'"),
        (
            "resnet18",
            "torchvision/IMAGENET1K_V2",
            "'IMAGENET1K_V2' for resnet18: did you mean 'torchvision/IMAGENET1K_V1'",
        ),
        ("resnet50d", "torchvision/IMAGENET1K_V2", "or a source, such as 'timm/"),
        (
            "resnet18",
            "torchvision/ResNet18_Weights.V9",
            "torchvision has no weights 'ResNet18_Weights.V9' for resnet18",
        ),
    ],
)
def test_unknown_weights_suggest_the_nearest_source(name, source, message):
    """By hand: names without their library, whole names and missing files; exit code 4."""
    with torch.device("meta"):
        config = create_backbone(name).config
    with pytest.raises(CheckpointError) as caught:
        weights_input(config, source)
    assert message in str(caught.value) and caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": True}, "there is no option 'pretrained'"),
        ({"weights": True}, "weights must be the name of a source or a path, got True"),
        ({"weights": ResNet50_Weights.IMAGENET1K_V2}, "did you mean 'torchvision/IMAGENET1K_V2'?"),
    ],
)
def test_weights_as_torchvision_or_timm_take_them_suggest_a_source(options, message):
    """By hand: habits from the other libraries; exit code 2."""
    with pytest.raises(UsageError) as caught:
        inspect.unwrap(create_backbone)("resnet50", **options)  # without the shape checks that run in tests only
    assert message in str(caught.value) and "torchvision/IMAGENET1K_V2" in str(caught.value)
