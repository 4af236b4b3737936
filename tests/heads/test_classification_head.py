"""The classification head: torchvision's classifier with the same weights, laws of pooling, learning."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from vertebra.backbones import ResNetConfig
from vertebra.heads import ClassificationConfig, ClassificationHead
from vertebra.models import Model, ModelConfig, build_model
from vertebra.necks import FPNConfig, PassthroughConfig
from vertebra.structures import FeatureInfo, Images

PYRAMID = {"c2": FeatureInfo(2, 4), "c3": FeatureInfo(3, 8)}


def random_images(*sizes: tuple[int, int], divisor: int = 32) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return Images.from_list(pixels, divisor)


def random_features(images: Images) -> dict[str, torch.Tensor]:
    height, width = images.pixels.shape[2:]
    return {
        name: torch.randn(len(images), info.channels, height // info.stride, width // info.stride)
        for name, info in PYRAMID.items()
    }


def small_model(num_classes: int = 3, **head) -> Model:
    config = ModelConfig(
        backbone=ResNetConfig(name="resnet18"), neck=PassthroughConfig(), head=ClassificationConfig(**head)
    )
    return build_model(config, [f"class {label}" for label in range(num_classes)])


@pytest.fixture(scope="module")
def twins() -> tuple[Model, torch.nn.Module]:
    """Return our ResNet-18 and torchvision's with the same random weights and statistics."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=10).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = small_model(num_classes=10).eval()
    backbone = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}
    ours.backbone.load_state_dict(backbone)
    ours.head.fc.load_state_dict(theirs.fc.state_dict())
    return ours, theirs


def normalized(images: Images) -> torch.Tensor:
    normalize = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return normalize(images.pixels / 255)


@torch.no_grad()
def test_predictions_equal_torchvisions(twins):
    """Oracle: torchvision's ResNet-18 with the same weights: the five likeliest classes and their softmax."""
    ours, theirs = twins
    images = random_images((64, 96), (64, 96))
    expected = theirs(normalized(images)).softmax(dim=1).topk(5)
    for prediction, labels, scores in zip(ours.predict(images), expected.indices, expected.values, strict=True):
        assert torch.equal(prediction.labels, labels)
        torch.testing.assert_close(prediction.scores, scores, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_cross_entropy(twins, smoothing):
    """By hand, from torchvision's logits: minus the log-softmax, weighted by the smoothed target."""
    ours, theirs = twins
    images, labels = random_images((64, 64), (64, 64)), torch.tensor([3, 7])
    logs = theirs(normalized(images)).log_softmax(dim=1)
    target = F.one_hot(labels, 10) * (1 - smoothing) + smoothing / 10
    head = ClassificationHead(ours.backbone.feature_info, 10, ClassificationConfig(label_smoothing=smoothing))
    head.fc.load_state_dict(ours.head.fc.state_dict())
    losses = head.loss(ours.features(images), images, list(labels))
    assert list(losses) == ["loss_class"]
    torch.testing.assert_close(losses["loss_class"], -(target * logs).sum(dim=1).mean())


def test_padding_does_not_count():
    """Law: features beyond an image change nothing; by hand: the pooled features are the mean of its cells."""
    torch.manual_seed(0)
    head = ClassificationHead(PYRAMID, 4, ClassificationConfig(levels=("c2", "c3")))
    images = random_images((32, 32), (20, 9))  # the second: 5 x 3 cells of 4 pixels, 3 x 2 of 8
    features = random_features(images)
    logits = head(features, images)
    pooled = torch.cat([features["c2"][1, :, :5, :3].mean(dim=(1, 2)), features["c3"][1, :, :3, :2].mean(dim=(1, 2))])
    torch.testing.assert_close(logits[1], head.fc(pooled))
    features["c2"][1, :, 5:] = features["c2"][1, :, :, 3:] = 1e3
    features["c3"][1, :, 3:] = features["c3"][1, :, :, 2:] = -1e3
    torch.testing.assert_close(head(features, images), logits)


@pytest.mark.parametrize(
    ("pyramid", "levels"),
    [
        (PYRAMID, ["c3"]),
        ({"c4": FeatureInfo(2, 16), "c5": FeatureInfo(5, 16)}, ["c5"]),
        (
            {"c4": FeatureInfo(2, 16), "c5": FeatureInfo(5, 32), "p5": FeatureInfo(6, 32), "p3": FeatureInfo(6, 8)},
            ["p5"],
        ),
    ],
    ids=["coarsest", "dilated", "neck"],
)
def test_the_coarsest_level_is_read_by_default(pyramid, levels):
    """By hand: of equal strides the last level, since dilation makes c5 no coarser than c4 and a neck comes later."""
    assert list(ClassificationHead(pyramid, 2).strides) == levels


def test_a_classifier_reads_the_levels_of_a_neck():
    """By hand: four levels of an FPN, all pooled, are 64 features."""
    config = ModelConfig(
        backbone=ResNetConfig(name="resnet10t"),
        neck=FPNConfig(channels=16),
        head=ClassificationConfig(levels=("p2", "p3", "p4", "p5")),
    )
    model = build_model(config, ["a", "b"]).eval()
    assert model.head.fc.in_features == 64
    assert [len(prediction) for prediction in model.predict(random_images((64, 64)))] == [2]


def test_no_more_classes_are_named_than_there_are():
    """By hand: of three classes the five likeliest are three, and their scores sum to one."""
    prediction = small_model().eval().predict(random_images((64, 64)))[0]
    assert sorted(prediction.labels.tolist()) == [0, 1, 2] and prediction.scores.sum().item() == pytest.approx(1)
    assert len(small_model(top=1).eval().predict(random_images((64, 64)))[0]) == 1


def test_dropout_acts_in_training_alone():
    """Law: without it both modes give the same logits; with it training draws anew each time."""
    torch.manual_seed(0)
    images = random_images((32, 32))
    features = random_features(images)
    for dropout, differs in ((0.0, False), (0.5, True)):
        head = ClassificationHead(PYRAMID, 50, ClassificationConfig(levels=("c2", "c3"), dropout=dropout))
        assert (not torch.equal(head.train()(features, images), head.eval()(features, images))) == differs
        assert torch.equal(head(features, images), head(features, images))


def test_two_images_are_learned():
    """Learning: a dark and a bright image are told apart after a few steps."""
    torch.manual_seed(0)
    model = small_model(num_classes=2)
    batch = Images(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.tensor([[64, 64]] * 2))
    batch.pixels[1] = 255
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(10):
        optimizer.zero_grad()
        model(batch, [torch.tensor(1), torch.tensor(0)])["loss_class"].backward()
        optimizer.step()
    assert [prediction.labels[0].item() for prediction in model.predict(batch)] == [1, 0]


def test_nothing_is_read_back_from_the_device():
    """Law: loss and prediction run where there are no values to read."""
    with torch.device("meta"):
        model = small_model()
        batch = Images(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.int64))
        loss = model(batch, [torch.tensor(0), torch.tensor(1)])["loss_class"]
        predictions = model.predict(batch)
    assert loss.shape == () and len(predictions) == 2 and predictions[0].labels.shape == (3,)


def test_missing_levels_and_classes_are_refused():
    """ValueError that shows what came."""
    with pytest.raises(ValueError, match=r"reads levels \('c2', 'c9'\), but the input has \('c2', 'c3'\)"):
        ClassificationHead(PYRAMID, 3, ClassificationConfig(levels=("c2", "c9")))
    with pytest.raises(ValueError, match="got num_classes=0"):
        ClassificationHead(PYRAMID, 0)
