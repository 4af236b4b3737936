"""torchvision's published models against torchvision itself, with the same random weights.

The models are built from their rows in the zoo, and their tensors go through the key maps, so that a wrong row, name or
convention shows up. The stages of each head are compared one by one in ``tests/heads``.
"""

import pickle

import pytest
import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_builder, get_model_weights
from torchvision.ops import FrozenBatchNorm2d

from vertebra.models import build_model
from vertebra.models.keys import KeyMap, Rule
from vertebra.models.zoo import find_published, list_published, load_tensors
from vertebra.ops import paste_masks
from vertebra.structures import CheckpointError, Detections, InputConfig, UsageError

from ..helpers.published_detectors import torchvision_model, vertebra_model
from ..helpers.reference_detector import random_images

DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
)
SEGMENTERS = ("deeplabv3_resnet50", "deeplabv3_resnet101", "fcn_resnet50", "fcn_resnet101")
SMALL, LARGE = [(288, 352)], [(800, 1333)]
BOX_TOLERANCE, SCORE_TOLERANCE = 1e-3, 2e-5
"""Pixels, and differences of probabilities. The rounding of float32 grows through the network: the features of both
sides are equally far from those of torchvision in float64."""


@pytest.fixture(scope="module")
def faster_rcnn():
    return torchvision_model("fasterrcnn_resnet50_fpn")


def matched_rows(ours: Detections, theirs: dict[str, Tensor], first_label: int) -> tuple[Tensor, Tensor]:
    """Return (largest coordinate difference to torchvision's detection, its index) for each of our detections.

    Only detections of the same label match; ``first_label`` is torchvision's name for our label 0.
    """
    differences = (ours.boxes[:, None] - theirs["boxes"]).abs().amax(dim=2)
    differences[ours.labels[:, None] != theirs["labels"] - first_label] = torch.inf
    return differences.min(dim=1)


def assert_same_detections(ours: Detections, theirs: dict[str, Tensor], first_label: int) -> None:
    """Assert that both sides have the same detections; the order of two near ties may differ."""
    assert len(ours) == len(theirs["boxes"]) >= (50 if ours.keypoints is not None else 100)  # one class, many overlaps
    distances, rows = matched_rows(ours, theirs, first_label)
    assert distances.max() < max(BOX_TOLERANCE, 2e-6 * theirs["boxes"].max().item())
    assert len(set(rows.tolist())) == len(rows)
    torch.testing.assert_close(ours.scores, theirs["scores"][rows], atol=SCORE_TOLERANCE, rtol=0)
    if ours.masks is not None:
        pasted = paste_masks(ours.masks, ours.boxes)
        expected = theirs["masks"][rows][:, 0] > 0.5
        assert (pasted != expected).float().mean() < 1e-4  # pixels at 0.5 may fall on either side
    if ours.keypoints is not None:
        found = (ours.keypoints[..., :2] - theirs["keypoints"][rows][..., :2]).abs().amax(dim=2)
        assert (found < 0.1).float().mean() > 0.99  # two cells of a heatmap may be equally high
        torch.testing.assert_close(ours.keypoints[..., 2], theirs["keypoints_scores"][rows], atol=1e-3, rtol=1e-4)


@torch.no_grad()
def predict_both(entry: str, theirs: torch.nn.Module, sizes: list[tuple[int, int]], published=None):
    """Return our and torchvision's predictions of random images, and torchvision's name for our label 0."""
    published = published or find_published(f"torchvision/{entry}")[0]
    pixels, images = random_images(sizes)
    ours = vertebra_model(entry, theirs, published)
    return ours.predict(images), theirs(pixels), published.classes["detection"].ids[0]


@pytest.mark.parametrize("entry", DETECTORS)
@pytest.mark.parametrize(
    "sizes",
    [
        SMALL,
        pytest.param([(333, 500)], marks=pytest.mark.slow),
        pytest.param([(288, 352), (333, 500)], marks=pytest.mark.slow),
        pytest.param(LARGE, marks=pytest.mark.slow),
    ],
    ids=lambda sizes: "+".join("x".join(map(str, size)) for size in sizes),
)
def test_detections_equal_torchvisions(entry, sizes):
    """Oracle: torchvision's complete detector, at sizes whose coarsest levels are odd and in a batch of two sizes."""
    ours, theirs, first_label = predict_both(entry, torchvision_model(entry), sizes)
    for image, expected in zip(ours, theirs, strict=True):
        assert_same_detections(image, expected, first_label)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": {"norm_eps": 1e-5}},
        {"input": InputConfig(mean=(0.485, 0.456, 0.410))},
        {"head": {"rpn": {"round_anchors": False}}},
        {"head": {"rpn": {"anchor_stride": "exact"}}},
        {"head": {"box": {"pool": {"aligned": True}}}},
        {"head": {"box": {"pool": {"sampling_ratio": 0}}}},
        {"head": {"box": {"score_threshold": 0.6}}},
    ],
    ids=str,
)
def test_each_convention_of_the_row_matters(faster_rcnn, changes):
    """Control: with one convention changed, the comparison with torchvision fails."""
    published, _ = find_published("torchvision/fasterrcnn_resnet50_fpn")
    changed = type(published)(
        published.name,
        published.model.replace(**changes),
        published.classes,
        published.preprocessing,
        published.keys,
    )
    try:
        ours, theirs, first_label = predict_both("fasterrcnn_resnet50_fpn", faster_rcnn, SMALL, changed)
    except UsageError:
        return
    with pytest.raises(AssertionError):
        assert_same_detections(ours[0], theirs[0], first_label)


@pytest.mark.parametrize("entry", SEGMENTERS)
@torch.no_grad()
def test_logits_equal_torchvisions(entry):
    """Oracle: torchvision's segmentation model."""
    torch.manual_seed(0)
    theirs = get_model_builder(entry)(weights=None, weights_backbone=None, aux_loss=True).eval()
    published, _ = find_published(f"torchvision/{entry}")
    ours = published.build().eval()
    load_tensors(ours, published, theirs.state_dict(), entry)
    _pixels, images = random_images([(64, 96)])
    normalized = ours.preprocess(images)
    ((window,),) = [prediction.windows for prediction in ours.predict(images)]
    expected = theirs.classifier(theirs.backbone(normalized)["out"])[0]
    torch.testing.assert_close(window.grid, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)


@pytest.mark.parametrize("name", list_published("torchvision/*"))
def test_state_dict_survives_the_way_there_and_back(name):
    """Oracle: torchvision's state dict: every tensor is used once, and comes back bit-equal.

    The mask of the background, which torchvision predicts and never reads, comes back as zeros.
    """
    entry = name.removeprefix("torchvision/")
    options = {"aux_loss": True} if entry in SEGMENTERS else {}
    original = get_model_builder(entry)(weights=None, weights_backbone=None, **options).state_dict()
    published, _ = find_published(name)
    converted = published.keys.to_vertebra(original)
    assert len(converted) == len(original)
    returned = published.keys.from_vertebra(converted)
    assert returned.keys() == original.keys()
    for key, tensor in returned.items():
        first = 1 if "mask_fcn_logits" in key else 0
        assert torch.equal(tensor[first:] if first else tensor, original[key][first:] if first else original[key]), key
    assert published.count_classes(converted) == len(published.classes[published.task].names)


FORMER_NAMES = {
    "fasterrcnn_resnet50_fpn": {
        "backbone.fpn.inner_blocks.0.0.weight": "backbone.fpn.inner_blocks.0.weight",
        "backbone.fpn.layer_blocks.3.0.bias": "backbone.fpn.layer_blocks.3.bias",
        "rpn.head.conv.0.0.weight": "rpn.head.conv.weight",
    },
    "maskrcnn_resnet50_fpn": {"roi_heads.mask_head.2.0.bias": "roi_heads.mask_head.mask_fcn3.bias"},
    "retinanet_resnet50_fpn": {
        "head.classification_head.conv.1.0.weight": "head.classification_head.conv.2.weight",
        "head.regression_head.conv.3.0.bias": "head.regression_head.conv.6.bias",
    },
}


@pytest.mark.parametrize("entry", FORMER_NAMES)
def test_names_before_torchvision_0_13_are_read(entry):
    """Oracle: torchvision loads a state dict with the names of its published COCO_V1 files into today's model; so must
    we, with the same result."""
    model = get_model_builder(entry)(weights=None, weights_backbone=None)
    present = model.state_dict()
    former = {FORMER_NAMES[entry].get(name, name): tensor for name, tensor in present.items()}
    assert former.keys() != present.keys()
    get_model_builder(entry)(weights=None, weights_backbone=None).load_state_dict(former)  # torchvision agrees
    published, _ = find_published(f"torchvision/{entry}")
    expected = published.keys.to_vertebra(present)
    found = published.keys.to_vertebra(former)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("name", list_published("torchvision/*"))
def test_facts_are_torchvisions(name):
    """Oracle: the metadata of torchvision's weights: file, digest, scores, classes and number of parameters."""
    published, _ = find_published(name)
    members = get_model_weights(name.removeprefix("torchvision/"))
    assert set(published.weights) == {member.name for member in members}
    assert next(iter(published.weights)) == members.DEFAULT.name
    for tag, weights in published.weights.items():
        assert weights.url == members[tag].url
        assert weights.sha256 in weights.url and len(weights.sha256) == 8
        (scores,) = members[tag].meta["_metrics"].values()
        assert set(weights.scores.values()) <= set(scores.values())
    (classes,) = published.classes.values()
    categories = members.DEFAULT.meta["categories"]
    for label, index in zip(classes.names, classes.ids, strict=True):
        assert label in (categories[index], f"N/A {index}", "background")
    model = published.model
    if name.endswith("_v2"):  # torchvision counts the norms of frozen stages, which are no parameters here
        model = model.replace(backbone={"freeze_at": 0})
    parameters = sum(parameter.numel() for parameter in build_model(model, classes.names).parameters())
    background_mask = 257 if "mask" in name else 0  # torchvision's mask of the background
    assert published.parameters == parameters + background_mask


def test_wrong_weights_are_refused():
    """By hand: a state dict of another model, one that lacks a tensor, one of another shape; the message names the
    source and the tensors."""
    published, _ = find_published("torchvision/fasterrcnn_resnet50_fpn")
    tensors = get_model_builder("fasterrcnn_resnet50_fpn")(weights=None, weights_backbone=None).state_dict()
    model = published.build()
    with pytest.raises(CheckpointError, match=r"file: classifier\.4\.weight is not a tensor of torchvision's Faster"):
        load_tensors(model, published, tensors | {"classifier.4.weight": torch.zeros(1)}, "file")
    key = "rpn.head.bbox_pred.weight"
    with pytest.raises(CheckpointError, match=r"file: .*head\.rpn\.offsets\.weight is missing"):
        load_tensors(model, published, {name: value for name, value in tensors.items() if name != key}, "file")
    with pytest.raises(CheckpointError, match=r"head\.rpn\.offsets\.weight has shape \(1,\), wanted \(12, 256, 1, 1\)"):
        load_tensors(model, published, tensors | {key: torch.zeros(1)}, "file")


def test_rows_can_be_sent_to_other_processes():
    """Law: rank zero of a training sends the starting point, with the published model, to the other ranks."""
    for name in list_published("torchvision/*"):
        published, _ = find_published(name)
        assert pickle.loads(pickle.dumps(published)).model == published.model


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision/fasterrcnn_resnet50", "did you mean 'torchvision/fasterrcnn_resnet50_fpn'"),
        ("torchvision/ssd300_vgg16", "SSD, SSDLite, LR-ASPP and MobileNet models are not covered"),
        ("torchvision/keypointrcnn_resnet50_fpn.COCO_V3", "has no weights 'COCO_V3': did you mean 'COCO_V1'"),
        ("torchvison/fcos_resnet50_fpn", "did you mean 'torchvision/fcos_resnet50_fpn'"),
    ],
)
def test_unknown_names_get_a_suggestion(name, message):
    """By hand: docs/faults.md, an unknown published model."""
    with pytest.raises(UsageError, match=message):
        find_published(name)


@pytest.mark.parametrize("entry", DETECTORS)
def test_epsilon_of_the_norms_is_torchvisions(entry, monkeypatch):
    """Oracle: torchvision's builder with its default weights, which changes the epsilon of its norms for some of them;
    random weights take the place of the file."""
    builder = get_model_builder(entry)
    state_dict = builder(weights=None, weights_backbone=None).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **options: state_dict)
    model = builder(weights="DEFAULT")
    norms = (torch.nn.BatchNorm2d, FrozenBatchNorm2d)
    found = {module.eps for module in model.backbone.body.modules() if isinstance(module, norms)}
    assert found == {find_published(f"torchvision/{entry}")[0].model.backbone.norm_eps}


def test_numbers_in_names_are_translated_both_ways():
    """By hand: ``{3i+1}`` stands for 1, 4, 7, ...; a number that it cannot stand for matches no rule."""
    keys = KeyMap("a model", [Rule("tower.{i}.norm.", "conv.{3i+1}."), Rule("level.c{i+2}.", "blocks.{i}.")])
    tensor = torch.zeros(1)
    assert list(keys.to_vertebra({"conv.7.weight": tensor, "blocks.0.bias": tensor})) == [
        "tower.2.norm.weight",
        "level.c2.bias",
    ]
    assert list(keys.from_vertebra({"tower.2.norm.weight": tensor, "level.c5.bias": tensor})) == [
        "conv.7.weight",
        "blocks.3.bias",
    ]
    for name in ("conv.5.weight", "conv.0.weight"):
        with pytest.raises(CheckpointError, match=f"{name} is not a tensor of a model"):
            keys.to_vertebra({name: tensor})
    with pytest.raises(CheckpointError, match=r"level\.c1\.bias is not a tensor of a model"):
        keys.from_vertebra({"level.c1.bias": tensor})
