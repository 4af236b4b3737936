"""Panoptic FPN: its parts are the R-CNN and Semantic FPN heads, and merging equals a plain loop over pixels."""

from dataclasses import replace

import pytest
import torch

from vertebra.heads import (
    MaskBranchConfig,
    PanopticFPNConfig,
    PanopticFPNHead,
    RCNNConfig,
    RCNNHead,
    RPNConfig,
    SemanticFPNConfig,
    SemanticFPNHead,
)
from vertebra.inference import to_original
from vertebra.ops import label_map, merge_panoptic, paste_masks
from vertebra.structures import (
    Detections,
    FeatureInfo,
    Images,
    Instances,
    PanopticMergeConfig,
    PanopticParts,
    PanopticSegmentation,
    RoIMasks,
    Segment,
    SemanticLogits,
)

from ..helpers.pyramids import features_of

PYRAMID = {f"p{level}": FeatureInfo(16, 2**level) for level in range(2, 7)}
CLASSES = {"panoptic": 5, "detection": 3, "semantic": 3}
IMAGES = Images(torch.zeros(2, 3, 64, 96, dtype=torch.uint8), torch.tensor([[64, 96], [48, 64]]))
RCNN = RCNNConfig(
    rpn=RPNConfig(samples=32, pre_nms=(50, 50), post_nms=(30, 30)),
    mask=MaskBranchConfig(convolutions=(8,)),
).replace(box={"fc": (32,), "samples": 16, "score_threshold": 0.0, "max_detections": 10})
SEMANTIC = SemanticFPNConfig(channels=8)


def build(config: PanopticFPNConfig) -> PanopticFPNHead:
    torch.manual_seed(0)
    return PanopticFPNHead(PYRAMID, CLASSES, config).eval()


def targets() -> list[dict]:
    """Return the targets of both images: an object each, and a class map."""
    made = []
    for height, width in IMAGES.sizes.tolist():
        mask = torch.zeros(1, height, width, dtype=torch.bool)
        mask[:, 8:40, 8:40] = True
        things = Instances(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([1]), mask)
        made.append({"detection": things, "semantic": torch.where(mask[0], 2, 0)})
    return made


def test_parts_equal_the_separate_heads_with_the_same_weights():
    """Oracle: RCNNHead and SemanticFPNHead, which are tested against torchvision and the paper: the same losses, boxes,
    masks and logits with the same weights, times the weights of the losses."""
    head = build(PanopticFPNConfig(instances=RCNN, semantic=SEMANTIC, instance_weight=2.0, semantic_weight=0.25))
    boxes, maps = RCNNHead(PYRAMID, 3, RCNN).eval(), SemanticFPNHead(PYRAMID, 3, SEMANTIC).eval()
    boxes.load_state_dict(head.instances.state_dict())
    maps.load_state_dict(head.semantic.state_dict())
    features, truths = features_of(PYRAMID, 64, 96), targets()
    dense = [parameter for part in head.dense_parts for parameter in head.get_submodule(part).parameters()]
    assert {*map(id, dense)} == {*map(id, head.parameters())}, "the parts to compile have all parameters"
    torch.manual_seed(2)
    found = head.loss(features, IMAGES, truths)
    torch.manual_seed(2)
    expected = boxes.loss(features, IMAGES, [truth["detection"] for truth in truths])
    for name in ("loss_class", "loss_box", "loss_mask"):
        expected[name] = 2.0 * expected[name]
    expected |= {"loss_semantic": 0.25 * maps.loss(features, IMAGES, [t["semantic"] for t in truths])["loss_semantic"]}
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)

    with torch.no_grad():
        predictions = head.predict(features, IMAGES)
        separate = zip(boxes.predict(features, IMAGES), maps.predict(features, IMAGES), strict=True)
    for prediction, (detections, logits) in zip(predictions, separate, strict=True):
        assert torch.equal(prediction["detection"].boxes, detections.boxes) and len(detections) > 0
        assert torch.equal(prediction["detection"].masks.grids, detections.masks.grids)
        assert torch.equal(prediction["semantic"].windows[0].grid, logits.windows[0].grid)


@pytest.mark.parametrize(
    "instances",
    [RCNN, RCNN.replace(mask=None, point_rend={"grid": 4, "fc": (16,)})],
    ids=["mask", "point_rend"],
)
def test_prediction_is_merged_in_pixels_of_the_original_image(instances):
    """Law: the segments are those of merging the converted parts; all three predictions have the original size."""
    head = build(PanopticFPNConfig(instances=instances, semantic=SEMANTIC, merge=PanopticMergeConfig(stuff_area=10)))
    with torch.no_grad():
        prediction = head.predict(features_of(PYRAMID, 64, 96), IMAGES)[1]
    converted = to_original(prediction, (48, 64), (60, 80))
    assert tuple(converted["panoptic"].ids.shape) == tuple(converted["semantic"].shape) == (60, 80)
    assert converted["detection"].masks.size == (60, 80)
    merged = merge_panoptic(prediction["panoptic"], (60, 80))
    assert torch.equal(converted["panoptic"].ids, merged.ids) and converted["panoptic"].segments == merged.segments


def test_class_map_with_a_class_for_each_thing():
    """Law: the map has five classes, of which the last three stand for things and are never stuff."""
    config = PanopticFPNConfig(instances=RCNN, semantic=SEMANTIC, merge=PanopticMergeConfig(stuff_area=0))
    torch.manual_seed(0)
    head = PanopticFPNHead(PYRAMID, {**CLASSES, "semantic": 5}, config).eval()
    with torch.no_grad():
        prediction = to_original(head.predict(features_of(PYRAMID, 64, 96), IMAGES)[0], (64, 96), (64, 96))
    found = {segment.label - 3 for segment in prediction["panoptic"].segments if not segment.is_thing}
    present = set(prediction["semantic"].unique().tolist())
    assert max(present) > 1 and found == present & {0, 1}


SIZE = (24, 30)


def random_parts(seed: int, rule: PanopticMergeConfig, num_things: int = 3) -> PanopticParts:
    """Return twelve overlapping objects and smooth class logits: two stuff classes and one for things."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(12, 2, generator=generator) * torch.tensor([20.0, 14.0])
    sides = 4 + 10 * torch.rand(12, 2, generator=generator)
    grids = torch.rand(12, 8, 8, generator=generator) * 0.7 + 0.3
    labels = torch.randint(0, num_things, (12,), generator=generator)
    scores = torch.linspace(0.2, 0.9, 12)[torch.randperm(12, generator=generator)]
    boxes = torch.cat([corners, corners + sides], dim=1)
    logits = torch.randn(3, 5, 6, generator=generator)
    return PanopticParts(
        Detections(boxes, labels, scores, RoIMasks(grids, SIZE)),
        SemanticLogits.from_grid(logits, SIZE, SIZE),
        num_things,
        2,
        rule,
    )


def slow_merge(parts: PanopticParts, size: tuple[int, int]) -> tuple[list[list[int]], list[tuple]]:
    """Merge as detectron2's and panopticapi's scripts are described, pixel by pixel."""
    objects = parts.detections.to_original(SIZE, size)
    masks = paste_masks(objects.masks, objects.boxes).tolist()
    classes = label_map(parts.semantic, size).tolist()
    cells = [(row, column) for row in range(size[0]) for column in range(size[1])]
    ids, segments = [[0] * size[1] for _ in range(size[0])], []
    for index in sorted(range(len(objects)), key=lambda index: -objects.scores[index].item()):
        if objects.scores[index] < parts.rule.score_threshold:
            continue
        mask = [(row, column) for row, column in cells if masks[index][row][column]]
        taken = [(row, column) for row, column in mask if ids[row][column]]
        if not mask or len(taken) / len(mask) > parts.rule.overlap_threshold or len(taken) == len(mask):
            continue
        segments.append((len(segments) + 1, objects.labels[index].item(), True))
        for row, column in set(mask) - set(taken):
            ids[row][column] = segments[-1][0]
    for label in range(parts.num_stuff):
        free = [(row, column) for row, column in cells if classes[row][column] == label and not ids[row][column]]
        if free and len(free) >= parts.rule.stuff_area:
            segments.append((len(segments) + 1, parts.num_things + label, False))
            for row, column in free:
                ids[row][column] = segments[-1][0]
    return ids, segments


RULE = PanopticMergeConfig(stuff_area=120)
"""A rule for small images, under which each option matters for the random parts below."""


def merged(parts: PanopticParts, size: tuple[int, int] = SIZE) -> tuple[list[list[int]], list[tuple]]:
    found = merge_panoptic(parts, size)
    return found.ids.tolist(), [(segment.id, segment.label, segment.is_thing) for segment in found.segments]


@pytest.mark.parametrize("size", [SIZE, (31, 47)])
@pytest.mark.parametrize("seed", range(4))
def test_merging_equals_a_loop_over_pixels(seed, size):
    """Oracle: a plain loop over objects and pixels, at the size of the prediction and at another."""
    parts = random_parts(seed, RULE)
    assert merged(parts, size) == slow_merge(parts, size)


@pytest.mark.parametrize("change", [{"score_threshold": 0.3}, {"overlap_threshold": 0.9}, {"stuff_area": 1}])
def test_each_option_of_merging_matters(change):
    """Control: one option of the rule changed alone makes the comparison with the loop fail."""
    parts = [random_parts(seed, RULE) for seed in range(4)]
    changed = [replace(each, rule=RULE.replace(**change)) for each in parts]
    assert any(merged(first) != slow_merge(second, SIZE) for first, second in zip(changed, parts, strict=True))
    assert all(merged(each) == slow_merge(each, SIZE) for each in changed)


def full_masks(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(labels),
        torch.tensor(scores),
        RoIMasks(torch.ones(len(boxes), 4, 4), (8, 10)),
    )


def test_merging_by_hand():
    """By hand: an object that is half covered is kept, one covered more is left out; one with a score of 0.5 is kept;
    stuff is kept if it has the minimum area."""
    detections = full_masks(
        [[0, 0, 4, 4], [2, 0, 6, 4], [1, 0, 5, 4], [0, 4, 2, 8], [8, 4, 10, 8]],
        [0.9, 0.8, 0.7, 0.5, 0.49],
        [0, 1, 2, 2, 1],
    )
    classes = torch.zeros(3, 8, 10)
    classes[0, :, 6:], classes[1, :, :6] = 1, 1
    parts = PanopticParts(detections, SemanticLogits.from_pixels(classes), 3, 2, PanopticMergeConfig(stuff_area=32))
    found = merge_panoptic(parts, (8, 10))
    assert [(s.label, s.is_thing, s.score and round(s.score, 2)) for s in found.segments] == [
        (0, True, 0.9), (1, True, 0.8), (2, True, 0.5), (3, False, None),
    ]  # fmt: skip
    assert [int(found.mask(segment).sum()) for segment in found.segments] == [16, 8, 8, 32]
    assert int((found.ids == 0).sum()) == 16, "the 16 pixels of class 1 are fewer than 32 and void"
    one_more = merge_panoptic(replace(parts, rule=PanopticMergeConfig(stuff_area=16)), (8, 10))
    assert [segment.label for segment in one_more.segments] == [0, 1, 2, 3, 4]


def test_object_without_a_free_pixel_is_no_segment():
    """By hand: two equal masks at an overlap threshold of 1 make one segment; an object outside makes none."""
    detections = full_masks([[0, 0, 4, 4], [0, 0, 4, 4], [20, 20, 24, 24]], [0.75, 0.625, 0.5625], [0, 1, 2])
    logits = SemanticLogits.from_pixels(torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 8, 10).clone())
    parts = PanopticParts(detections, logits, 3, 2, PanopticMergeConfig(overlap_threshold=1.0, stuff_area=0))
    found = merge_panoptic(parts, (8, 10))
    assert isinstance(found, PanopticSegmentation) and found.segments == (Segment(1, 0, True, 0.75),)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"detection": 3, "semantic": 3}, "there are none for panoptic: use a panoptic data set"),
        ({"panoptic": 5}, "there are none for detection and semantic"),
        ({**CLASSES, "panoptic": 3}, "needs at least one stuff class"),
        ({**CLASSES, "semantic": 2}, "2 classes for semantic"),
    ],
)
def test_classes_that_do_not_fit_are_refused(classes, message):
    """By hand: ValueError that names the tasks."""
    with pytest.raises(ValueError, match=message):
        PanopticFPNHead(PYRAMID, classes, PanopticFPNConfig())


def test_config_needs_masks_as_bitmaps():
    """By hand: ValueError that says which field to change."""
    with pytest.raises(ValueError, match=r"give instances a mask branch, mask=MaskBranchConfig\(\)"):
        PanopticFPNConfig(instances=RCNNConfig())
    with pytest.raises(ValueError, match="choose 'sharp' or 'soft'"):
        PanopticFPNConfig(instances=RCNNConfig(mask=MaskBranchConfig(truth="polygons")))
