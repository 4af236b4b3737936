"""Every semantic head keeps the promises of ``SemanticHead``; one that is registered is tested here."""

import subprocess
import sys
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from vertebra.backbones import create_backbone
from vertebra.heads import (
    HEADS,
    AuxiliaryConfig,
    DeepLabConfig,
    DeepLabHead,
    FCNConfig,
    LowLevelConfig,
    SemanticFPNConfig,
    UNetConfig,
)
from vertebra.models import Model
from vertebra.necks import FPN, FPNConfig, Passthrough
from vertebra.ops import NormKind, full_size_logits, label_map, total_loss
from vertebra.structures import Images

from ..helpers.pyramids import BACKBONE
from ..helpers.semantic import CLASSES, NAMES, NECK, SIZES, build_head, pyramid, scene

OPTIONS = {
    "deeplab": [{}, {"low_level": LowLevelConfig()}, {"low_level": LowLevelConfig(), "separable": True}],
}
CASES = [(name, options) for name in NAMES for options in OPTIONS.get(name, [{}])]


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:1], ((64, 96),)], ids=str)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_head_trains_and_predicts_on_every_pyramid(name, options, output_stride, sizes):
    """Law: finite losses, logits of the size of the images; batches of one too, and in both modes the same things."""
    if name == "deeplab" and output_stride == 32:
        options = {**options, "rates": (1, 2)}
    head = build_head(name, output_stride, **options)
    features, images, targets = scene(output_stride, sizes)
    for mode in (True, False):
        head.train(mode)
        losses = head.loss(features, images, targets)
        assert list(losses) == ["loss_semantic", "loss_auxiliary"]
        assert all(loss.isfinite() for loss in losses.values())
        predictions = head.predict(features, images)
        assert [full_size_logits(logits).shape for logits in predictions] == [(CLASSES, *size) for size in sizes]
    total_loss(head.train().loss(features, images, targets)).backward()
    untrained = [key for key, value in head.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    assert not untrained


@pytest.mark.parametrize("norm", get_args(NormKind))
@pytest.mark.parametrize("name", NAMES)
def test_every_norm_trains_on_one_image(name, norm):
    """Law: the gradients of a batch of one are finite."""
    head = build_head(name, norm=norm).train()
    total_loss(head.loss(*scene(sizes=SIZES[:1]))).backward()
    assert all(value.grad.isfinite().all() for value in head.parameters())


@pytest.mark.parametrize("loss", [{}, {"hardest": 0.3}, {"dice": 1.0, "lovasz": 1.0}], ids=str)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_ignored_pixels_alone_teach_nothing(name, options, loss):
    """Law: both losses and every gradient are exactly zero."""
    head = build_head(name, loss=loss, **options)
    features, images, targets = scene()
    losses = head.loss(features, images, [torch.full_like(labels, 255) for labels in targets])
    total_loss(losses).backward()
    assert all(loss == 0 for loss in losses.values())
    assert all(torch.equal(value.grad, torch.zeros_like(value)) for value in head.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_auxiliary_classifier_adds_its_loss_alone(name):
    """Law: predictions and the head's own loss are as without it; its loss is times its weight."""
    features, images, targets = scene()
    single, without = build_head(name).eval(), build_head(name, auxiliary=None).eval()
    without.load_state_dict({key: value for key, value in single.state_dict().items() if "auxiliary" not in key})
    double = build_head(name, auxiliary=AuxiliaryConfig(weight=0.8)).eval()
    double.load_state_dict(single.state_dict())
    losses = [head.loss(features, images, targets) for head in (single, without, double)]
    assert list(losses[1]) == ["loss_semantic"] and losses[1]["loss_semantic"] == losses[0]["loss_semantic"]
    assert losses[2]["loss_auxiliary"].item() == pytest.approx(2 * losses[0]["loss_auxiliary"].item())
    predictions = [head.predict(features, images) for head in (single, without)]
    for first, second in zip(*predictions, strict=True):
        assert torch.equal(full_size_logits(first), full_size_logits(second))


@pytest.mark.parametrize("name", NAMES)
def test_255_classes_can_be_learned_and_256_are_refused(name):
    """By hand: a map of bytes has room for 255 classes beside 255 itself; the untrained loss is their logarithm."""
    head = build_head(name, num_classes=255, auxiliary=None).eval()
    features, images, targets = scene()
    assert head.loss(features, images, targets)["loss_semantic"].item() == pytest.approx(5.54, abs=0.3)  # ln 255
    for count in (0, 256):
        with pytest.raises(ValueError, match=f"1 to 255 classes.*got num_classes={count}"):
            build_head(name, num_classes=count)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_predictions_do_not_depend_on_batch_mates(name):
    """Law: an image in a batch is predicted as alone with the same padding, whatever the other image shows."""
    backbone = create_backbone("resnet10t")
    neck = FPN(backbone.feature_info, FPNConfig(channels=16))
    options = {"rates": (1, 2)} if name == "deeplab" else {}
    feature_info = backbone.feature_info | neck.feature_info
    head = HEADS[name].build(feature_info, CLASSES, HEADS[name].config(name=name, **options))
    model = Model(backbone, neck, head).eval()
    generator = torch.Generator().manual_seed(0)
    batch = Images.from_list(
        [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]
    )
    for index, together in enumerate(model.predict(batch)):
        alone = model.predict(Images(batch.pixels[index : index + 1], batch.sizes[index : index + 1]))[0]
        torch.testing.assert_close(full_size_logits(together), full_size_logits(alone), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("config", [FCNConfig(), DeepLabConfig(convolutions=0)], ids=lambda config: config.name)
@torch.no_grad()
def test_padding_changes_nothing_for_one_convolution(config):
    """Law: cells of zeros beyond an image are what a convolution adds at its edge, and image pooling skips them.

    A second convolution would see what the first made of the padding, as in every toolkit.
    """
    head = HEADS.build(config, pyramid(), CLASSES).eval()
    features, images, _ = scene(sizes=((64, 96),))
    logits = head(features, images)
    padded = {level: F.pad(maps, (0, 5, 0, 3)) for level, maps in features.items()}
    wider = Images(F.pad(images.pixels, (0, 80, 0, 48)), images.sizes)
    torch.testing.assert_close(head(padded, wider)[:, :, : logits.shape[2], : logits.shape[3]], logits)


@pytest.mark.parametrize(
    ("config", "info", "match"),
    [
        (
            DeepLabConfig(),
            pyramid(32),
            "rates for a level of stride 8 or 16, but 'c5' has stride 32: set output_stride=16",
        ),
        (DeepLabConfig(), NECK, r"DeepLab reads levels \('c5',\), but the input has .*p5"),
        (DeepLabConfig(low_level=LowLevelConfig(level="c1")), pyramid(), r"reads levels \('c1', 'c5'\)"),
        (FCNConfig(level="c9"), pyramid(), r"FCN reads levels \('c9',\)"),
        (FCNConfig(auxiliary=AuxiliaryConfig(level="c6")), pyramid(), r"auxiliary classifier reads levels \('c6',\)"),
        (UNetConfig(levels=("c2", "c7")), pyramid(), r"U-Net reads levels \('c2', 'c7'\)"),
        (UNetConfig(levels=("c4", "c2")), pyramid(), r"fine to coarse; got strides {'c4': 16, 'c2': 4}"),
        (UNetConfig(), NECK, "U-Net needs at least two levels"),
        (SemanticFPNConfig(), BACKBONE, "add a neck that computes them, such as 'fpn'"),
        (
            SemanticFPNConfig(levels=("c4", "c5")),
            pyramid(),
            "levels that each halve the previous; got strides {'c4': 16, 'c5': 16}",
        ),
    ],
)
def test_a_pyramid_that_does_not_fit_is_refused(config, info, match):
    """ValueError at construction that says what came and what to do."""
    with pytest.raises(ValueError, match=match):
        HEADS.build(config, info, CLASSES)


def test_a_tiny_deeplab_learns_an_image():
    """Learning: a bright disk on dark ground, to the pixel but for its edge."""
    torch.manual_seed(0)
    backbone = create_backbone("resnet10t", output_stride=16)
    head = DeepLabHead(backbone.feature_info, 2, DeepLabConfig(channels=32, low_level=LowLevelConfig()))
    model = Model(backbone, Passthrough(backbone.feature_info), head)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disk = ((rows - 30) ** 2 + (columns - 36) ** 2 < 18**2).long()
    images = Images((60 + 120 * disk).to(torch.uint8).expand(1, 3, 64, 64).contiguous(), torch.tensor([[64, 64]]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        total_loss(model(images, [disk])).backward()
        optimizer.step()
    assert (label_map(model.predict(images)[0], (64, 64)) == disk).float().mean() > 0.97


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_read_back_from_the_device(name):
    """Law: on ``meta`` there are no values to read."""
    features, images, targets = scene()
    features = {level: maps.to("meta") for level, maps in features.items()}
    losses = build_head(name).to("meta").loss(features, images.to("meta"), [labels.to("meta") for labels in targets])
    assert [loss.shape for loss in losses.values()] == [(), ()]


COMPILE = """
import sys, torch
from vertebra.heads import HEADS
from vertebra.structures import FeatureInfo, Images
coarsest = {"c": 16, "p": 32}
info = {f"{letter}{n}": FeatureInfo(8, min(2**n, coarsest[letter])) for letter in coarsest for n in (2, 3, 4, 5)}
features = {name: torch.randn(2, 8, 64 // level.stride, 96 // level.stride) for name, level in info.items()}
images = Images(torch.zeros(2, 3, 64, 96, dtype=torch.uint8), torch.tensor([[64, 90], [60, 96]]))
targets = [torch.randint(0, 5, (64, 90)), torch.randint(0, 5, (60, 96))]
for name in sys.argv[1:]:
    loss = {"dice": 1.0, "lovasz": 1.0, "hardest": 0.5, "class_weights": (1.0, 2.0, 1.0, 1.0, 1.0)}
    config = HEADS[name].config(name=name, loss=loss, auxiliary={})
    head = HEADS.build(config, info, 5).eval()
    expected = head.loss(features, images, targets)
    found = torch.compile(head.loss, fullgraph=True, backend="aot_eager")(features, images, targets)
    torch.testing.assert_close(found, expected)
    print(name)
"""


@pytest.mark.slow
def test_losses_compile_in_one_graph():
    """Law: the same losses, without a graph break. In another process, since checked shapes do not compile."""
    done = subprocess.run([sys.executable, "-c", COMPILE, *NAMES], capture_output=True, text=True)
    assert done.stdout.split() == NAMES, done.stderr
