"""YOLOX against plain loops of its assignment and losses, and against LibreYOLO's head where that is installed.

Each convention is also flipped alone, and the comparison must then fail: a test that always passes proves nothing.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vertebra.heads import DenseSelectionConfig, YOLOXConfig, YOLOXHead
from vertebra.ops import POSITIVE, decode_centers, match_by_cost, pairwise_iou, split_losses, total_loss
from vertebra.structures import FeatureInfo, Images, Instances

CHANNELS, NUM_CLASSES, STRIDES = 16, 4, (8, 16, 32)
PYRAMID = {f"p{int(math.log2(stride))}": FeatureInfo(CHANNELS, stride) for stride in STRIDES}
HEIGHT, WIDTH = 96, 128
OLDER = YOLOXConfig(positive_region="center_and_box", center_radius=2.5)
CONVENTIONS = {"current": YOLOXConfig(), "older": OLDER}


def batch() -> tuple[dict[str, Tensor], Images, list[Instances]]:
    """Return random features of three images: with overlapping objects, with one object, and with none."""
    generator = torch.Generator().manual_seed(1)
    features = {
        name: torch.randn(3, CHANNELS, HEIGHT // info.stride, WIDTH // info.stride, generator=generator)
        for name, info in PYRAMID.items()
    }
    boxes = torch.tensor(
        [[8.0, 8.0, 60.0, 70.0], [12.0, 6.0, 66.0, 74.0], [16.0, 14.0, 58.0, 60.0], [70.0, 20.0, 126.0, 90.0]]
    )
    targets = [
        Instances(boxes, torch.tensor([0, 1, 2, 3])),
        Instances(boxes[3:4], torch.tensor([2])),
        Instances(boxes[:0], torch.zeros(0, dtype=torch.int64)),
    ]
    return features, Images.from_list([torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)] * 3), targets


def random_head(config: YOLOXConfig) -> YOLOXHead:
    """Return a head in evaluation mode whose boxes overlap the objects, and whose scores differ."""
    torch.manual_seed(0)
    head = YOLOXHead(PYRAMID, NUM_CLASSES, config)
    with torch.no_grad():
        for layers in head.layers.values():
            for layer in (layers.class_logits, layers.objectness):
                nn.init.normal_(layer.weight, std=1.0)
                nn.init.constant_(layer.bias, -1.0)
            nn.init.normal_(layers.box_offsets.weight, std=0.5)
        for stride, layers in zip(STRIDES, head.layers.values(), strict=True):
            layers.box_offsets.bias[2:] = math.log(50 / stride)
    return head.eval()


def slow_assignment(head: YOLOXHead, output, image: int, target: Instances) -> list[int]:
    """Return the object of each point, or -1, point by point and object by object (2107.08430 section 2.1)."""
    config = head.config
    boxes = decode_centers(output.offsets[image], output.corners, output.strides)
    points = (output.corners + output.strides / 2).tolist()
    scores = (output.logits[image].sigmoid() * output.objectness[image].sigmoid()).sqrt()
    costs, overlaps = [], []
    for point, stride, box, score in zip(points, output.strides[:, 0].tolist(), boxes, scores, strict=True):
        row, row_overlaps, is_candidate = [], [], False
        for x1, y1, x2, y2, label in torch.cat([target.boxes, target.labels[:, None]], dim=1).tolist():
            from_center = max(abs(point[0] - (x1 + x2) / 2), abs(point[1] - (y1 + y2) / 2))
            near = from_center < config.center_radius * stride
            inside = x1 < point[0] < x2 and y1 < point[1] < y2
            if config.positive_region == "center":
                inside = near
            is_candidate |= near or inside
            overlap = pairwise_iou(torch.tensor([[x1, y1, x2, y2]]), box[None]).item()
            one_hot = F.one_hot(torch.tensor(int(label)), NUM_CLASSES).float()
            entropy = F.binary_cross_entropy(score, one_hot, reduction="sum").item()
            row.append(entropy - config.iou_cost * math.log(overlap + 1e-8) + 1e6 * (not (near and inside)))
            row_overlaps.append(overlap)
        costs.append(row if is_candidate else [math.inf] * len(target))
        overlaps.append(row_overlaps if is_candidate else [0.0] * len(target))
    wanted_by: dict[int, list[int]] = {}
    for index in range(len(target)):
        best = sorted((row[index] for row in overlaps), reverse=True)[: config.iou_candidates]
        rows = sorted(range(len(costs)), key=lambda row, index=index: costs[row][index])[: max(1, int(sum(best)))]
        for row in rows:
            wanted_by.setdefault(row, []).append(index)
    result = [-1] * len(costs)
    for row, objects in wanted_by.items():
        result[row] = objects[0] if len(objects) == 1 else costs[row].index(min(costs[row]))
    return result


def slow_losses(head: YOLOXHead, config: YOLOXConfig, features, images, targets) -> dict[str, float]:
    """Return the sums of the losses over positive points, point by point, divided by the number of these points."""
    output = joined(head, features, images)
    sums = dict.fromkeys(("loss_class", "loss_objectness", "loss_box", "loss_l1"), 0.0)
    count = 0
    for image, target in enumerate(targets):
        boxes = decode_centers(output.offsets[image], output.corners, output.strides)
        for row, index in enumerate(slow_assignment(head, output, image, target)):
            is_object = torch.tensor([float(index >= 0)])
            sums["loss_objectness"] += bce(output.objectness[image, row], is_object)
            if index < 0:
                continue
            count += 1
            box = target.boxes[index]
            overlap = pairwise_iou(boxes[row][None], box[None]).item()
            classes = overlap * F.one_hot(target.labels[index], NUM_CLASSES).float()
            sums["loss_class"] += bce(output.logits[image, row], classes)
            sums["loss_box"] += config.box_weight * (1 - overlap**2)
            stride, corner = output.strides[row], output.corners[row]
            encoded = torch.cat([((box[:2] + box[2:]) / 2 - corner) / stride, ((box[2:] - box[:2]) / stride).log()])
            sums["loss_l1"] += (output.offsets[image, row] - encoded).abs().sum().item()
    return {name: value / count for name, value in sums.items()}


def bce(logits: Tensor, targets: Tensor) -> float:
    """Return the summed binary cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum").item()


def joined(head: YOLOXHead, features, images):
    """Return the outputs of all levels, concatenated."""
    levels = head(features, images)
    return type(levels[0])(*(torch.cat(column, dim=-2) for column in zip(*levels, strict=True)))


@torch.no_grad()
@pytest.mark.parametrize("name", CONVENTIONS)
def test_losses_equal_plain_loops(name):
    """Oracle: assignment and losses written out in plain loops, on three images with and without objects."""
    config = CONVENTIONS[name]
    head, (features, images, targets) = random_head(config), batch()
    found = head.loss(features, images, targets)
    expected = slow_losses(head, config, features, images, targets)
    for loss, value in expected.items():
        assert found[loss].item() == pytest.approx(value, rel=1e-4), loss
    assert found["positives"].tolist()[0] > 8 and found["positives"].tolist()[2] == 0


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "loss"),
    [
        ({"center_radius": 2.5}, "loss_class"),
        ({"positive_region": "center_and_box"}, "loss_objectness"),
        ({"iou_candidates": 5}, "loss_objectness"),
        ({"iou_cost": 0.0}, "loss_box"),
        ({"box_loss": "giou"}, "loss_box"),
        ({"box_weight": 1.0}, "loss_box"),
        ({"l1_from": 1.0}, "loss_l1"),
    ],
    ids=str,
)
def test_negative_control_losses(change, loss):
    """Control: each convention changed alone changes a loss by more than the comparison allows."""
    features, images, targets = batch()
    expected = slow_losses(random_head(YOLOXConfig()), YOLOXConfig(), features, images, targets)
    head = random_head(YOLOXConfig(**change))
    head.progress = 0.99
    assert abs(head.loss(features, images, targets)[loss].item() / expected[loss] - 1) > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_matching_by_cost_equals_plain_loops(seed):
    """Oracle: SimOTA in plain loops, with many objects that compete for the same few references."""
    generator = torch.Generator().manual_seed(seed)
    costs, iou = (torch.rand(12, 7, generator=generator) for _ in range(2))
    costs[:3] = math.inf
    wanted: dict[int, list[int]] = {}
    for index in range(7):
        best = sorted(iou[3:, index].tolist(), reverse=True)[:5]
        for row in sorted(range(12), key=lambda row, index=index: costs[row, index].item())[: max(1, int(sum(best)))]:
            wanted.setdefault(row, []).append(index)
    expected = [-1] * 12
    for row, objects in wanted.items():
        expected[row] = objects[0] if len(objects) == 1 else int(costs[row].argmin())
    match = match_by_cost(costs, iou, candidates=5)
    positive = match.labels == POSITIVE
    assert positive.tolist() == [index >= 0 for index in expected]
    assert match.target_indices[positive].tolist() == [index for index in expected if index >= 0]
    assert max(map(len, wanted.values())) > 1 and not positive[:3].any()


def libreyolo_twin(ours: YOLOXHead) -> nn.Module:
    """Return LibreYOLO's head with the weights of ours; skip the test if it is not installed."""
    module = pytest.importorskip("libreyolo.models.yolox.nn")
    twin = module.YOLOXHead(NUM_CLASSES, width=CHANNELS / 256, strides=list(STRIDES), in_channels=[256] * len(STRIDES))
    renamed = {}
    for name, tensor in ours.state_dict().items():
        level, part, *rest = name.removeprefix("layers.").split(".")
        number = list(PYRAMID).index(level)
        theirs = {
            "stem": "stems", "class_tower": "cls_convs", "box_tower": "reg_convs", "class_logits": "cls_preds",
            "box_offsets": "reg_preds", "objectness": "obj_preds",
        }[part]  # fmt: skip
        if part == "stem" or part.endswith("tower"):
            rest[-2] = {"0": "conv", "1": "bn"}[rest[-2]]
        renamed[".".join([theirs, str(number), *rest])] = tensor.clone()
    twin.load_state_dict(renamed)
    for norm in twin.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps, norm.momentum = 1e-5, 0.1
    return twin.train()


@pytest.mark.parametrize("l1", [False, True])
def test_losses_and_gradients_equal_libreyolos(l1):
    """Oracle: LibreYOLO's YOLOX head with the same weights: four losses to 1e-4, and all gradients to 1e-4 of the
    largest."""
    head, (features, images, targets) = random_head(YOLOXConfig()).train(), batch()
    twin = libreyolo_twin(head)
    twin.use_l1, head.progress = l1, 0.95 if l1 else 0.9
    labels = torch.zeros(3, 5, 5)
    for rows, target in zip(labels, targets, strict=True):
        centers, sides = (target.boxes[:, :2] + target.boxes[:, 2:]) / 2, target.boxes[:, 2:] - target.boxes[:, :2]
        rows[: len(target)] = torch.cat([target.labels[:, None], centers, sides], dim=1)
    expected = twin(list(features.values()), labels, images.pixels)
    found, _ = split_losses(head.loss(features, images, targets))
    names = {"loss_class": "cls_loss", "loss_objectness": "obj_loss", "loss_box": "iou_loss", "loss_l1": "l1_loss"}
    for name, theirs in names.items():
        assert float(found[name]) == pytest.approx(float(expected[theirs]), rel=1e-4), name
    total_loss(found).backward()
    expected["total_loss"].backward()
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    ours = {name: parameter.grad.clone() for name, parameter in head.named_parameters()}
    for name, parameter in head.named_parameters():
        parameter.data = ours[name]
    renamed = libreyolo_twin(head)
    for name, gradient in renamed.named_parameters():
        torch.testing.assert_close(gradient.data, gradients[name], atol=1e-4 * gradients[name].abs().max(), rtol=0)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_object_between_the_points_is_matched(name):
    """Law: an object that contains no point, in an image of its own, has a positive point near it."""
    head, (features, images, targets) = random_head(CONVENTIONS[name]), batch()
    small = Instances(torch.tensor([[85.0, 13.0, 91.0, 19.0]]), torch.tensor([1]))
    assert head.loss(features, images, [small, targets[2], targets[2]])["positives"].tolist() == [1, 0, 0]


def test_l1_begins_late_in_the_training():
    """By hand: there is no L1 loss before 95 % of the steps, and all of it after that and outside of training."""
    head, (features, images, targets) = random_head(YOLOXConfig()), batch()
    values = {}
    for progress in (0.0, 0.949, 0.95, 1.0):
        head.progress = progress
        values[progress] = head.loss(features, images, targets)["loss_l1"].item()
    assert values[0.0] == values[0.949] == 0 and values[0.95] == values[1.0] > 0
    assert random_head(YOLOXConfig()).loss(features, images, targets)["loss_l1"].item() == values[1.0]


def test_image_without_objects_has_a_finite_loss():
    """Law: without positive points the losses are finite, and only the objectness is trained."""
    head, (features, images, targets) = random_head(YOLOXConfig()).train(), batch()
    outputs = head.loss(features, images, [targets[2]] * 3)
    assert outputs["loss_box"] == outputs["loss_class"] == outputs["loss_l1"] == 0 < outputs["loss_objectness"]
    total_loss(outputs).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_crowd_is_not_a_negative():
    """Law: an ignore region that covers the image leaves no point to learn the background from."""
    head, (features, images, targets) = random_head(YOLOXConfig()), batch()
    crowd = Instances(targets[2].boxes, targets[2].labels, ignored=torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]]))
    assert head.loss(features, images, [crowd] * 3)["loss_objectness"] == 0


@torch.no_grad()
def test_point_gives_one_detection():
    """By hand: without NMS and thresholds, every point gives one detection of its best class, with class probability
    x objectness as its score; with ``best_class_only=False`` there is one for every class."""
    features, images, _ = batch()
    everything = DenseSelectionConfig(
        score_threshold=0.0, nms_threshold=1.0, max_detections=5000, max_candidates=5000, best_class_only=True
    )
    head = random_head(YOLOXConfig(selection=everything))
    output, detections = joined(head, features, images), head.predict(features, images)
    scores = output.logits.sigmoid() * output.objectness.sigmoid()
    for image, found in enumerate(detections):
        assert len(found) == len(output.corners)
        best = scores[image].max(dim=1)
        torch.testing.assert_close(found.scores, best.values.sort(descending=True).values)
        assert torch.equal(found.labels, best.indices[best.values.argsort(descending=True)])
    every_class = YOLOXConfig(selection=everything.replace(best_class_only=False))
    assert len(random_head(every_class).predict(features, images)[0]) == NUM_CLASSES * len(output.corners)
