"""segmentation_models.pytorch (SMP) against its own code with the same weights; skipped if it is not installed."""

from typing import Any

import pytest
import torch
from torch import nn

from vertebra.models import Model, build_model
from vertebra.models.zoo import PublishedModel, find_published, load_tensors
from vertebra.ops import full_size_logits

from ..helpers.openmmlab import randomize
from ..helpers.reference_detector import random_images

smp = pytest.importorskip("segmentation_models_pytorch", reason="segmentation_models_pytorch is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES = ("road", "car", "tree", "sky", "sign")
SIZE = (128, 96)
MODELS = {
    "deeplabv3-resnet18": smp.DeepLabV3,
    "deeplabv3-resnet50": smp.DeepLabV3,
    "deeplabv3plus-resnet34": smp.DeepLabV3Plus,
    "deeplabv3plus-resnext50_32x4d": smp.DeepLabV3Plus,
    "unet-resnet34": smp.Unet,
    "unet-resnet50": smp.Unet,
    "fpn-resnet18": smp.FPN,
    "fpn-resnet50": smp.FPN,
}


def reference(name: str, classes: int = len(CLASSES)) -> nn.Module:
    """Return SMP's model with random weights."""
    model = MODELS[name](name.partition("-")[2], encoder_weights=None, classes=classes).eval()
    randomize(model, {})
    return model


def twin(model: nn.Module, published: PublishedModel, change: dict[str, Any] | None = None) -> Model:
    """Return our model with the weights of SMP's, and a change of its config."""
    ours = build_model(published.model.replace(**(change or {})), CLASSES).eval()
    load_tensors(ours, published, model.state_dict(), "a file")
    return ours


@torch.no_grad()
def difference(ours: Model, theirs: nn.Module) -> float:
    """Return the greatest difference of the logits of all pixels, over the greatest logit."""
    _, images = random_images([SIZE])
    expected = theirs(ours.preprocess(images))[0]
    found = full_size_logits(ours.predict(images)[0])
    assert expected.shape == found.shape == (len(expected), *SIZE)
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_smps(name):
    """Oracle: SMP's logits of every pixel, with the same weights."""
    published, _ = find_published(f"smp/{name}")
    theirs = reference(name)
    assert difference(twin(theirs, published), theirs) < 1e-5


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("deeplabv3-resnet18", {"head": {"align_corners": False}}),
        ("deeplabv3-resnet50", {"backbone": {"dilate_first": False}}),
        ("deeplabv3plus-resnet34", {"head": {"align_corners": False}}),
        ("deeplabv3plus-resnet34", {"backbone": {"dilate_first": False}}),
        ("deeplabv3plus-resnet34", {"head": {"rates": (6, 12, 18)}}),
        ("fpn-resnet18", {"head": {"align_corners": False}}),
    ],
)
def test_logits_differ_with_another_convention(name, change):
    """Control: the comparison sees each convention."""
    published, _ = find_published(f"smp/{name}")
    theirs = reference(name)
    assert difference(twin(theirs, published, change), theirs) > 1e-3


def test_a_single_logit_is_an_object_against_a_background():
    """Oracle: SMP's sigmoid of a binary model; the conversion of the weights back is bit-equal."""
    published, _ = find_published("smp/fpn-resnet18")
    theirs = reference("fpn-resnet18", classes=1)
    converted = published.keys.to_vertebra(theirs.state_dict())
    assert published.count_classes(converted) == 2
    ours = published.build().eval()
    load_tensors(ours, published, theirs.state_dict(), "a file")
    _, images = random_images([SIZE])
    with torch.no_grad():
        expected = theirs(ours.preprocess(images))[0].sigmoid()
        found = full_size_logits(ours.predict(images)[0]).softmax(dim=0)
    torch.testing.assert_close(found[1:], expected, atol=1e-5, rtol=1e-5)
    back = published.keys.from_vertebra(converted)
    assert all(torch.equal(tensor, back[key]) for key, tensor in theirs.state_dict().items())


def test_number_of_classes_is_that_of_the_file():
    """By hand: five classes, from the rows of the logits."""
    published, _ = find_published("smp/deeplabv3plus-resnet34")
    assert published.count_classes(published.keys.to_vertebra(reference("deeplabv3plus-resnet34").state_dict())) == 5
