"""Windows, scales and mirror images against loops written out plainly, and laws of what they are."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from vertebra.backbones import create_backbone
from vertebra.heads import FCNConfig, FCNHead, RCNNHead
from vertebra.models import Model, SemanticInference, predict_semantic
from vertebra.necks import FPN, Passthrough
from vertebra.ops import full_size_logits, label_map
from vertebra.structures import Images

from ..helpers.memory import peak_bytes

CLASSES = 3


@pytest.fixture(scope="module")
def model() -> Model:
    """Return an untrained network whose logits differ from place to place."""
    return build_model(CLASSES)


def build_model(num_classes: int) -> Model:
    torch.manual_seed(0)
    backbone = create_backbone("resnet10t", output_stride=16)
    head = FCNHead(backbone.feature_info, num_classes, FCNConfig())
    torch.nn.init.normal_(head.classifier.logits.weight, std=0.3)
    return Model(backbone, Passthrough(backbone.feature_info), head).eval()


def images_of(*sizes: tuple[int, int]) -> Images:
    generator = torch.Generator().manual_seed(0)
    return Images.from_list(
        [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    )


@torch.no_grad()
def two_step_logits(model: Model, images: Images) -> list[torch.Tensor]:
    """Resize the logits of all classes of the batch to the padded images, then cut off the padding."""
    logits = model.head(model.features(images), images).float()
    logits = F.interpolate(logits, images.pixels.shape[-2:], mode="bilinear", align_corners=False)
    return [maps[:, :height, :width] for maps, (height, width) in zip(logits, images.sizes.tolist(), strict=True)]


def predict(model: Model, pixels: torch.Tensor) -> torch.Tensor:
    """Return the logits of one image at its own size."""
    return two_step_logits(model, Images.from_list([pixels], model.size_divisor))[0]


def logits_of(model: Model, pixels: torch.Tensor, **config) -> torch.Tensor:
    return full_size_logits(predict_semantic(model, Images.from_list([pixels]), SemanticInference(**config))[0])


@pytest.mark.parametrize("num_classes", [3, 11, 20])
def test_logits_kept_on_the_heads_grid_give_the_same_pixels(num_classes):
    """Oracle: logits of every pixel and class, resized at once, and their map at another size; bit for bit."""
    model, images = build_model(num_classes), images_of((64, 96), (50, 70))
    for prediction, expected in zip(model.predict(images), two_step_logits(model, images), strict=True):
        assert torch.equal(full_size_logits(prediction), expected)
        resized = F.interpolate(expected[None], (123, 77), mode="bilinear", align_corners=False)[0]
        assert torch.equal(label_map(prediction, (123, 77)).long(), resized.argmax(dim=0))


@pytest.mark.parametrize("config", [{}, {"window": 128}], ids=["at once", "windows"])
def test_prediction_does_not_hold_every_class_of_every_pixel(config):
    """Law: 150 classes take little more than 8, and far less than a float for each of their pixels."""
    images, size = images_of((256, 256)), (256, 256)

    def segment(model: Model) -> torch.Tensor:
        return label_map(predict_semantic(model, images, SemanticInference(**config))[0], size)

    few, many = (peak_bytes(lambda model=build_model(count): segment(model)) for count in (8, 150))
    assert many - few < 0.1 * 150 * 4 * 256 * 256


def test_the_default_is_predict(model):
    """Law: the same logits, bit for bit, of a batch with padding."""
    images = images_of((64, 96), (50, 70))
    for first, second in zip(predict_semantic(model, images), model.predict(images), strict=True):
        assert torch.equal(full_size_logits(first), full_size_logits(second))


def test_one_window_is_the_whole_image(model):
    """Law: a window as large as the image, or larger, is the image."""
    pixels = images_of((64, 96)).pixels[0]
    for window in (96, 500):
        assert torch.equal(logits_of(model, pixels, window=window), predict(model, pixels))


@pytest.mark.parametrize("size", [(64, 96), (75, 50), (40, 131)])
@pytest.mark.parametrize(("window", "stride"), [(48, 32), (48, None), (33, 10), (48, 48)])
def test_windows_equal_mmsegs(model, size, window, stride):
    """Oracle: mmseg's ``slide_inference`` as a loop: windows that would leave the image are moved back into it."""
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
    logits = logits_of(model, pixels, window=window, stride=stride)
    torch.testing.assert_close(logits, total / count, rtol=1e-4, atol=1e-5)


def test_how_many_windows_at_once_changes_nothing(model):
    """A law, but for the order of roundings."""
    pixels = images_of((75, 96)).pixels[0, :, :75]
    logits = [logits_of(model, pixels, window=40, batch_size=count) for count in (1, 4, 100)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[0], logits[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 1.75])
def test_one_scale_is_a_resized_image_and_resized_logits(model, scale):
    """Oracle: torch's own resizes, of the image to the view and of its logits back."""
    pixels = images_of((64, 96)).pixels[0]
    size = (int(64 * scale), int(96 * scale))
    view = F.interpolate(pixels.float()[None], size, mode="bilinear")[0].round().byte()
    expected = F.interpolate(predict(model, view)[None], (64, 96), mode="bilinear")[0]
    torch.testing.assert_close(logits_of(model, pixels, scales=(scale,)), expected, rtol=1e-4, atol=1e-5)


def test_views_are_averaged(model):
    """Oracle: the mean of the softmax of each view's logits, resized and flipped back, by torch's own functions."""
    pixels = images_of((64, 96)).pixels[0]
    probabilities = []
    for scale in (0.5, 1.0, 1.75):
        for mirrored in (False, True):
            size = (int(64 * scale), int(96 * scale))
            flipped = (pixels.flip(2) if mirrored else pixels).float()
            logits = predict(model, F.interpolate(flipped[None], size, mode="bilinear")[0].round().byte())
            logits = logits.flip(2) if mirrored else logits
            probabilities.append(F.interpolate(logits[None], (64, 96), mode="bilinear")[0].softmax(dim=0))
    logits = logits_of(model, pixels, scales=(0.5, 1.0, 1.75), flip=True)
    torch.testing.assert_close(logits.softmax(dim=0), torch.stack(probabilities).mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits.exp().sum(dim=0), torch.ones(64, 96))


def test_a_mirrored_image_is_predicted_mirrored(model):
    """A law of mirror images, which the network alone does not keep."""
    pixels = images_of((64, 96)).pixels[0]
    assert not torch.allclose(predict(model, pixels.flip(2)).flip(2), predict(model, pixels), atol=1e-2)
    logits = [logits_of(model, view, flip=True, scales=(1.0, 0.5)) for view in (pixels, pixels.flip(2))]
    torch.testing.assert_close(logits[1].flip(2), logits[0], rtol=1e-4, atol=1e-5)


def test_padding_and_batch_mates_change_no_window(model):
    """Law: an image is predicted as without its batch mate, at its own size; its padding is never seen."""
    images = images_of((64, 96), (50, 70))
    config = SemanticInference(window=48, scales=(1.0, 1.5))
    logits = [full_size_logits(prediction) for prediction in predict_semantic(model, images, config)]
    assert [maps.shape[1:] for maps in logits] == [(64, 96), (50, 70)]
    images.pixels[1, :, 50:] = 77
    alone = predict_semantic(model, Images(images.pixels[1:], images.sizes[1:]), config)
    assert torch.equal(logits[1], full_size_logits(alone[0]))


def test_a_sure_prediction_stays_finite(model):
    """By hand: a probability that rounds to zero has a finite logarithm all the same, so that a map can be resized."""
    surer = Model(model.backbone, model.neck, FCNHead(model.backbone.feature_info, CLASSES), model.preprocess).eval()
    torch.nn.init.normal_(surer.head.classifier.logits.weight, std=1000.0)
    logits = logits_of(surer, images_of((64, 96)).pixels[0], flip=True)
    assert logits.isfinite().all() and logits.min() < -80


def test_other_tasks_and_impossible_windows_are_refused():
    """ValueError that names the model's task; a config without a scale, without a window, or with gaps."""
    backbone = create_backbone("resnet10t")
    neck = FPN(backbone.feature_info)
    with pytest.raises(
        ValueError, match="needs a model for semantic segmentation; the task of this model is detection"
    ):
        predict_semantic(Model(backbone, neck, RCNNHead(neck.feature_info, 2)), images_of((64, 64)))
    for wrong in ({"scales": ()}, {"scales": (0.0,)}, {"window": 0}, {"window": 5, "stride": 0}):
        with pytest.raises(ValidationError):
            SemanticInference(**wrong)
    for wrong in ({"stride": 4}, {"window": 4, "stride": 5}):
        with pytest.raises(ValidationError, match="or there are gaps between windows"):
            SemanticInference(**wrong)
