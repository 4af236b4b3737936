"""The options of the residual family, each against another implementation or a law."""

from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import get_model
from torchvision.models.segmentation import deeplabv3_resnet50

from vertebra.backbones import create_backbone
from vertebra.backbones.layers import DeformableConv2d
from vertebra.ops import SyncBatchNorm
from vertebra.structures import UsageError

from ..helpers.reference_resnets import (
    assert_equal,
    backbone_weights,
    load_backbone,
    random_pixels,
    randomize,
    reference_features,
    reference_network,
)


def torchvision_network(name, **options):
    with torch.device("meta"):
        reference = get_model(name, weights=None, **options)
    return randomize(reference.to_empty(device="cpu"))


def test_output_stride_8_equals_torchvisions_deeplab():
    """Oracle: the backbone inside torchvision's DeepLabv3, bit for bit."""
    with torch.device("meta"):
        reference = deeplabv3_resnet50(weights=None, weights_backbone=None).backbone
    reference = randomize(reference.to_empty(device="cpu")).eval()
    backbone = load_backbone("resnet50", reference.state_dict(), output_stride=8).eval()
    with torch.no_grad():
        features, expected = backbone(random_pixels()), reference(random_pixels())
    assert torch.equal(features["c5"], expected["out"])


@pytest.mark.parametrize("output_stride", [8, 16])
def test_multi_grid_multiplies_the_dilation_of_each_block(output_stride):
    """Oracle: torchvision's network with the dilations of its last stage set by hand (1706.05587)."""
    reference = reference_network("resnet50", output_stride).eval()
    rate = 32 // output_stride  # 1706.05587 section 3.2.1: at stride 16 the rates are 2 x (1, 2, 4)
    for block, factor in zip(reference.layer4, (1, 2, 4), strict=True):
        block.conv2.dilation = block.conv2.padding = (rate * factor, rate * factor)
    backbone = load_backbone(
        "resnet50", backbone_weights(reference), output_stride=output_stride, multi_grid=(1, 2, 4)
    ).eval()
    with torch.no_grad():
        assert_equal(backbone(random_pixels()), reference_features(reference, random_pixels()))


def test_group_norm_equals_torchvisions():
    """Oracle: torchvision's network with group norm of 32 groups."""
    reference = torchvision_network("resnet50", norm_layer=partial(nn.GroupNorm, 32))
    backbone = load_backbone("resnet50", backbone_weights(reference), norm="group")
    with torch.no_grad():
        assert_equal(backbone(random_pixels()), reference_features(reference, random_pixels()))


def test_group_norm_equals_timms():
    """Oracle: timm's resnet50_gn, which has published weights."""
    with torch.device("meta"):
        reference = timm.create_model("resnet50_gn")
    reference = randomize(reference.to_empty(device="cpu"))
    backbone = load_backbone("resnet50", backbone_weights(reference), norm="group")
    with torch.no_grad():
        assert_equal(backbone(random_pixels()), reference_features(reference, random_pixels()))


def test_sync_norm_in_one_process_equals_batch_norm():
    """Law: with one process there is nothing to synchronize, and the state dict is batch norm's."""
    weights = backbone_weights(reference_network("resnet18"))
    batch, sync = load_backbone("resnet18", weights), load_backbone("resnet18", weights, norm="sync")
    with torch.no_grad():
        for mode in (True, False):
            expected = batch.train(mode)(random_pixels())
            torch.testing.assert_close(sync.train(mode)(random_pixels()), expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet26d"])
def test_network_without_norms_equals_norms_folded_into_convolutions(name):
    """Law: a norm in evaluation scales a convolution's output channels and adds a bias."""
    batch = load_backbone(name, backbone_weights(reference_network(name))).double().eval()
    bare = create_backbone(name, norm="none").double()
    convolutions = [module for module in bare.modules() if isinstance(module, nn.Conv2d)]
    originals = [module for module in batch.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in batch.modules() if isinstance(module, nn.BatchNorm2d)]
    for convolution, original, norm in zip(convolutions, originals, norms, strict=True):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        convolution.weight.data = original.weight.data * scale.data[:, None, None, None]
        convolution.bias.data = norm.bias.data - norm.running_mean * scale.data
    with torch.no_grad():
        torch.testing.assert_close(bare(random_pixels().double()), batch(random_pixels().double()))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_zero_init_residual_zeroes_the_weights_that_torchvision_zeroes(name, norm):
    """Oracle: the zero weights in torchvision's network with the option of the same name."""
    reference = get_model(name, weights=None, zero_init_residual=True)
    expected = {key for key, value in reference.state_dict().items() if key.endswith(".weight") and not value.any()}
    backbone = create_backbone(name, zero_init_residual=True, norm=norm)
    zeros = {key for key, value in backbone.state_dict().items() if key.endswith(".weight") and not value.any()}
    assert zeros == expected
    assert zeros


def test_drop_path_rises_as_in_timm():
    """Oracle: the probability of every block of timm's network with the same rate."""
    with torch.device("meta"):
        reference = timm.create_model("resnet50d", drop_path_rate=0.3)
        backbone = create_backbone("resnet50d", drop_path=0.3, levels=("c2", "c3", "c4"))
    theirs = [
        block.drop_path.drop_prob if block.drop_path is not None else 0.0
        for layer in (reference.layer1, reference.layer2, reference.layer3)
        for block in layer
    ]
    ours = [
        getattr(block.drop_path, "p", 0.0)
        for stage in (backbone.layer1, backbone.layer2, backbone.layer3)
        for block in stage
    ]
    assert ours == pytest.approx(theirs)
    assert ours[-1] > 0.2


def test_drop_path_skips_blocks_per_image_and_only_in_training():
    """Law (1603.09382): a skipped block is its shortcut, the others are scaled up; evaluation skips none."""
    weights = backbone_weights(reference_network("resnet18"))
    plain, dropping = load_backbone("resnet18", weights), load_backbone("resnet18", weights, drop_path=0.9)
    with torch.no_grad():
        assert_equal(dropping.eval()(random_pixels()), plain.eval()(random_pixels()))
        block = dropping.layer4[1].train()
        block.bn2.eval(), block.bn1.eval()
        x = torch.rand(64, 512, 2, 3)
        outputs = block(x)
        skipped = (outputs == x).flatten(1).all(dim=1)  # the input is positive, so the last ReLU does not change it
        assert 40 < skipped.sum() < 64
        residual = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
        torch.testing.assert_close(outputs[~skipped], torch.relu(x + residual / 0.1)[~skipped])


def test_activation_checkpointing_changes_no_gradient_or_statistic():
    """Law (1604.06174): equal gradients and statistics from fewer saved tensors."""
    weights = backbone_weights(reference_network("resnet18"))
    saved, numbers = [], []
    for levels in ((), ("c2", "c3", "c5")):
        backbone = load_backbone("resnet18", weights, checkpointed=levels).train()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            features = backbone(random_pixels())
        sum(level.square().mean() for level in features.values()).backward()
        saved.append(sum(kept))
        gradients = {key: parameter.grad for key, parameter in backbone.named_parameters()}
        numbers.append(gradients | {f"{key} after": value for key, value in backbone.state_dict().items()})
    assert_equal(*numbers)
    assert saved[1] < 0.6 * saved[0]


def test_activation_checkpointing_skips_the_same_blocks_again():
    """Law: the recomputation drops the same paths, so that gradients are equal."""
    weights = backbone_weights(reference_network("resnet18"))
    gradients = []
    for levels in ((), ("c4", "c5")):
        backbone = load_backbone("resnet18", weights, checkpointed=levels, drop_path=0.8).train()
        torch.manual_seed(3)
        backbone(random_pixels())["c5"].square().mean().backward()
        gradients.append({key: parameter.grad for key, parameter in backbone.named_parameters()})
    assert_equal(*gradients)


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_input_channels(channels):
    """By hand: the first convolution and the normalization have as many channels as asked for."""
    backbone = create_backbone("resnet10t", in_channels=channels)
    assert backbone.conv1[0].in_channels == len(backbone.input.mean) == len(backbone.input.std) == channels
    backbone(random_pixels(channels=channels))


def test_only_the_named_stages_are_deformable():
    """Law: a published state dict lacks only the offsets of those stages."""
    weights = backbone_weights(reference_network("resnet50"))
    with torch.device("meta"):
        backbone = create_backbone("resnet50", deformable=("c4", "c5"))
    ours = set(backbone.state_dict())
    blocks = [(3, block) for block in range(6)] + [(4, block) for block in range(3)]
    new = {f"layer{stage}.{block}.conv2.offset.{name}" for stage, block in blocks for name in ("weight", "bias")}
    assert ours - set(weights) == new
    assert set(weights) <= ours


def test_deformable_convolution_starts_as_half_an_ordinary_one():
    """Law (1811.11168 section 3.2): at the start offsets are zero and every sample has the weight 1/2."""
    deformable = create_backbone("resnet18", deformable=("c5",)).layer4[0].conv2
    assert isinstance(deformable, DeformableConv2d)
    x = torch.randn(2, 512, 5, 7)
    expected = nn.functional.conv2d(x, deformable.weight, padding=1) / 2
    torch.testing.assert_close(deformable(x), expected, rtol=1e-4, atol=1e-4)


def test_offset_of_a_deformable_convolution_shifts_its_input():
    """By hand: an offset of one cell to the right, of full weight, is the convolution of the shifted input."""
    deformable = DeformableConv2d(2)
    nn.init.zeros_(deformable.offset.weight)
    deformable.offset.bias.data[:18] = torch.tensor([0.0, 1.0]).repeat(9)
    deformable.offset.bias.data[18:] = 100.0
    x = torch.randn(1, 2, 6, 8)
    moved = nn.functional.pad(x, (0, 1))[..., 1:]
    expected = nn.functional.conv2d(moved, deformable.weight, padding=1)
    torch.testing.assert_close(deformable(x)[..., 1:], expected[..., 1:], rtol=1e-4, atol=1e-4)


def test_offsets_of_deformable_convolutions_get_a_gradient():
    """Oracle: autograd."""
    backbone = create_backbone("resnet14t", deformable=("c3",))
    backbone(random_pixels())["c3"].square().mean().backward()
    assert backbone.layer2[0].conv2.offset.weight.grad.abs().max() > 0


def test_freeze_at_freezes_sync_norms_too():
    """By hand: frozen norms in the frozen stage, synchronized ones in the next."""
    backbone = create_backbone("resnet18", norm="sync", freeze_at=2)
    assert isinstance(backbone.layer1[0].bn1, torchvision.ops.FrozenBatchNorm2d)
    assert isinstance(backbone.layer2[0].bn1, SyncBatchNorm)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet50", {"multi_grid": (1, 2)}, "multi_grid needs 3 factors, one for each block of c5"),
        ("resnet50", {"deformable": ("c5",), "levels": ("c2", "c4")}, "deformable names levels that are not built"),
        ("resnet50", {"checkpointed": ("c9",)}, "checkpointed names levels that are not built: ['c9']"),
        ("resnet50", {"zero_init_residual": True, "norm": "none"}, "zero_init_residual needs norms"),
        ("cifar_plain20", {"zero_init_residual": True}, "would make every block of cifar_plain20 output 0"),
        ("resnet50", {"style": "caffe", "in_channels": 1}, "needs 3 channels (BGR); got in_channels=1"),
        ("resnet50", {"deformable": ("c3", "c5"), "freeze_at": 3}, "deformable ['c3'] would never learn offsets"),
        ("resnet50", {"style": "tensorflow"}, "style: input should be 'pytorch' or 'caffe', got 'tensorflow'"),
        ("cifar_resnet20", {"levels": ("c5",)}, "cifar_resnet20 has levels c0, c1, c2; got c5"),
        ("cifar_resnet20", {"freeze_at": 5}, "freeze_at is at most 4, the stem and the stages built (up to c2); got 5"),
    ],
)
def test_contradictory_options_are_refused_with_the_reason(name, options, message):
    """By hand: exit code 2 and one line."""
    with pytest.raises(UsageError) as caught:
        create_backbone(name, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "resnet50d"])
def test_stem_is_a_level_if_it_is_requested(name):
    """Oracle: timm's first feature map, which has half the size of the image, and the others beside it."""
    reference = timm.create_model(name, features_only=True)
    randomize(reference.eval())
    levels = ("c1", "c2", "c3", "c4", "c5")
    backbone = load_backbone(name, reference.state_dict(), levels=levels).eval()
    with torch.no_grad():
        features, expected = backbone(random_pixels()), reference(random_pixels())
    assert [(info.channels, info.stride) for info in backbone.feature_info.values()] == list(
        zip(reference.feature_info.channels(), reference.feature_info.reduction(), strict=True)
    )
    assert tuple(features) == levels
    for level, other in zip(features.values(), expected, strict=True):
        assert torch.equal(level, other)


@pytest.mark.parametrize(
    ("name", "levels", "message"),
    [("resnet18", ("c1",), "c1 alone has no stage"), ("cifar_resnet20", ("c0", "c1", "c9"), "has levels c0, c1, c2")],
)
def test_stem_alone_and_unknown_levels_are_refused(name, levels, message):
    """By hand: a ResNet cannot return c1 alone, or a level that it lacks; UsageError (exit code 2) names its levels."""
    with pytest.raises(UsageError, match=message):
        create_backbone(name, levels=levels)
