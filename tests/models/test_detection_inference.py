"""Test-time augmentation of detectors: against a plain loop over the views, and its laws."""

import pytest
import torch
from torchvision.ops import batched_nms

from vertebra.backbones import create_backbone
from vertebra.heads import (
    FCNHead,
    FCOSConfig,
    FCOSHead,
    KeypointBranchConfig,
    MaskBranchConfig,
    RCNNConfig,
    RCNNHead,
)
from vertebra.models import DetectionInference, Model, SemanticInference, predict_detections, predict_views
from vertebra.necks import FPN, FPNConfig, Passthrough
from vertebra.ops import paste_masks, resize_maps
from vertebra.structures import Images

SIZE = (96, 130)
FCOS = FCOSConfig(selection={"score_threshold": 0.0})
KEYPOINTS = ("nose", "left_eye", "right_eye")


def build_model(config: RCNNConfig | FCOSConfig) -> Model:
    """Return an untrained detector whose scores differ from place to place."""
    torch.manual_seed(0)
    backbone = create_backbone("resnet10t")
    neck = FPN(backbone.feature_info, FPNConfig(channels=32))
    if isinstance(config, RCNNConfig):
        head = RCNNHead(neck.feature_info, 3, config)
        torch.nn.init.normal_(head.box.class_logits.weight, std=0.1)
        torch.nn.init.normal_(head.box.box_offsets.weight, std=0.02)
    else:
        head = FCOSHead(neck.feature_info, 3, config)
    return Model(backbone, neck, head).eval()


@pytest.fixture(scope="module")
def model() -> Model:
    """Return a Mask and Keypoint R-CNN."""
    mask = MaskBranchConfig(convolutions=(16,))
    keypoint = KeypointBranchConfig(names=KEYPOINTS, convolutions=(16,))
    return build_model(RCNNConfig(mask=mask, keypoint=keypoint))


@pytest.fixture(scope="module")
def images() -> Images:
    pixels = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Images.from_list([pixels])


def flip_boxes(boxes: torch.Tensor, width: int) -> torch.Tensor:
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def boxes_of_views(model: Model, images: Images, views: list[tuple[float, bool]]) -> list[tuple]:
    """Return (boxes in the image, labels, scores) of each view, predicted one by one with ``model.predict``."""
    found = []
    for scale, flipped in views:
        height, width = (round(side * scale) for side in SIZE)
        pixels = images.pixels[0, :, : SIZE[0], : SIZE[1]].float()
        view = resize_maps(pixels[None], (height, width))[0].round().to(torch.uint8)
        (detections,) = model.predict(Images.from_list([view.flip(-1) if flipped else view], model.size_divisor))
        boxes = flip_boxes(detections.boxes, width) if flipped else detections.boxes
        boxes = boxes * torch.tensor([SIZE[1] / width, SIZE[0] / height] * 2)
        found.append((boxes, detections.labels, detections.scores))
    return found


@pytest.mark.parametrize("config", [RCNNConfig(), FCOS], ids=["rcnn", "fcos"])
def test_boxes_are_merged_by_nms(config, images):
    """Oracle: torchvision's class-wise NMS of the boxes of every view, each predicted as an image (detectron2's rule).

    The limit of detections is that of the merged ones.
    """
    model = build_model(config)
    options = DetectionInference(scales=(1.0, 0.75, 1.5), flip=True, nms_threshold=0.6, max_detections=40)
    (found,) = predict_detections(model, images, options)
    boxes, labels, scores = (
        torch.cat(parts) for parts in zip(*boxes_of_views(model, images, options.views), strict=True)
    )
    kept = batched_nms(boxes, scores, labels, 0.6)[:40]
    assert len(options.views) == 6 and len(found) == len(kept) > 10
    torch.testing.assert_close(found.scores, scores[kept])
    torch.testing.assert_close(found.boxes, boxes[kept], rtol=1e-4, atol=1e-3)
    assert torch.equal(found.labels, labels[kept])


def test_one_view_is_the_plain_prediction(model, images):
    """Law: bit for bit; a config for another task is not used."""
    (plain,) = model.predict(images)
    for (found,) in (
        predict_detections(model, images),
        predict_views(model, images, DetectionInference()),
        predict_views(model, images, SemanticInference(scales=(0.5,))),
    ):
        assert torch.equal(found.boxes, plain.boxes) and torch.equal(found.masks.grids, plain.masks.grids)


def test_flipped_image_has_flipped_detections(model, images):
    """Law: with flips, the detections of the mirror image are the mirrored ones: boxes, masks, and keypoints with left
    and right swapped; without flips they are not."""
    width = SIZE[1]
    mirrored = Images.from_list([images.pixels[0, :, : SIZE[0], :width].flip(-1)])
    options = DetectionInference(scales=(1.0, 1.25), flip=True)
    (found,), (other,) = (predict_detections(model, batch, options) for batch in (images, mirrored))
    assert len(found) == len(other) > 50
    found, other = found[:50], other[:50]
    torch.testing.assert_close(flip_boxes(other.boxes, width), found.boxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(other.masks.grids.flip(-1), found.masks.grids, rtol=1e-3, atol=1e-3)
    bitmaps = [paste_masks(these.masks, these.boxes) for these in (found, other)]
    assert (bitmaps[0] == bitmaps[1].flip(-1)).float().mean() > 0.999
    swapped = other.keypoints[:, [0, 2, 1]]
    torch.testing.assert_close(swapped[..., 2], found.keypoints[..., 2], rtol=1e-3, atol=1e-4)
    distances = (torch.cat([width - swapped[..., :1], swapped[..., 1:2]], dim=2) - found.keypoints[..., :2]).norm(dim=2)
    assert distances.median() < 2
    unflipped = [predict_detections(model, batch, options.replace(flip=False))[0] for batch in (images, mirrored)]
    assert len(unflipped[0]) != len(unflipped[1]) or not torch.allclose(*(these.scores for these in unflipped))


def test_images_of_a_batch_do_not_change_each_other(model, images):
    """Law: an image in a batch with a larger one is predicted as it is alone."""
    options = DetectionInference(scales=(1.0, 0.5))
    (alone,) = predict_detections(model, images, options)
    large = torch.zeros(3, 200, 210, dtype=torch.uint8)
    batch = Images.from_list([images.pixels[0, :, : SIZE[0], : SIZE[1]], large])
    torch.testing.assert_close(predict_detections(model, batch, options)[0].boxes, alone.boxes)


def test_model_of_another_task_is_refused(images):
    """By hand: ValueError that names the task."""
    backbone = create_backbone("resnet10t", output_stride=16)
    model = Model(backbone, Passthrough(backbone.feature_info), FCNHead(backbone.feature_info, 3)).eval()
    with pytest.raises(ValueError, match="needs a detector; the task of this model is semantic"):
        predict_detections(model, images)
