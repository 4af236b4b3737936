"""The residual family against torchvision and timm with the same weights."""

from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from vertebra.backbones import create_backbone, describe_backbone, list_backbones
from vertebra.ops import FrozenBatchNorm2d
from vertebra.structures import UsageError

from ..helpers.reference_resnets import (
    IMAGENET,
    LAYERS,
    TORCHVISION,
    assert_equal,
    backbone_weights,
    load_backbone,
    random_pixels,
    randomize,
    reference_features,
    reference_network,
)

HEAVY = {
    name
    for name in IMAGENET
    if any(depth in name for depth in ("101", "152", "200", "269", "wide", "light")) and name != "resnet101"
}


def mark_heavy_as_slow(names):
    return [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in names]


def assert_equals_reference(name, output_stride):
    """Compare features in evaluation and training, and the running statistics after training."""
    reference = reference_network(name, output_stride)
    backbone = load_backbone(name, backbone_weights(reference), output_stride=output_stride)
    pixels = random_pixels()
    with torch.no_grad():
        assert_equal(backbone.eval()(pixels), reference_features(reference.eval(), pixels))
        assert_equal(backbone.train()(pixels), reference_features(reference.train(), pixels))
    statistics = backbone_weights(reference)
    assert all(torch.equal(value, statistics[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", mark_heavy_as_slow(IMAGENET))
def test_features_equal_torchvision_or_timm(name):
    """Oracle: torchvision's or timm's network with the same weights, bit for bit, in evaluation and training."""
    assert_equals_reference(name, output_stride=32)


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("resnet18", 8), ("resnet50", 16), ("resnet50", 8), ("resnet18d", 16), ("resnet18d", 8), ("resnet14t", 8)],
)
def test_dilation_equals_torchvision_or_timm(name, output_stride):
    """Oracle: the same networks dilated, bit for bit (timm's where torchvision cannot dilate)."""
    assert_equals_reference(name, output_stride)


@pytest.mark.parametrize(("name", "output_stride"), [("resnet18", 16), ("resnet18", 8), ("resnet50", 8)])
def test_dilated_network_contains_the_strided_one(name, output_stride):
    """Law (1606.00915): every second or fourth cell of the dilated network is a cell of the strided network."""
    weights = backbone_weights(reference_network(name))
    strided, dilated = (
        load_backbone(name, weights, output_stride=stride).double().eval() for stride in (32, output_stride)
    )
    pixels = random_pixels(49, 65).double()
    with torch.no_grad():
        expected, features = strided(pixels), dilated(pixels)
    for level, feature in features.items():
        step = strided.feature_info[level].stride // dilated.feature_info[level].stride
        torch.testing.assert_close(feature[..., ::step, ::step], expected[level])


def test_stages_after_the_last_level_are_not_built():
    """Law: the levels that are built do not depend on those that are not."""
    weights = backbone_weights(reference_network("resnet18"))
    kept = {key: value for key, value in weights.items() if not key.startswith("layer4.")}
    complete, partial_network = (
        load_backbone("resnet18", weights).eval(),
        load_backbone("resnet18", kept, levels=("c2", "c4")).eval(),
    )
    with torch.no_grad():
        expected = complete(random_pixels())
        assert_equal(partial_network(random_pixels()), {level: expected[level] for level in ("c2", "c4")})


def test_frozen_norm_equals_batch_norm_in_evaluation():
    """Oracle: torch's batch norm with the same statistics; a frozen norm does the same in training mode."""
    weights = backbone_weights(reference_network("resnet14t"))
    batch = load_backbone("resnet14t", weights).double().eval()
    frozen = load_backbone("resnet14t", weights, norm="frozen").double()
    pixels = random_pixels().double()
    with torch.no_grad():
        torch.testing.assert_close(frozen.eval()(pixels), batch(pixels))
        assert_equal(frozen.train()(pixels), frozen.eval()(pixels))


def test_frozen_norm_has_the_gradient_of_batch_norm_and_saves_no_activation():
    """Oracle: autograd through torch's batch norm; saved-tensor hooks count the memory."""
    batch = randomize(nn.BatchNorm2d(4)).double().eval()
    frozen = FrozenBatchNorm2d(4).double()
    frozen.load_state_dict(batch.state_dict())
    inputs = [torch.randn(2, 4, 5, 7, dtype=torch.float64, requires_grad=True)]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.numel()) or tensor, lambda t: t):
        output = frozen(inputs[0])
    output.square().sum().backward()
    batch(inputs[1]).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    assert saved == [4]


def test_frozen_norm_keeps_half_precision_under_autocast():
    """Law: the output has the type of the input; torchvision's frozen norm gives float32 here, which doubles memory."""
    values = torch.randn(1, 4, 3, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert FrozenBatchNorm2d(4)(values).dtype == torch.bfloat16


def test_weights_of_a_frozen_network_load_into_a_trainable_one():
    """Law: every weight and statistic comes back from a network with frozen norms."""
    weights = backbone_weights(reference_network("resnet18"))
    frozen = load_backbone("resnet18", weights, norm="frozen")
    with torch.device("meta"):
        trainable = create_backbone("resnet18")
    trainable.load_state_dict(frozen.state_dict(), assign=True)
    assert all(torch.equal(value, weights[key]) for key, value in trainable.state_dict().items() if value.numel() > 1)


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_norm_eps_equals_torchvisions(eps):
    """Oracle: torchvision's network with its frozen norm of that eps, and variances so small that eps matters."""
    norm = partial(torchvision.ops.FrozenBatchNorm2d, eps=eps)
    weights = backbone_weights(reference_network("resnet18"))
    weights |= {key: value * 1e-5 for key, value in weights.items() if key.endswith("running_var")}
    with torch.device("meta"):
        reference = get_model("resnet18", weights=None, norm_layer=norm)
    reference.load_state_dict(dict(weights), strict=False, assign=True)
    reference.fc = nn.Identity()  # torchvision's network is on the meta device
    backbone = load_backbone("resnet18", weights, norm="frozen", norm_eps=eps)
    with torch.no_grad():
        expected = reference_features(reference.double(), random_pixels().double())
        torch.testing.assert_close(backbone.double()(random_pixels().double()), expected)


@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze_at_freezes_the_stages_that_torchvision_freezes(freeze_at):
    """Oracle: the trainable parameters of torchvision, which counts trainable stages out of five instead of frozen
    ones."""
    with torch.device("meta"):
        backbone = create_backbone("resnet18", freeze_at=freeze_at)
        body = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5 - freeze_at
        ).body
    expected = {key for key, parameter in body.named_parameters() if parameter.requires_grad}
    assert {key for key, parameter in backbone.named_parameters() if parameter.requires_grad} == expected


@pytest.mark.parametrize("norm", ["batch", "sync", "frozen", "group", "none"])
@pytest.mark.parametrize("name", ["resnet18", "resnet10t"])
@pytest.mark.parametrize("freeze_at", [1, 3, 4])
def test_frozen_stages_do_not_change_in_training(name, freeze_at, norm):
    """Law: a step changes no weight or statistic of a frozen stage, and every one of the other stages."""
    backbone = randomize(create_backbone(name, freeze_at=freeze_at, norm=norm)).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    frozen = ("conv1.", "bn1.", *(f"{layer}." for layer in LAYERS[: freeze_at - 1]))
    optimizer = torch.optim.SGD([value for value in backbone.parameters() if value.requires_grad], lr=1.0)
    backbone(random_pixels())["c5"].square().mean().backward()
    optimizer.step()
    for key, value in backbone.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        learns = not key.startswith(frozen) and not (norm == "frozen" and (".bn" in key or ".downsample.2" in key))
        learns = learns and not (norm == "frozen" and ".downsample.1." in key and value.ndim == 1)
        assert torch.equal(value, before[key]) != learns, key


def test_initial_weights_are_he_normal_by_fan_out():
    """By hand: the variance of a weight is 2 / (kernel area x output channels) (1502.01852 Eq. 14)."""
    torch.manual_seed(0)
    backbone = create_backbone("resnet18d")
    for key, parameter in backbone.named_parameters():
        if parameter.ndim == 4:
            expected = (2 / (parameter[0, 0].numel() * parameter.shape[0])) ** 0.5
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), key
            assert abs(parameter.mean().item()) < 0.1 * expected, key


@pytest.mark.parametrize("name", mark_heavy_as_slow(TORCHVISION))
def test_described_size_and_cost_equal_torchvisions(name):
    """Oracle: parameters and multiply-adds that torchvision publishes with its weights, less the last layer."""
    published = next(iter(get_model_weights(name))).meta
    description = describe_backbone(name)
    features = description.feature_info["c5"].channels
    assert description.parameters == published["num_params"] - 1000 * (features + 1)
    assert description.gflops == pytest.approx(published["_ops"] - 1000 * features / 1e9, abs=6e-4)


def test_list_backbones_takes_a_shell_pattern():
    """By hand: two patterns and the names they match."""
    assert list_backbones("resnext*_32x8d") == ["resnext101_32x8d"]
    assert list_backbones("wide*") == ["wide_resnet50_2", "wide_resnet101_2"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet51", {}, "did you mean 'resnet50'"),
        ("resnet50", {"frezze_at": 2}, "resnet50: there is no field 'frezze_at'; did you mean 'freeze_at'?"),
        ("resnet50", {"output_stride": 64}, "output_stride: input should be 8, 16 or 32, got 64"),
        ("resnet50", {"levels": ("c2", "c6")}, "resnet50 has levels c1, c2, c3, c4, c5; got c6"),
        (
            "resnet50",
            {"levels": ("c3", "c2")},
            "levels go fine to coarse, each once, like ('c2', 'c5'); got ('c3', 'c2')",
        ),
        ("resnet50", {"levels": ("c2", "c2")}, "each once"),
        ("resnet50", {"levels": ()}, "resnet50: levels: tuple should have at least 1 item"),
        (
            "resnet50",
            {"levels": ("c2", "c3"), "freeze_at": 4},
            "freeze_at is at most 3, the stem and the stages built (up to c3); got 4: lower it",
        ),
    ],
)
def test_wrong_name_or_option_is_refused_with_the_nearest(name, options, message):
    """By hand: exit code 2 and the nearest name."""
    with pytest.raises(UsageError) as caught:
        create_backbone(name, **options)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
