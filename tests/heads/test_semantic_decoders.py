"""The semantic heads that torchvision lacks, against plain implementations of the papers' figures."""

import pytest
import torch
import torch.nn.functional as F

from vertebra.heads import LowLevelConfig
from vertebra.ops import full_size_logits

from ..helpers.semantic import build_head, scene


def test_dilation_rates_follow_the_stride():
    """By hand (1706.05587 section 3.3): twice the rates at half the stride; given rates are taken at any stride."""
    for stride, rates in ((16, [6, 12, 18]), (8, [12, 24, 36])):
        assert [branch[0].dilation[0] for branch in build_head("deeplab", stride).aspp.branches[1:]] == rates
    assert [branch[0].dilation[0] for branch in build_head("deeplab", 32, rates=(3,)).aspp.branches[1:]] == [3]


@torch.no_grad()
def test_image_pooling_of_one_image_uses_running_statistics():
    """Law: for a batch of one, training and evaluation pool alike, and the statistics do not change; a batch of two
    updates them."""
    pooling = build_head("deeplab").aspp.pooling
    pooling.norm.running_mean.normal_(generator=torch.Generator().manual_seed(0))
    before = pooling.norm.running_mean.clone()
    features, images, _ = scene()
    level, sizes = features["c5"], images.sizes
    assert torch.equal(pooling.train()(level[:1], sizes[:1]), pooling.eval()(level[:1], sizes[:1]))
    assert torch.equal(pooling.norm.running_mean, before)
    assert not torch.allclose(pooling.train()(level, sizes), pooling.eval()(level, sizes))
    assert not torch.equal(pooling.norm.running_mean, before)


def convolve(weights, name, hidden, norm=True, **options):
    """Apply a convolution, batch norm and ReLU with the tensors of a state dict."""
    prefix = f"{name}.0" if norm else name
    hidden = F.conv2d(hidden, weights[f"{prefix}.weight"], weights.get(f"{prefix}.bias"), **options)
    if not norm:
        return hidden
    mean, variance, scale, shift = (
        weights[f"{name}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return torch.relu(F.batch_norm(hidden, mean, variance, scale, shift))


@pytest.mark.parametrize("separable", [False, True])
@torch.no_grad()
def test_deeplab_v3_plus_equals_the_papers_figure(separable):
    """Oracle: 1802.02611 Figure 2 written with torch's functions alone."""
    head = build_head("deeplab", low_level=LowLevelConfig(channels=6), separable=separable, dropout=0.5).eval()
    for name, value in head.state_dict().items():
        if "running_var" in name or name.endswith("1.weight"):
            value.uniform_(0.5, 1.5)
        elif "running_mean" in name or name.endswith("bias"):
            value.normal_(std=0.2)
    weights = head.state_dict()
    features, images, _ = scene(sizes=((64, 96),))
    deep, low = features["c5"], features["c2"]

    def spatial(name, hidden, rate=1):
        if not separable:
            return convolve(weights, name, hidden, padding=rate, dilation=rate)
        depthwise = convolve(weights, f"{name}.0", hidden, padding=rate, dilation=rate, groups=hidden.shape[1])
        return convolve(weights, f"{name}.1", depthwise)

    views = [convolve(weights, "aspp.branches.0", deep)]
    views += [spatial(f"aspp.branches.{index}", deep, rate) for index, rate in ((1, 6), (2, 12), (3, 18))]
    pooling = {key.removeprefix("aspp.pooling."): value for key, value in weights.items() if "pooling" in key}
    pooling = {key.replace("convolution", "all.0").replace("norm", "all.1"): value for key, value in pooling.items()}
    views.append(convolve(pooling, "all", deep.mean(dim=(2, 3), keepdim=True)).expand_as(views[0]))
    hidden = convolve(weights, "aspp.project", torch.cat(views, dim=1))
    hidden = F.interpolate(hidden, scale_factor=4, mode="bilinear")
    hidden = torch.cat([hidden, convolve(weights, "low_level", low)], dim=1)
    hidden = spatial("decoder.1", spatial("decoder.0", hidden))
    expected = F.interpolate(convolve(weights, "logits", hidden, norm=False), scale_factor=4, mode="bilinear")
    logits = full_size_logits(head.predict(features, images)[0])
    torch.testing.assert_close(logits, expected[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_semantic_fpn_equals_the_papers_figure():
    """Oracle: 1901.02446 Figure 3 as a plain loop: a convolution before each doubling up to the finest level."""
    head = build_head("semantic_fpn").eval()
    features, images, _ = scene(sizes=((64, 96),))
    total = torch.zeros(())
    for index, level in enumerate(("p2", "p3", "p4", "p5")):
        hidden = features[level]
        for stage in head.scale_heads[level].stages:
            hidden = stage(hidden)
            hidden = hidden if index == 0 else F.interpolate(hidden, scale_factor=2, mode="bilinear")
        assert len(head.scale_heads[level].stages) == max(1, index)
        total = total + hidden
    torch.testing.assert_close(head(features, images), head.logits(total))


@torch.no_grad()
def test_unet_equals_a_plain_loop():
    """Oracle: a plain loop: the coarser map is upsampled by repeating cells, and concatenated with the finer one."""
    head = build_head("unet", 32).eval()
    features, images, _ = scene(32, sizes=((64, 96),))
    hidden = features["c5"]
    for step, level in zip(head.steps, ("c4", "c3", "c2"), strict=True):
        repeated = hidden.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        hidden = step.convolutions(torch.cat([repeated, features[level]], dim=1))
    torch.testing.assert_close(head(features, images), head.logits(hidden))
    assert [step.convolutions[1][0].out_channels for step in head.steps] == [64, 32, 16]
