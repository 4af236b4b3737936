"""Invalid targets are refused by the loss of every kind of head."""

import pytest
import torch

from vertebra.heads import ArcFaceHead, ClassificationHead, FCNConfig, FCNHead, RCNNHead
from vertebra.structures import FeatureInfo, Images, Instances, require_labels_below

from ..helpers.pyramids import BACKBONE, features_of

PYRAMID = {f"p{level}": FeatureInfo(256, 2**level) for level in range(2, 7)}
IMAGES = Images(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.tensor([[64, 64], [48, 64]]))
CLASSES = 3


def detector_loss(*targets: Instances) -> dict[str, torch.Tensor]:
    """Return the losses of a detector of three classes for two images."""
    return RCNNHead(PYRAMID, CLASSES).loss(features_of(PYRAMID, 64, 64), IMAGES, targets)


def classifier_loss(*labels: int, head_type: type = ClassificationHead) -> dict[str, torch.Tensor]:
    """Return the loss of a head for classes of images, of three classes, for two images."""
    head = head_type(BACKBONE, CLASSES)
    return head.loss(features_of(BACKBONE, 64, 64), IMAGES, [torch.tensor(label) for label in labels])


def segmenter_loss(*values: int) -> dict[str, torch.Tensor]:
    """Return the loss of a semantic head of three classes for two maps, each of zeros and one other value."""
    maps = [torch.zeros(height, width, dtype=torch.int64) for height, width in IMAGES.sizes.tolist()]
    for semantic, value in zip(maps, values, strict=True):
        semantic[10:20, 30:40] = value
    return FCNHead(BACKBONE, CLASSES, FCNConfig()).loss(features_of(BACKBONE, 64, 64), IMAGES, maps)


def objects(label: int = 0, box: tuple[float, ...] = (8.0, 8.0, 40.0, 40.0)) -> Instances:
    """Return a target of one object."""
    return Instances(torch.tensor([box]), torch.tensor([label]))


@pytest.mark.parametrize("label", [3, 4, 80])
def test_object_label_beyond_the_classes_is_refused(label):
    """docs/faults.md row 41. By hand: with three classes, label 3 was silently trained as background, and 4 was an
    IndexError."""
    with pytest.raises(ValueError, match=f"target 1 has the label {label}, but the head has 3 classes, 0..2"):
        detector_loss(objects(2), objects(label))
    assert all(loss.isfinite().all() for loss in detector_loss(objects(0), objects(2)).values())


@pytest.mark.parametrize("label", [3, -1, 255])
def test_image_label_beyond_the_classes_is_refused(label):
    """docs/faults.md row 41. By hand: 255 does not mean ignore for the label of a whole image."""
    for head_type in (ClassificationHead, ArcFaceHead):
        with pytest.raises(ValueError, match=f"target 0 has the label {label}, but the head has 3 classes, 0..2"):
            classifier_loss(label, 0, head_type=head_type)
        assert classifier_loss(2, 0, head_type=head_type)["loss_class"].isfinite()


@pytest.mark.parametrize("value", [3, 254, -1, -100, 256])
def test_semantic_value_beyond_the_classes_is_refused(value):
    """docs/faults.md row 41. By hand: only 255 is ignored."""
    with pytest.raises(ValueError, match=f"target 1 has the label {value}, but the head has 3 classes, 0..2"):
        segmenter_loss(2, value)
    assert segmenter_loss(255, 2)["loss_semantic"].isfinite()


@pytest.mark.parametrize("box", [(8.0, 30.0, 40.0, 64.0), (70.0, 8.0, 90.0, 40.0), (-5.0, 8.0, 40.0, 40.0)])
def test_box_outside_its_image_is_refused(box):
    """docs/faults.md row 142. By hand: the second image is 48 pixels high and 64 wide."""
    with pytest.raises(
        ValueError, match=r"target 1: boxes\[0\] is .* must lie in its image of \(height, width\) \(48,"
    ):
        detector_loss(objects(), objects(box=box))


def test_masks_of_another_size_than_their_image_are_refused():
    """docs/faults.md row 56. By hand: masks of 64 x 64 for an image of 48 x 64."""
    masks = torch.ones(1, 64, 64) > 0
    with pytest.raises(ValueError, match=r"target 1: the image has .* \(48, 64\), its masks \(64, 64\)"):
        detector_loss(objects(), objects().replace(masks=masks))


def test_number_of_targets_must_match_images():
    """By hand: otherwise an image would be trained without its objects, or with those of another."""
    with pytest.raises(ValueError, match="one target per image is needed, got 2 images and 1 targets"):
        detector_loss(objects())


def test_labels_are_checked_on_a_gpu_without_reading_them():
    """Law: meta tensors, which have no values, stand for tensors on a GPU: the greatest label is remembered from the
    CPU."""
    with pytest.raises(ValueError, match="target 0 has the label 7"):
        require_labels_below([objects(7).to("meta")], CLASSES)
    never_seen = Instances(torch.zeros(1, 4, device="meta"), torch.zeros(1, dtype=torch.int64, device="meta"))
    semantic = torch.zeros(4, 5, dtype=torch.int64, device="meta")
    require_labels_below([never_seen, semantic, objects(2).to("meta")], CLASSES)
