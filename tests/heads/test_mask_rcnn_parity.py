"""Mask R-CNN against both versions of torchvision's, with the same weights, from pixels to losses and masks.

Negative controls for each convention are in the tests of single stages (test_rcnn_parity.py, test_mask_branch.py).
"""

import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

import vertebra
from vertebra.heads import TORCHVISION_MASK, TORCHVISION_V2, RCNNHead
from vertebra.models import Model, from_torchvision_detector
from vertebra.necks import FPN, FPNConfig
from vertebra.ops import paste_masks
from vertebra.structures import CheckpointError, Instances

from ..helpers.reference_detector import NUM_CLASSES, random_images, replace_in_branch

SIZES = [(96, 128), (80, 120)]
VERSIONS = {"v1": (maskrcnn_resnet50_fpn, TORCHVISION_MASK), "v2": (maskrcnn_resnet50_fpn_v2, TORCHVISION_V2)}
EVERY = 10**6  # samples: all candidates, so that nothing is random


@pytest.fixture(scope="module", params=["v1", pytest.param("v2", marks=pytest.mark.slow)])
def pair(request):
    """Return torchvision's model with random weights, and Vertebra's with the same weights."""
    make, config = VERSIONS[request.param]
    torch.manual_seed(0)
    theirs = make(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1, box_score_thresh=0.0,
        rpn_batch_size_per_image=EVERY, box_batch_size_per_image=EVERY,
        rpn_post_nms_top_n_train=200, rpn_post_nms_top_n_test=200, box_detections_per_img=30,
    )  # fmt: skip
    theirs.transform.resize = lambda image, target=None: (image, target)
    config = replace_in_branch(config, "rpn", post_nms=(200, 200), samples=EVERY)
    config = replace_in_branch(
        config, "box", samples=EVERY, score_threshold=0.0, max_candidates=10**4, max_detections=30
    )
    backbone = vertebra.create_backbone("resnet50")  # without weights, torchvision does not freeze its norms either
    neck = FPN(backbone.feature_info, FPNConfig(norm="batch" if request.param == "v2" else "none"))
    ours = Model(backbone, neck, RCNNHead(neck.feature_info, NUM_CLASSES, config))
    ours.load_state_dict(from_torchvision_detector(theirs.state_dict()))
    return theirs, ours


def test_predictions_equal_torchvisions(pair):
    """Oracle: torchvision's boxes (1e-2 px) with their classes, scores (1e-4) and pasted masks.

    Exceptions are close calls: one box in fifteen at NMS, a pixel in a thousand at the threshold, and a row or column
    of a mask whose box ends on a whole pixel, which this rule of pasting cuts off.
    """
    theirs, ours = (model.eval() for model in pair)
    pixels, images = random_images(SIZES)
    with torch.no_grad():
        expected = theirs(pixels)
    for found, reference in zip(ours.predict(images), expected, strict=True):
        assert len(found) == len(reference["boxes"]) == 30
        masks, matched, differing = paste_masks(found.masks, found.boxes), 0, []
        keys = "boxes", "labels", "scores", "masks"
        for box, label, score, mask in zip(*(reference[key] for key in keys), strict=True):
            near = (found.boxes - box).abs().amax(dim=1) < 1e-2
            same = (near & (found.labels == label - 1) & ((found.scores - score).abs() < 1e-4)).nonzero().flatten()
            matched += bool(len(same))
            differing += [(masks[row] != (mask[0] > 0.5)).float().mean() for row in same[:1]]
        assert matched >= 28
        assert sum(fraction < 1e-3 for fraction in differing) >= matched - 3 and max(differing) < 1e-2
        assert 0.001 < masks.float().mean() < 0.5


def targets():
    """Return the same objects as torchvision takes them (labels from 1) and as Vertebra does."""
    theirs, ours = [], []
    for height, width in SIZES:
        boxes = torch.tensor([[10.0, 12.0, 90.0, 70.0], [50.0, 20.0, 118.0, 79.0], [5.0, 40.0, 40.0, 78.0]])
        masks = torch.zeros(3, height, width, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            rows, columns = torch.arange(height)[:, None], torch.arange(width)
            middle, halves = ((top + bottom) / 2, (left + right) / 2), ((bottom - top) / 2, (right - left) / 2)
            mask[((rows - middle[0]) / halves[0]) ** 2 + ((columns - middle[1]) / halves[1]) ** 2 < 1] = 1
        labels = torch.tensor([0, 3, 5])
        theirs.append({"boxes": boxes, "labels": labels + 1, "masks": masks})
        ours.append(Instances(boxes, labels, masks > 0))
    return theirs, ours


def test_losses_equal_torchvisions(pair):
    """Oracle: torchvision's five losses in training mode (batch norm over the same batch), to 1e-3, relative.

    Each side uses its own proposals.
    """
    theirs, ours = (model.train() for model in pair)
    for part in (theirs.roi_heads.mask_head, ours.head.mask):
        part.eval()  # Vertebra's statistics include repeated positives
    pixels, images = random_images(SIZES)
    their_targets, our_targets = targets()
    expected = theirs(pixels, their_targets)
    found = ours(images, our_targets)
    names = {
        "loss_rpn_objectness": "loss_objectness",
        "loss_rpn_box": "loss_rpn_box_reg",
        "loss_class": "loss_classifier",
        "loss_box": "loss_box_reg",
        "loss_mask": "loss_mask",
    }
    for name, other in names.items():
        torch.testing.assert_close(
            found[name], expected[other], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert found["loss_mask"] > 0.1


def test_unknown_names_of_weights_are_refused():
    """By hand: exit code 4, naming the tensor."""
    with pytest.raises(CheckpointError, match=r"roi_heads.gaze_head.0.weight is not a tensor of torchvision's"):
        from_torchvision_detector({"roi_heads.gaze_head.0.weight": torch.zeros(1)})
