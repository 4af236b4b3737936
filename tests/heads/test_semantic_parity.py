"""DeepLabv3 and FCN against torchvision's with the same weights and conventions, stage by stage.

Each head is fed the peer's features. Dropout acts in both: with the same seed it draws the same cells. A gate that
passes whatever the convention proves nothing, so every convention is also flipped alone and its gate must fail.
"""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import segmentation

from vertebra.backbones import create_backbone
from vertebra.heads import HEADS, TORCHVISION_DEEPLAB, AuxiliaryConfig, DeepLabConfig, FCNConfig
from vertebra.models import Model, from_torchvision_segmenter
from vertebra.necks import Passthrough
from vertebra.ops import full_size_logits, semantic, total_loss
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
def peer(name):
    with torch.device("meta"):
        make = getattr(segmentation, name)
        peer = make(weights=None, weights_backbone=None, aux_loss=True, num_classes=CLASSES)
    return randomize(peer.to_empty(device="cpu")).eval()


def twin_of(peer, config, output_stride: int = 8) -> Model:
    """Build our segmenter with the peer's weights."""
    with torch.device("meta"):
        backbone = create_backbone("resnet50", output_stride=output_stride)
        head = HEADS.build(config, backbone.feature_info, CLASSES)
    model = Model(backbone, Passthrough(backbone.feature_info), head)
    model.load_state_dict(from_torchvision_segmenter(peer.state_dict()), assign=True)
    return model.eval()


@pytest.fixture(scope="module")
def ours(peer, name):
    return twin_of(peer, CONFIGS[name])


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the greatest difference over the greatest value: random weights make logits of hundreds."""
    assert expected.abs().max() > 0
    return ((found - expected).abs().max() / expected.abs().max()).item()


def images_of(*sizes: tuple[int, int]) -> Images:
    """Draw noise without padding."""
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return Images.from_list(pixels, divisor=1)


def target_of(images: Images) -> torch.Tensor:
    """Draw labels of every class, and unknown ones."""
    shape = (len(images), *images.pixels.shape[-2:])
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, CLASSES, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.2, 255, labels)


@pytest.fixture(scope="module")
def scene(peer, ours):
    """Return two images, and the peer's features of them under our names."""
    images = images_of(SIZE, SIZE)
    with torch.no_grad():
        levels = peer.backbone(ours.preprocess(images))
    return images, {"c4": levels["aux"], "c5": levels["out"]}


@torch.no_grad()
def test_features_equal_torchvisions(scene, ours):
    """Oracle: the layers that torchvision's heads read, bit for bit."""
    images, theirs = scene
    features = ours.features(images)
    for level, expected in theirs.items():
        assert torch.equal(features[level], expected)


@torch.no_grad()
def seeded(model: torch.nn.Module, logits, training: bool) -> torch.Tensor:
    """Return logits in one mode, with the same draws of dropout each time; the model is afterwards as it was."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    model.train(training)
    found = logits()
    model.eval().load_state_dict(state)
    return found


@pytest.mark.parametrize("training", [False, True])
def test_logits_equal_torchvisions(peer, ours, scene, training):
    """Oracle: torchvision's classifiers on its own features; batch statistics and dropout act in training."""
    images, features = scene
    expected = seeded(peer, lambda: peer.classifier(features["c5"]), training)
    found = seeded(ours, lambda: ours.head(features, images), training)
    assert relative_error(found, expected) < CLOSE
    expected = seeded(peer, lambda: peer.aux_classifier(features["c4"]), training)
    found = seeded(ours, lambda: ours.head.auxiliary(features["c4"]), training)
    assert relative_error(found, expected) < CLOSE


def their_losses(peer, images, features, target) -> dict[str, torch.Tensor]:
    """Compute the losses as torchvision's training script does."""
    losses = {}
    for key, classifier, level in (("semantic", peer.classifier, "c5"), ("auxiliary", peer.aux_classifier, "c4")):
        logits = F.interpolate(classifier(features[level]), SIZE, mode="bilinear", align_corners=False)
        losses[f"loss_{key}"] = F.cross_entropy(logits, target, ignore_index=255)
    losses["loss_auxiliary"] = 0.5 * losses["loss_auxiliary"]
    return losses


def test_losses_and_gradients_equal_torchvisions(peer, ours, scene):
    """Oracle: both losses, and the gradient of every weight of both classifiers."""
    images, features = scene
    target = target_of(images)
    expected = their_losses(peer, images, features, target)
    found = ours.head.loss(features, images, list(target))
    assert list(found) == list(expected)
    for key, loss in expected.items():
        torch.testing.assert_close(found[key], loss, rtol=1e-5, atol=1e-6)
    for model, losses in ((peer, expected), (ours, found)):
        model.zero_grad()
        total_loss(losses).backward()
    gradients = {key: value.grad for key, value in peer.named_parameters() if value.grad is not None}
    theirs = from_torchvision_segmenter(gradients)
    parameters = dict(ours.head.named_parameters(prefix="head"))
    assert parameters.keys() == theirs.keys()
    for key, expected_gradient in theirs.items():
        assert relative_error(parameters[key].grad, expected_gradient) < 10 * CLOSE, key


@pytest.mark.parametrize("size", [SIZE, (64, 33)])
@torch.no_grad()
def test_predictions_equal_torchvisions(peer, ours, size):
    """Oracle: pixels to logits at the size of the image, which is odd."""
    images = images_of(size)
    expected = peer(ours.preprocess(images))["out"][0]
    found = full_size_logits(ours.predict(images)[0])
    assert found.shape == (CLASSES, *size)
    assert relative_error(found, expected) < CLOSE


only_deeplab = pytest.mark.parametrize("name", ["deeplabv3_resnet50"], indirect=True)


@torch.no_grad()
def logits_error(peer, ours, images, features) -> float:
    """Return how far our logits on the peer's features are from the peer's."""
    return relative_error(ours.head(features, images), peer.classifier(features["c5"]))


@only_deeplab
def test_negative_control_rates(peer, scene):
    """The rates of the other stride must fail the gate of the logits."""
    config = TORCHVISION_DEEPLAB.replace(rates=(6, 12, 18))
    assert logits_error(peer, twin_of(peer, config), *scene) > FAR


@only_deeplab
def test_negative_control_image_pooling(peer, ours, scene):
    """An image that ends before its features must fail it too: torchvision would pool its padding."""
    images, features = scene
    smaller = Images(images.pixels, images.sizes - torch.tensor([0, 40]))
    assert logits_error(peer, ours, images, features) < CLOSE
    assert logits_error(peer, ours, smaller, features) > FAR


@only_deeplab
def test_negative_control_dropout(peer, scene):
    """Another fraction of dropped features must fail the gate of the logits in training."""
    images, features = scene
    ours = twin_of(peer, DeepLabConfig(auxiliary=AuxiliaryConfig()))
    expected = seeded(peer, lambda: peer.classifier(features["c5"]), training=True)
    found = seeded(ours, lambda: ours.head(features, images), training=True)
    assert relative_error(found, expected) > FAR


@only_deeplab
def test_negative_control_convolutions(peer):
    """The paper's own head has no convolution before the logits: the weights do not even fit."""
    with pytest.raises(RuntimeError, match=r"head\.decoder\.0\.0\.weight"):
        twin_of(peer, TORCHVISION_DEEPLAB.replace(convolutions=0))


@torch.no_grad()
def test_negative_control_output_stride(peer, name, scene):
    """A backbone of the other stride must fail the gate of the features."""
    images, theirs = scene
    features = twin_of(peer, CONFIGS[name], output_stride=16).features(images)
    assert features["c5"].shape != theirs["c5"].shape


@torch.no_grad()
def test_negative_control_align_corners(peer, ours, monkeypatch):
    """Corners on corners must fail the gate of the predictions."""
    images = images_of(SIZE)
    expected = peer(ours.preprocess(images))["out"][0]
    monkeypatch.setattr(
        semantic, "resize_maps", lambda maps, size: F.interpolate(maps, size, mode="bilinear", align_corners=True)
    )
    assert relative_error(full_size_logits(ours.predict(images)[0]), expected) > FAR


def test_negative_control_auxiliary_weight(peer, name, scene):
    """The weight of 1612.01105 must fail the gate of the losses."""
    images, features = scene
    target = target_of(images)
    twin = twin_of(peer, CONFIGS[name].replace(auxiliary=AuxiliaryConfig(weight=0.4)))
    with torch.no_grad():
        expected = their_losses(peer, images, features, target)["loss_auxiliary"]
        found = twin.head.loss(features, images, list(target))["loss_auxiliary"]
    assert found.item() == pytest.approx(expected.item() * 4 / 5)


def test_every_tensor_is_converted_once(peer, ours):
    """Law: as many as there were, each the one it was; other names are refused."""
    theirs = peer.state_dict()
    converted = from_torchvision_segmenter(theirs)
    assert sorted(map(id, converted.values())) == sorted(map(id, theirs.values()))
    assert converted.keys() == ours.state_dict().keys()
    with pytest.raises(CheckpointError, match=r"roi_heads\.box is not a tensor of torchvision's"):
        from_torchvision_segmenter({"roi_heads.box": torch.zeros(1)})
