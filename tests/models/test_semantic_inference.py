"""Windows, scales and mirror images against loops written out plainly, and laws of what they are."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from vertebra.backbones import create_backbone
from vertebra.heads import FCNConfig, FCNHead, RCNNHead
from vertebra.models import Model, SemanticInference, predict_semantic
from vertebra.necks import FPN, Passthrough
from vertebra.structures import Images

CLASSES = 3


@pytest.fixture(scope="module")
def model() -> Model:
    """An untrained network whose logits differ from place to place."""
    torch.manual_seed(0)
    backbone = create_backbone("resnet10t", output_stride=16)
    head = FCNHead(backbone.feature_info, CLASSES, FCNConfig())
    torch.nn.init.normal_(head.classifier.logits.weight, std=0.3)
    return Model(backbone, Passthrough(backbone.feature_info), head).eval()


def images_of(*sizes: tuple[int, int]) -> Images:
    generator = torch.Generator().manual_seed(0)
    return Images.from_list(
        [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    )


def predict(model: Model, pixels: torch.Tensor) -> torch.Tensor:
    """The model's logits of one image as it comes."""
    return model.predict(Images.from_list([pixels], model.size_divisor))[0].logits


def logits_of(model: Model, pixels: torch.Tensor, **config) -> torch.Tensor:
    return predict_semantic(model, Images.from_list([pixels]), SemanticInference(**config))[0].logits


def test_the_default_is_predict(model):
    """A law: the same logits, bit for bit, of a batch with padding."""
    images = images_of((64, 96), (50, 70))
    for found, expected in zip(predict_semantic(model, images), model.predict(images), strict=True):
        assert torch.equal(found.logits, expected.logits)


def test_one_window_is_the_whole_image(model):
    """A law: a window as large as the image, or larger, is the image."""
    pixels = images_of((64, 96)).pixels[0]
    for window in (96, 500):
        assert torch.equal(logits_of(model, pixels, window=window), predict(model, pixels))


@pytest.mark.parametrize("size", [(64, 96), (75, 50), (40, 131)])
@pytest.mark.parametrize(("window", "stride"), [(48, 32), (48, None), (33, 10), (48, 48)])
def test_windows_are_mmsegs_slow_loop(model, size, window, stride):
    """Oracle: mmseg's ``slide_inference``: windows by number, those that would leave the image moved back into it."""
    pixels = images_of(size).pixels[0, :, : size[0], : size[1]]
    step = stride or 32  # two thirds of 48
    total, count = torch.zeros(CLASSES, *size), torch.zeros(size)
    numbers = [max(side - window + step - 1, 0) // step + 1 for side in size]
    for row in range(numbers[0]):
        for column in range(numbers[1]):
            bottom, right = min(row * step + window, size[0]), min(column * step + window, size[1])
            top, left = max(bottom - window, 0), max(right - window, 0)
            total[:, top:bottom, left:right] += predict(model, pixels[:, top:bottom, left:right])
            count[top:bottom, left:right] += 1
    found = logits_of(model, pixels, window=window, stride=stride)
    torch.testing.assert_close(found, total / count, rtol=1e-4, atol=1e-5)


def test_how_many_windows_at_once_changes_nothing(model):
    """A law, but for the order of roundings."""
    pixels = images_of((75, 96)).pixels[0, :, :75]
    found = [logits_of(model, pixels, window=40, batch_size=count) for count in (1, 4, 100)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-5)


def test_scales_and_mirror_images_are_a_plain_mean(model):
    """Oracle: the mean of the softmax of each view's logits, resized and turned back, by torch's own functions."""
    pixels = images_of((64, 96)).pixels[0]
    shares = []
    for scale in (0.5, 1.0, 1.75):
        for mirrored in (False, True):
            size = (int(64 * scale), int(96 * scale))
            turned = (pixels.flip(2) if mirrored else pixels).float()
            logits = predict(model, F.interpolate(turned[None], size, mode="bilinear")[0].round().byte())
            logits = logits.flip(2) if mirrored else logits
            shares.append(F.interpolate(logits[None], (64, 96), mode="bilinear")[0].softmax(dim=0))
    found = logits_of(model, pixels, scales=(0.5, 1.0, 1.75), flip=True)
    torch.testing.assert_close(found.softmax(dim=0), torch.stack(shares).mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.exp().sum(dim=0), torch.ones(64, 96))


def test_a_mirrored_image_is_predicted_mirrored(model):
    """A law of mirror images, which the network alone does not keep."""
    pixels = images_of((64, 96)).pixels[0]
    assert not torch.allclose(predict(model, pixels.flip(2)).flip(2), predict(model, pixels), atol=1e-2)
    found = [logits_of(model, view, flip=True, scales=(1.0, 0.5)) for view in (pixels, pixels.flip(2))]
    torch.testing.assert_close(found[1].flip(2), found[0], rtol=1e-4, atol=1e-5)


def test_images_of_a_batch_are_looked_at_alone(model):
    """A law: each as without the other, at its own size, its padding never seen."""
    images = images_of((64, 96), (50, 70))
    config = SemanticInference(window=48, scales=(1.0, 1.5))
    found = predict_semantic(model, images, config)
    assert [scores.logits.shape[1:] for scores in found] == [(64, 96), (50, 70)]
    images.pixels[1, :, 50:] = 77
    alone = predict_semantic(model, Images(images.pixels[1:], images.sizes[1:]), config)
    assert torch.equal(found[1].logits, alone[0].logits)


def test_a_sure_prediction_stays_finite(model):
    """A share that rounds to zero has a logarithm all the same, so that a map may still be resized."""
    surer = Model(model.backbone, model.neck, FCNHead(model.backbone.feature_info, CLASSES), model.preprocess).eval()
    torch.nn.init.normal_(surer.head.classifier.logits.weight, std=1000.0)
    found = logits_of(surer, images_of((64, 96)).pixels[0], flip=True)
    assert found.isfinite().all() and found.min() < -80


def test_what_is_no_segmenter_is_refused():
    """ValueError that names its task; and a config without a scale, or of none."""
    backbone = create_backbone("resnet10t")
    neck = FPN(backbone.feature_info)
    with pytest.raises(ValueError, match="a class for every pixel; this one's is detection"):
        predict_semantic(Model(backbone, neck, RCNNHead(neck.feature_info, 2)), images_of((64, 64)))
    for wrong in ({"scales": ()}, {"scales": (0.0,)}, {"window": 0}, {"window": 5, "stride": 0}):
        with pytest.raises(ValidationError):
            SemanticInference(**wrong)
    for wrong in ({"stride": 4}, {"window": 4, "stride": 5}):
        with pytest.raises(ValidationError, match="leave no gap"):
            SemanticInference(**wrong)
