"""Models of detectron2 against detectron2 itself, with the same weights and one config; skipped if it is not installed.

Vertebra's model is built from the config.yaml that detectron2 writes, and gets detectron2's state dict. First each
stage gets detectron2's output of the stage before, then whole predictions are compared. Negative controls change one
convention at a time and check that the comparison fails. detectron2's Python code and the folder ``configs`` of its
repository are sufficient; its compiled extension is not needed.
"""

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vertebra.heads import Proposals
from vertebra.models import Model
from vertebra.models.zoo import PublishedModel
from vertebra.ops import label_map, merge_panoptic, paste_masks
from vertebra.structures import CheckpointError, Detections

from ..helpers.reference_detectron2 import (
    SMALL,
    as_images,
    predict,
    published,
    random_detectron2,
    random_image,
    read_config,
    vertebra_model,
)

pytest.importorskip("detectron2.modeling", reason="detectron2 is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x"
RESNEXT = {"MODEL.RESNETS.DEPTH": 50, "MODEL.RESNETS.NUM_GROUPS": 32, "MODEL.RESNETS.WIDTH_PER_GROUP": 4}
SLOW = [
    ("COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x", RESNEXT),
    ("COCO-Detection/faster_rcnn_R_50_DC5_1x", {"MODEL.RESNETS.DEPTH": 50, "MODEL.RPN.PRE_NMS_TOPK_TEST": 2000}),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", {"MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2}),
    ("COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x", {}),
    ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x", {}),
    ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x", {}),
    ("Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x", {}),
    ("Misc/cascade_mask_rcnn_R_50_FPN_1x", {}),
    ("Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic", {}),
    ("Misc/mask_rcnn_R_50_FPN_3x_gn", {}),
    ("Misc/mask_rcnn_R_50_FPN_3x_syncbn", {"MODEL.RPN.CONV_DIMS": [-1, -1]}),
    ("Misc/scratch_mask_rcnn_R_50_FPN_9x_syncbn", {}),
]
MODELS = [
    (FASTER, {}),
    ("COCO-Detection/retinanet_R_50_FPN_1x", {}),
    *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW),
]
SIZES = [(288, 352), (333, 500)]  # the levels of the first have odd sizes, the second is padded


@functools.cache
def twins(name: str, changes: tuple[tuple[str, Any], ...] = ()) -> tuple[Any, PublishedModel, Model]:
    """Return detectron2's model with random weights, its description, and Vertebra's model with the same weights."""
    config = read_config(name, {**SMALL, **dict(changes)})
    reference = random_detectron2(config, random_image(128, 160))
    described = published(config)
    return reference, described, vertebra_model(reference, described)


def as_key(changes: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return changes of settings as a key of the cache."""
    return tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in changes.items())


@torch.no_grad()
def both_predictions(name: str, changes: dict[str, Any], size: tuple[int, int]) -> tuple[dict[str, Any], Any]:
    """Return detectron2's prediction for a random image, and Vertebra's."""
    reference, _, model = twins(name, as_key(changes))
    image = random_image(*size)
    divisor = reference.backbone.size_divisibility or 1  # a model without an FPN gets images without padding
    return predict(reference, image), model.predict(as_images(image, divisor))[0]


@pytest.mark.parametrize(("name", "changes"), MODELS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_predictions_equal_detectron2s(name, changes, size):
    """Oracle: the 100 detections (boxes 1e-3 px, scores 1e-5, classes), their masks and keypoints, and segments."""
    theirs, ours = both_predictions(name, changes, size)
    if isinstance(ours, dict):
        require_equal_segments(theirs, ours, size)
        ours = ours["detection"]
    require_equal_detections(theirs["instances"], ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", [FASTER, "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x"])
def test_predictions_at_full_size_equal_detectron2s(name):
    """Oracle: the same at the size of COCO's images in training, whose coarsest levels have odd sizes."""
    theirs, ours = both_predictions(name, {}, (800, 1333))
    require_equal_detections(theirs["instances"], ours)


def require_equal_detections(theirs: Any, ours: Detections) -> None:
    """Check that detections agree, with their masks and keypoints; there are as many as detectron2 allows."""
    assert len(theirs) == len(ours) == 100
    torch.testing.assert_close(ours.boxes, theirs.pred_boxes.tensor, atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-5, rtol=0)
    assert torch.equal(ours.labels, theirs.pred_classes)
    assert theirs.has("pred_masks") == (ours.masks is not None)
    assert theirs.has("pred_keypoints") == (ours.keypoints is not None)
    if ours.masks is not None:
        masks = paste_masks(ours.masks, ours.boxes)
        assert masks.flatten(1).any(dim=1).sum() > 50
        assert (masks != theirs.pred_masks).float().mean() < 1e-5
    if ours.keypoints is not None:
        torch.testing.assert_close(ours.keypoints[..., 2], theirs.pred_keypoints[..., 2], atol=1e-5, rtol=1e-4)
        near = (ours.keypoints - theirs.pred_keypoints).abs().amax(dim=2) < 1e-2
        assert near.float().mean() > 0.999  # two pixels of a heatmap may be almost equal


def require_equal_segments(theirs: dict[str, Any], ours: dict[str, Any], size: tuple[int, int]) -> None:
    """Check that class maps and panoptic segmentations agree; detectron2 has the class for all things first."""
    num_stuff = ours["panoptic"].num_stuff
    classes = theirs["sem_seg"].argmax(dim=0)
    expected = torch.where(classes == 0, num_stuff, classes - 1)
    assert (label_map(ours["semantic"], size) != expected).float().mean() < 1e-5
    ids, segments = theirs["panoptic_seg"]
    found = merge_panoptic(ours["panoptic"], size)
    num_things = ours["panoptic"].num_things
    labels = [
        segment["category_id"] if segment["isthing"] else num_things + segment["category_id"] - 1
        for segment in segments
    ]
    assert [segment.label for segment in found.segments] == labels
    assert len({segment.is_thing for segment in found.segments}) == 2
    assert (found.ids != ids).float().mean() < 1e-4


TOLERANCES = {
    "features": 1e-5, "anchors": 0.0, "objectness": 1e-4, "offsets": 1e-4, "proposals": 1e-3, "regions": 1e-4,
    "logits": 1e-4, "box offsets": 1e-4, "detections": 1e-3,
}  # fmt: skip
"""The largest deviation of each stage: relative to the largest value for features and regions, boxes in pixels."""


@torch.no_grad()
def deviations(name: str, changes: dict[str, Any], conventions: dict[str, Any] | None = None) -> dict[str, float]:
    """Return the largest deviation of each stage of an R-CNN from detectron2's, each with detectron2's input.

    ``conventions`` are fields of Vertebra's model config that are changed.
    """
    from detectron2.structures import Boxes

    reference, described, model = twins(name, as_key(changes))
    if conventions:
        model = vertebra_model(reference, replace(described, model=described.model.replace(**conventions)))
    image = random_image(*SIZES[0])
    inputs, images = reference.preprocess_image([{"image": image.flip(0)}]), as_images(image)
    features = reference.backbone(inputs.tensor)
    ours = model.features(images)
    maps = [features[level] for level in reference.proposal_generator.in_features]
    objectness, offsets = reference.proposal_generator.rpn_head(maps)
    anchors = torch.cat([level.tensor for level in reference.proposal_generator.anchor_generator(maps)])
    (proposals,) = reference.proposal_generator(inputs, features, None)[0]
    boxes = proposals.proposal_boxes.tensor
    pooled = reference.roi_heads.box_pooler([features[f"p{level}"] for level in range(2, 6)], [Boxes(boxes)])
    logits, box_offsets = reference.roi_heads.box_predictor(reference.roi_heads.box_head(pooled))
    (detections,), _ = reference.roi_heads(inputs, features, [proposals], None)

    head, box = model.head, model.head.box
    dense = head.rpn(features, images)
    found = head.rpn.propose(dense, images, training=False)
    output = box(features, boxes[None])
    given = Proposals(boxes[None], torch.ones(1, len(boxes), dtype=torch.bool))
    selected = box.detect(output, box.scores(output), given, images)
    rows = [level.permute(0, 2, 3, 1).flatten(1) for level in objectness]
    return {
        "features": max(relative_deviation(ours[level], features[level]) for level in features),
        "anchors": float((torch.cat(dense.anchors) - anchors).abs().max()),
        "objectness": float((torch.cat(dense.logits, dim=1) - torch.cat(rows, dim=1)).abs().max()),
        "offsets": relative_deviation(
            torch.cat([level.flatten() for level in dense.offsets]),
            torch.cat([level.permute(0, 2, 3, 1).flatten() for level in offsets]),
        ),
        "proposals": box_deviation(found.boxes[0][found.valid[0]], boxes),
        "regions": relative_deviation(box.pool(features, boxes[None]), pooled),
        "logits": float((output.logits[0] - logits).abs().max()),
        "box offsets": float((output.offsets[0].flatten(1) - box_offsets).abs().max()),
        "detections": box_deviation(selected.unpad()[0].boxes, detections.pred_boxes.tensor),
    }  # fmt: skip


def relative_deviation(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def box_deviation(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest distance of a box of one set to the nearest of the other, in pixels."""
    if len(ours) != len(theirs):
        return float("inf")
    distances = torch.cdist(ours, theirs, p=float("inf"))
    return float(torch.maximum(distances.amin(dim=0).max(), distances.amin(dim=1).max()))


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_every_stage_equals_detectron2s(sampling_ratio):
    """Oracle: features, anchors, RPN outputs, proposals, RoIAlign with both sampling ratios, logits, detections."""
    found = deviations(FASTER, {"MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": sampling_ratio})
    assert {stage: found[stage] for stage in found if found[stage] > TOLERANCES[stage]} == {}


CONTROLS = [
    ("features", {"input": {"channels": "rgb"}}),
    ("features", {"input": {"mean": (103.939, 116.779, 123.68)}}),
    ("features", {"input": {"std": (57.375, 57.12, 58.395)}}),
    ("features", {"backbone": {"style": "pytorch"}}),
    ("features", {"backbone": {"norm_eps": 1e-3}}),
    ("anchors", {"head": {"rpn": {"round_anchors": True}}}),
    ("anchors", {"head": {"rpn": {"anchor_stride": "grid"}}}),
    ("proposals", {"head": {"rpn": {"pre_nms": (2000, 300)}}}),
    ("proposals", {"head": {"rpn": {"post_nms": (1000, 500)}}}),
    ("proposals", {"head": {"rpn": {"nms_threshold": 0.5}}}),
    ("proposals", {"head": {"rpn": {"min_size": 30.0}}}),
    ("regions", {"head": {"box": {"pool": {"aligned": False}}}}),
    ("regions", {"head": {"box": {"pool": {"sampling_ratio": 2}}}}),
    ("regions", {"head": {"box": {"pool": {"canonical_size": 112.0}}}}),
    ("detections", {"head": {"box": {"box_weights": (1.0, 1.0, 1.0, 1.0)}}}),
    ("detections", {"head": {"box": {"score_threshold": 0.9}}}),
    ("detections", {"head": {"box": {"nms_threshold": 0.3}}}),
    ("detections", {"head": {"box": {"max_detections": 50}}}),
    ("detections", {"head": {"box": {"min_size": 30.0}}}),
]


@pytest.mark.parametrize(("stage", "conventions"), CONTROLS, ids=str)
def test_negative_control_of_a_convention(stage, conventions):
    """Control: with one convention changed, its stage deviates by more than ten times the tolerance."""
    found = deviations(FASTER, {"MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0}, conventions)
    assert found[stage] > max(10 * TOLERANCES[stage], 1e-3 if stage == "anchors" else 0)


def test_negative_control_of_the_sampling_ratio():
    """Control: a sampling ratio of 0 in detectron2's config, read as 2, changes the detections."""
    reference, described, _ = twins(FASTER)
    head = described.model.head.replace(box={"pool": {"sampling_ratio": 2}})
    model = vertebra_model(reference, replace(described, model=described.model.replace(head=head)))
    image = random_image(*SIZES[0])
    theirs, ours = predict(reference, image)["instances"], model.predict(as_images(image))[0]
    assert box_deviation(ours.boxes, theirs.pred_boxes.tensor) > 0.1


def test_negative_control_of_the_background():
    """Control: with the background first, detectron2's weights do not fit."""
    reference, described, _ = twins(FASTER)
    head = described.model.head.replace(box={"background": "first"})
    with pytest.raises(CheckpointError, match="box_offsets"):
        vertebra_model(reference, replace(described, model=described.model.replace(head=head)))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"selection": {"clip": "before"}},
        {"selection": {"nms_threshold": 0.6}},
        {"round_anchors": True},
    ],
    ids=str,
)
def test_negative_control_of_a_retinanet(changes):
    """Control: with one convention of RetinaNet changed, the detections differ."""
    reference, described, _ = twins("COCO-Detection/retinanet_R_50_FPN_1x")
    head = described.model.head.replace(**changes)
    model = vertebra_model(reference, replace(described, model=described.model.replace(head=head)))
    image = random_image(*SIZES[0])
    theirs, ours = predict(reference, image)["instances"], model.predict(as_images(image))[0]
    assert box_deviation(ours.boxes, theirs.pred_boxes.tensor) > 0.1
