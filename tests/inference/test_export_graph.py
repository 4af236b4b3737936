"""The graph that is exported, run operation by operation: preprocessing, padding, outputs, and prediction with it."""

import cv2
import numpy as np
import pytest
import torch

from vertebra.heads import (
    ClassificationConfig,
    DenseSelectionConfig,
    Head,
    KeypointBranchConfig,
    PanopticFPNConfig,
    RCNNConfig,
    RetinaNetConfig,
    SemanticFPNConfig,
    require_tensors,
)
from vertebra.inference import compare_predictions, preprocess_image
from vertebra.inference.export import BOUNDS, verify_export
from vertebra.inference.export.features import features_model
from vertebra.inference.export.graph import ExportGraph, locate_keypoints
from vertebra.inference.export.resize import preprocess_in_graph, resize_bilinear, resized_size
from vertebra.inference.export.verify import Verification, generate_photos, predict_photo
from vertebra.models import Model
from vertebra.ops import fixed_shapes, nms_mask, paste_grids, paste_masks, plain_nms
from vertebra.structures import (
    Detections,
    Images,
    KeepSize,
    ResizedCenterCrop,
    RoIMasks,
    ShortSideResize,
    UsageError,
    VerificationError,
)

from ..helpers.exports import exported, inference_config, spread_model

RESIZE = ShortSideResize(short_side=64, long_side=96)
SIZES = [(70, 100), (64, 64), (33, 200), (20, 9), (1, 1)]


@pytest.fixture(scope="module")
def model() -> Model:
    """Return a small Mask R-CNN."""
    return spread_model()


def random_images(size: tuple[int, int], count: int = 1, seed: int = 0) -> torch.Tensor:
    """Return images of smooth random colors."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 6, generator=generator)
    return (torch.nn.functional.interpolate(coarse, size, mode="bilinear") * 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("size", "target"), [((70, 100), (64, 91)), ((37, 51), (97, 88)), ((90, 60), (45, 30)), ((5, 300), (64, 7))]
)
def test_resize_in_the_graph_gives_opencv_pixels(size, target):
    """Oracle: cv2.resize with INTER_LINEAR, bit for bit, for smaller, larger, halved and stretched images of noise."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    found = resize_bilinear(torch.from_numpy(image.transpose(2, 0, 1))[None], *target)[0].permute(1, 2, 0).numpy()
    expected = cv2.resize(image, target[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [(50, 70), (20, 31), (40, 40)])
def test_center_crop_in_the_graph_differs_by_one_at_most(size):
    """Oracle: preprocess_image, with area interpolation to fewer pixels and bilinear to more."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    for crop in (ResizedCenterCrop(short_side=32, size=28), ResizedCenterCrop(short_side=16, size=15)):
        found = preprocess_in_graph(torch.from_numpy(image.transpose(2, 0, 1))[None], crop)[0].permute(1, 2, 0)
        expected = preprocess_image(image, crop)
        assert np.abs(found.numpy().astype(int) - expected).max() <= 1


def test_size_in_the_graph_is_that_of_the_preprocessing():
    """Oracle: ShortSideResize.output_size, except where its floating-point arithmetic is below a whole number."""
    near = ShortSideResize(short_side=800, long_side=1333)
    floor = ShortSideResize(short_side=800, long_side=1333, rounding="floor")
    for height in range(1, 2000, 37):
        for width in range(1, 2000, 41):
            assert resized_size(near, height, width) == near.output_size(height, width)
            sides = zip(resized_size(floor, height, width), floor.output_size(height, width), strict=True)
            assert all(0 <= found - expected <= 1 for found, expected in sides)


@pytest.mark.parametrize("rule", ["centers", "padded"])
def test_masks_are_pasted_by_products(rule):
    """Oracle: paste_masks, by grid_sample, up to pixels where the probability is 0.5; boxes also beyond the image."""
    torch.manual_seed(0)
    grids = torch.nn.functional.interpolate(torch.rand(1, 6, 4, 4), (14, 14), mode="bilinear")[0]
    corners = torch.rand(6, 2) * 60 - 10
    boxes = torch.cat([corners, corners + 1 + torch.rand(6, 2) * 50], dim=1)
    expected = paste_masks(RoIMasks(grids, (61, 83), rule), boxes)
    found = paste_grids(grids[None], boxes[None], (61, 83), rule)[0]
    assert (found != expected).float().mean() < 1e-3 and expected.float().mean() > 0.03
    assert not paste_grids(grids[None], torch.zeros(1, 6, 4), (61, 83), "centers").any()  # the boxes of padding


def test_plain_nms_keeps_the_same_boxes():
    """Oracle: the operator, on crowded boxes of several labels with equal scores and rejected boxes."""
    torch.manual_seed(0)
    for threshold in (0.3, 0.7):
        corners = torch.rand(3, 80, 2) * 30
        boxes = torch.cat([corners, corners + 5 + torch.rand(3, 80, 2) * 20], dim=2)
        scores = (torch.rand(3, 80) * 20).round() / 20
        scores[:, ::9] = -torch.inf
        labels = torch.randint(0, 3, (3, 80))
        expected = nms_mask(boxes, scores, labels, threshold)
        with plain_nms():
            found = nms_mask(boxes, scores, labels, threshold)
        assert torch.equal(found, expected) and 0 < expected.sum() < 220


@pytest.mark.parametrize("size", SIZES)
def test_predictions_of_the_graph_equal_the_models(model, size):
    """Law: for sizes that are odd, tiny, and no multiple of the stride, with images resized outside the graph."""
    images = Images.from_list([random_images(size)[0]], model.size_divisor)
    expected, found = model.predict(images)[0], exported(model).predict(images)[0]
    agreement = compare_predictions(expected, found, 0.0)
    assert agreement.violations(BOUNDS) == [] and agreement.detections == 2 * len(expected)


def test_batch_of_several_sizes_equals_single_images(model):
    """Law: four images of different sizes in one frame, in a file of any size and in one of fixed size and batch."""
    photos = [
        random_images(size, seed=index)[0] for index, size in enumerate([(70, 90), (96, 128), (50, 60), (64, 128)])
    ]
    images = Images.from_list(photos, 128)
    expected = model.predict(images)
    for settings in ({}, {"size": (128, 128), "batch": 3}):
        file = exported(model, **settings)
        for one, other in zip(expected, file.predict(images), strict=True):
            assert compare_predictions(one, other, 0.0).violations(BOUNDS) == []
    assert {shape[0] for shape in file.session.calls} == {3}  # the last batch is filled up


def test_photos_of_several_sizes_are_predicted_one_by_one(model):
    """Law: a graph that resizes predicts each photo as the model does after OpenCV's resize."""
    file = exported(model, RESIZE)
    photos = [random_images(size, seed=3)[0] for size in ((120, 90), (64, 80), (31, 95))]
    predictions = file.predict(Images.from_list(photos, 1))
    assert [shape[0] for shape in file.session.calls] == [1, 1, 1]
    for pixels, prediction in zip(photos, predictions, strict=True):
        photo = pixels.permute(1, 2, 0).numpy()
        expected = predict_photo(model, preprocess_image(photo, RESIZE), photo)
        assert compare_predictions(expected, prediction, 0.0).violations(BOUNDS) == []
        assert prediction.masks.size == photo.shape[:2]


def test_outputs_are_in_pixels_of_the_photo(model):
    """Law: boxes and masks of the raw outputs are those of the assembled detections; rows after the count are empty."""
    photo = random_images((120, 90), 2)
    with torch.no_grad(), fixed_shapes():
        outputs = ExportGraph(model, RESIZE)(photo)
    assert outputs["masks"].shape == (2, 20, 120, 90) and outputs["count"].min() > 0
    for index, detections in enumerate(exported(model, RESIZE).predict(Images.from_list(list(photo), 1))):
        count = int(outputs["count"][index])
        assert count == len(detections)
        torch.testing.assert_close(outputs["boxes"][index, :count], detections.boxes, atol=1e-3, rtol=1e-5)
        pasted = paste_masks(detections.masks, detections.boxes)
        assert (outputs["masks"][index, :count] != pasted).float().mean() < 2e-3
        assert (outputs["labels"][index, count:] == -1).all() and not outputs["masks"][index, count:].any()
        assert not outputs["boxes"][index, count:].any()


def test_blank_image_and_thresholds_that_no_detection_reaches():
    """By hand: no detections and the largest number of detections, also in the raw outputs."""
    for threshold, count in ((1.0, 0), (0.0, 15)):
        head = RetinaNetConfig(selection=DenseSelectionConfig(score_threshold=threshold, max_detections=15))
        file = exported(spread_model(head))
        images = Images.from_list([torch.zeros(3, 64, 64, dtype=torch.uint8), random_images((64, 64))[0]], 64)
        assert [len(prediction) for prediction in file.predict(images)] == [count, count]


def test_every_kind_of_output_is_assembled():
    """Law: class maps, panoptic segments, keypoints, probabilities and feature maps equal those of the model."""
    rcnn = spread_model().config.head
    things = {"detection": ("a", "b"), "panoptic": ("a", "b", "c", "d"), "semantic": ("c", "d", "things")}
    semantic = SemanticFPNConfig(channels=16, levels=("p2", "p3", "p4"))
    keypoint = KeypointBranchConfig(convolutions=(16,), names=("left", "right"), levels=("p2", "p3", "p4"))
    models = [
        spread_model(semantic),
        spread_model(PanopticFPNConfig(instances=rcnn, semantic=semantic), things),
        spread_model(rcnn.replace(mask=None, keypoint=keypoint)),
        spread_model(ClassificationConfig()),
        features_model(spread_model().backbone),
    ]
    for one in models:
        for resize in (None, RESIZE):
            photo = random_images((90, 70), seed=2)[0].permute(1, 2, 0).numpy()
            expected = predict_photo(one, photo if resize is None else preprocess_image(photo, resize), photo)
            found = predict_photo(exported(one, resize), photo, photo)
            assert type(found) is type(expected)
            assert compare_predictions(expected, found, 0.0).violations(BOUNDS) == [], type(one.head).__name__


def test_keypoints_in_the_graph_are_near_the_decoded_ones():
    """Oracle: the branch's bicubic decoding, on round peaks; the graph is within half a cell, with the same scores."""
    keypoint = KeypointBranchConfig(convolutions=(16,), names=("left", "right"), levels=("p2", "p3", "p4"))
    branch = spread_model(spread_model().config.head.replace(mask=None, keypoint=keypoint)).head.keypoint
    peaks, cells = torch.tensor([[[20.3, 30.6], [8.9, 40.2]]]), torch.arange(56) + 0.5
    squares = [(cells - peaks[..., axis, None]) ** 2 for axis in (0, 1)]
    heatmaps = -(squares[1][..., :, None] + squares[0][..., None, :]) / 20
    boxes = torch.tensor([[10.0, 20.0, 122.0, 76.0]])
    expected = branch.attach(Detections(boxes, torch.zeros(1).long(), torch.ones(1)), heatmaps, (99, 99)).keypoints
    found = locate_keypoints(branch, heatmaps[None], boxes[None])[0]
    assert ((found - expected)[..., :2].abs() <= torch.tensor([1.0, 0.5])).all()
    torch.testing.assert_close(found[..., 2], expected[..., 2], rtol=0.02, atol=0)


class Silent(Head):
    """A user's head that predicts without tensors."""

    task = "silent"

    def loss(self, features, images, targets):
        return {}

    def predict(self, features, images):
        return [None] * len(images)


def test_head_without_tensors_is_refused():
    """docs/faults.md row 194: a UsageError that says what to define."""
    with pytest.raises(UsageError, match=r"inherit from vertebra\.heads\.PredictsTensors"):
        require_tensors(Silent())


def test_image_that_does_not_fit_is_refused(model):
    """docs/faults.md row 195: a UsageError with both sizes, for a file of fixed size."""
    file = exported(model, size=(64, 64))
    with pytest.raises(UsageError, match="takes images of 64x64 pixels, but an image has 64x100"):
        file.predict(Images.from_list([random_images((64, 100))[0]], 32))


def test_verification_accepts_the_graph_and_finds_a_damaged_one(model):
    """docs/faults.md row 196: the differences by name; photos that do not fit a fixed size are left out."""
    inference = inference_config(model, RESIZE)
    assert verify_export(model, exported(model, RESIZE), inference).agreement.violations(BOUNDS) == []
    damaged = spread_model()
    damaged.head.box.class_logits.bias.add_(torch.tensor([0.05, 0.0, 0.0, 0.0]))
    verification = verify_export(model, exported(damaged, RESIZE), inference)
    with pytest.raises(
        VerificationError, match=r"model.onnx: .* differ from the model's: scores: .*no file was"
    ) as raised:
        verification.require("model.onnx")
    assert raised.value.exit_code == 1
    with pytest.raises(UsageError, match="no photo fits the size 32x32"):
        verify_export(model, exported(model, size=(32, 32)), inference, [np.zeros((90, 90, 3), np.uint8)])


def test_verification_of_half_precision_is_looser():
    """By hand: a difference of 0.01 in scores."""
    verification = Verification(compare_predictions(0, 0).merge(type(compare_predictions(0, 0))(scores=0.01)), 1)
    verification.require("model.onnx", half=True)
    with pytest.raises(VerificationError):
        verification.require("model.onnx")


def test_generated_photos_are_of_several_sizes_and_one_is_dark():
    """By hand."""
    photos = generate_photos(None, 3)
    assert len({photo.shape for photo in photos}) == 4 and photos[-1].max() < 4 and photos[0].std() > 20
    assert [photo.shape for photo in generate_photos((40, 50), 4)] == [(40, 50, 4)] * 2
    assert KeepSize().output_size(3, 4) == (3, 4)
    assert isinstance(spread_model().config.head, RCNNConfig)
