"""DeepLabv3 and FCN against torchvision's with the same weights and conventions, stage by stage.

Each head gets torchvision's features. Dropout is active in both: with the same seed it drops the same cells. A
comparison that passes whatever the convention proves nothing, so negative controls change one convention at a time and
check that the comparison fails.
"""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import segmentation

from vertebra.backbones import create_backbone
from vertebra.heads import HEADS, TORCHVISION_DEEPLAB, AuxiliaryConfig, DeepLabConfig, FCNConfig
from vertebra.models import Model, from_torchvision_segmenter
from vertebra.necks import Passthrough
from vertebra.ops import full_size_logits, total_loss
from vertebra.structures import CheckpointError, Images

from ..helpers.reference_resnets import randomize

CLASSES = 21
CLOSE, FAR = 1e-5, 1e-2
SIZE = (65, 97)  # 9 x 13 cells of 8 pixels
FCN = FCNConfig(auxiliary=AuxiliaryConfig(weight=0.5))
CONFIGS = {"deeplabv3_resnet50": TORCHVISION_DEEPLAB, "fcn_resnet50": FCN}


@pytest.fixture(scope="module", params=list(CONFIGS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def torchvision_model(name):
    with torch.device("meta"):
        make = getattr(segmentation, name)
        torchvision_model = make(weights=None, weights_backbone=None, aux_loss=True, num_classes=CLASSES)
    return randomize(torchvision_model.to_empty(device="cpu")).eval()


def vertebra_model(torchvision_model, config, output_stride: int = 8) -> Model:
    """Build Vertebra's segmenter with torchvision's weights."""
    with torch.device("meta"):
        backbone = create_backbone("resnet50", output_stride=output_stride)
        head = HEADS.build(config, backbone.feature_info, CLASSES)
    model = Model(backbone, Passthrough(backbone.feature_info), head)
    model.load_state_dict(from_torchvision_segmenter(torchvision_model.state_dict()), assign=True)
    return model.eval()


@pytest.fixture(scope="module")
def ours(torchvision_model, name):
    return vertebra_model(torchvision_model, CONFIGS[name])


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the greatest difference over the greatest value: random weights make logits of hundreds."""
    assert expected.abs().max() > 0
    return ((found - expected).abs().max() / expected.abs().max()).item()


def images_of(*sizes: tuple[int, int]) -> Images:
    """Return images of noise, without padding."""
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return Images.from_list(pixels, divisor=1)


def target_of(images: Images) -> torch.Tensor:
    """Return random labels of every class, and ignored ones."""
    shape = (len(images), *images.pixels.shape[-2:])
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, CLASSES, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.2, 255, labels)


@pytest.fixture(scope="module")
def scene(torchvision_model, ours):
    """Return two images, and torchvision's features of them under Vertebra's names of levels."""
    images = images_of(SIZE, SIZE)
    with torch.no_grad():
        levels = torchvision_model.backbone(ours.preprocess(images))
    return images, {"c4": levels["aux"], "c5": levels["out"]}


@torch.no_grad()
def test_features_equal_torchvisions(scene, ours):
    """Oracle: the layers that torchvision's heads read, bit for bit."""
    images, theirs = scene
    features = ours.features(images)
    for level, expected in theirs.items():
        assert torch.equal(features[level], expected)


@torch.no_grad()
def seeded_logits(model: torch.nn.Module, logits, training: bool) -> torch.Tensor:
    """Return the logits in training or evaluation mode with a fixed seed for dropout; the mode is restored."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    model.train(training)
    found = logits()
    model.eval().load_state_dict(state)
    return found


@pytest.mark.parametrize("training", [False, True])
def test_logits_equal_torchvisions(torchvision_model, ours, scene, training):
    """Oracle: torchvision's classifiers on its own features; batch statistics and dropout act in training."""
    images, features = scene
    expected = seeded_logits(torchvision_model, lambda: torchvision_model.classifier(features["c5"]), training)
    found = seeded_logits(ours, lambda: ours.head(features, images), training)
    assert relative_error(found, expected) < CLOSE
    expected = seeded_logits(torchvision_model, lambda: torchvision_model.aux_classifier(features["c4"]), training)
    found = seeded_logits(ours, lambda: ours.head.auxiliary(features["c4"]), training)
    assert relative_error(found, expected) < CLOSE


def torchvision_losses(torchvision_model, images, features, target) -> dict[str, torch.Tensor]:
    """Compute the losses as torchvision's training script does."""
    losses = {}
    for key, classifier, level in (
        ("semantic", torchvision_model.classifier, "c5"),
        ("auxiliary", torchvision_model.aux_classifier, "c4"),
    ):
        logits = F.interpolate(classifier(features[level]), SIZE, mode="bilinear", align_corners=False)
        losses[f"loss_{key}"] = F.cross_entropy(logits, target, ignore_index=255)
    losses["loss_auxiliary"] = 0.5 * losses["loss_auxiliary"]
    return losses


def test_losses_and_gradients_equal_torchvisions(torchvision_model, ours, scene):
    """Oracle: both losses, and the gradient of every weight of both classifiers."""
    images, features = scene
    target = target_of(images)
    expected = torchvision_losses(torchvision_model, images, features, target)
    found = ours.head.loss(features, images, list(target))
    assert list(found) == list(expected)
    for key, loss in expected.items():
        torch.testing.assert_close(found[key], loss, rtol=1e-5, atol=1e-6)
    for model, losses in ((torchvision_model, expected), (ours, found)):
        model.zero_grad()
        total_loss(losses).backward()
    gradients = {key: value.grad for key, value in torchvision_model.named_parameters() if value.grad is not None}
    theirs = from_torchvision_segmenter(gradients)
    parameters = dict(ours.head.named_parameters(prefix="head"))
    assert parameters.keys() == theirs.keys()
    for key, expected_gradient in theirs.items():
        assert relative_error(parameters[key].grad, expected_gradient) < 10 * CLOSE, key


@pytest.mark.parametrize("size", [SIZE, (64, 33)])
@torch.no_grad()
def test_predictions_equal_torchvisions(torchvision_model, ours, size):
    """Oracle: pixels to logits at the size of the image, which is odd."""
    images = images_of(size)
    expected = torchvision_model(ours.preprocess(images))["out"][0]
    found = full_size_logits(ours.predict(images)[0])
    assert found.shape == (CLASSES, *size)
    assert relative_error(found, expected) < CLOSE


only_deeplab = pytest.mark.parametrize("name", ["deeplabv3_resnet50"], indirect=True)


@torch.no_grad()
def logits_error(torchvision_model, ours, images, features) -> float:
    """Return the relative error of Vertebra's logits on torchvision's features."""
    return relative_error(ours.head(features, images), torchvision_model.classifier(features["c5"]))


@only_deeplab
def test_negative_control_rates(torchvision_model, scene):
    """Control: with the dilation rates of the other stride the comparison of logits fails."""
    config = TORCHVISION_DEEPLAB.replace(rates=(6, 12, 18))
    assert logits_error(torchvision_model, vertebra_model(torchvision_model, config), *scene) > FAR


@only_deeplab
def test_negative_control_image_pooling(torchvision_model, ours, scene):
    """Control: with an image smaller than its features the comparison fails, since torchvision pools the padding."""
    images, features = scene
    smaller = Images(images.pixels, images.sizes - torch.tensor([0, 40]))
    assert logits_error(torchvision_model, ours, images, features) < CLOSE
    assert logits_error(torchvision_model, ours, smaller, features) > FAR


@only_deeplab
def test_negative_control_dropout(torchvision_model, scene):
    """Control: with another dropout probability the comparison of logits in training fails."""
    images, features = scene
    ours = vertebra_model(torchvision_model, DeepLabConfig(auxiliary=AuxiliaryConfig()))
    expected = seeded_logits(torchvision_model, lambda: torchvision_model.classifier(features["c5"]), training=True)
    found = seeded_logits(ours, lambda: ours.head(features, images), training=True)
    assert relative_error(found, expected) > FAR


@only_deeplab
def test_negative_control_convolutions(torchvision_model):
    """Control: the paper's head has no convolution before the logits, and torchvision's weights do not fit it."""
    with pytest.raises(RuntimeError, match=r"head\.decoder\.0\.0\.weight"):
        vertebra_model(torchvision_model, TORCHVISION_DEEPLAB.replace(convolutions=0))


@torch.no_grad()
def test_negative_control_output_stride(torchvision_model, name, scene):
    """Control: with a backbone of the other stride the comparison of features fails."""
    images, theirs = scene
    features = vertebra_model(torchvision_model, CONFIGS[name], output_stride=16).features(images)
    assert features["c5"].shape != theirs["c5"].shape


@torch.no_grad()
def test_negative_control_align_corners(torchvision_model, name, ours):
    """Control: with ``align_corners=True`` the comparison of predictions fails."""
    images = images_of(SIZE)
    expected = torchvision_model(ours.preprocess(images))["out"][0]
    other = vertebra_model(torchvision_model, CONFIGS[name].replace(align_corners=True))
    assert relative_error(full_size_logits(other.predict(images)[0]), expected) > FAR


def test_negative_control_auxiliary_weight(torchvision_model, name, scene):
    """Control: with the weight of 1612.01105 the comparison of losses fails."""
    images, features = scene
    target = target_of(images)
    reference = vertebra_model(torchvision_model, CONFIGS[name].replace(auxiliary=AuxiliaryConfig(weight=0.4)))
    with torch.no_grad():
        expected = torchvision_losses(torchvision_model, images, features, target)["loss_auxiliary"]
        found = reference.head.loss(features, images, list(target))["loss_auxiliary"]
    assert found.item() == pytest.approx(expected.item() * 4 / 5)


def test_every_tensor_is_converted_once(torchvision_model, ours):
    """Law: all tensors are there after conversion, each once; unknown names are refused."""
    theirs = torchvision_model.state_dict()
    converted = from_torchvision_segmenter(theirs)
    assert sorted(map(id, converted.values())) == sorted(map(id, theirs.values()))
    assert converted.keys() == ours.state_dict().keys()
    with pytest.raises(CheckpointError, match=r"roi_heads\.box is not a tensor of torchvision's"):
        from_torchvision_segmenter({"roi_heads.box": torch.zeros(1)})
