"""MMDetection's models against MMDetection's own code with the same weights; skipped if it is not installed.

Its Python code is sufficient (see ``helpers/openmmlab.py``). Stages get MMDetection's output of the stage before, then
the whole models are compared; a convention is changed alone, and the comparison must then fail.
"""

from typing import Any

import pytest
import torch
from torch import nn

from vertebra.models import Model, build_model
from vertebra.models.zoo import PublishedModel, find_published, list_published, load_tensors
from vertebra.ops import paste_masks
from vertebra.structures import Detections, Images, Instances, RoIMasks

from ..helpers.openmmlab import build_reference, import_library, library_input, randomize
from ..helpers.reference_detector import random_images

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# name: (path of its config, factors of weights with which it detects something)
RCNN = {"rpn_cls.weight": 5, "rpn_reg.weight": 2, "fc_cls.weight": 15, "fc_reg.weight": 5}
MODELS = {
    "mask-rcnn_r50_fpn_1x_coco": ("mask_rcnn", {**RCNN, "conv_logits.weight": 100}),
    "faster-rcnn_r50-caffe_fpn_1x_coco": ("faster_rcnn", {**RCNN, "backbone.conv1.weight": 1 / 57}),  # std of pixels
    "cascade-rcnn_r50_fpn_1x_coco": ("cascade_rcnn", RCNN),
    "retinanet_r18_fpn_1x_coco": ("retinanet", {"retina_cls.weight": 2, "retina_reg.weight": 2}),
    "fcos_r50-caffe_fpn_gn-head_1x_coco": ("fcos", {"conv_cls.weight": 10, "conv_reg.weight": 5}),
    "fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco": (
        "fcos",
        {"conv_cls.weight": 6, "conv_reg.weight": 5},
    ),
}
SIZES = [(128, 160), (160, 224)]


@pytest.fixture(scope="module")
def references() -> dict[str, nn.Module]:
    """Return an empty dict, in which the models of MMDetection are kept once they are built."""
    return {}


def twins(name: str, references: dict[str, nn.Module]) -> tuple[nn.Module, Model, PublishedModel]:
    """Return MMDetection's model, and ours with its weights."""
    folder, spread = MODELS[name]
    if name not in references:
        references[name], _ = build_reference("mmdet", f"{folder}/{name}.py")
        randomize(references[name], spread)
    published, _ = find_published(f"mmdet/{name}")
    model = published.build().eval()
    load_tensors(model, published, references[name].state_dict(), name)
    return references[name], model, published


def preprocessed(reference: nn.Module, images: Images) -> Any:
    """Return normalized and padded images with their samples, as MMDetection's model takes them."""
    from mmdet.structures import DetDataSample

    return reference.data_preprocessor(library_input(images, DetDataSample))


def their_predictions(reference: nn.Module, images: Images) -> list[Any]:
    """Return the predictions of MMDetection's model."""
    data = preprocessed(reference, images)
    with torch.no_grad():
        return reference.predict(data["inputs"], data["data_samples"], rescale=False)


def mismatches(ours: Detections, theirs: Any) -> int:
    """Return how many of their detections have no equal among ours: label, score within 1e-5, box within 1e-3 px."""
    equal = (
        (ours.labels[:, None] == theirs.labels[None])
        & ((ours.scores[:, None] - theirs.scores[None]).abs() < 1e-5)
        & ((ours.boxes[:, None] - theirs.bboxes[None]).abs().amax(dim=2) < 1e-3)
    )
    return int((~equal.any(dim=0)).sum()) + abs(len(ours.boxes) - len(theirs.bboxes))


@pytest.mark.parametrize("name", MODELS)
def test_features_equal_mmdetections(name, references):
    """Oracle: MMDetection's normalization, padding, backbone and neck."""
    reference, model, _ = twins(name, references)
    _, images = random_images(SIZES)
    with torch.no_grad():
        theirs = reference.extract_feat(preprocessed(reference, images)["inputs"])
        features = model.features(images)
    ours = [features[level] for level in model.neck.feature_info]
    assert len(ours) == len(theirs)
    for level, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(level, expected, atol=2e-6 * float(expected.abs().max()), rtol=1e-5)


def predictions(model: Model, reference: nn.Module) -> list[tuple[Detections, Any]]:
    """Return our predictions and theirs for each image of a batch of two sizes."""
    _, images = random_images(SIZES)
    theirs = [sample.pred_instances for sample in their_predictions(reference, images)]
    return list(zip(model.predict(images), theirs, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_detections_equal_mmdetections(name, references):
    """Oracle: MMDetection's predictions of the whole model for a batch of two sizes."""
    reference, model, _ = twins(name, references)
    for ours, theirs in predictions(model, reference):
        assert len(theirs.bboxes) >= 50
        assert mismatches(ours, theirs) == 0


def test_masks_equal_mmdetections(references):
    """Oracle: MMDetection's masks in the image, of the same detections."""
    reference, model, _ = twins("mask-rcnn_r50_fpn_1x_coco", references)
    for ours, theirs in predictions(model, reference):
        assert isinstance(ours.masks, RoIMasks)
        masks = paste_masks(ours.masks, ours.boxes)
        assert masks.float().mean() > 0.005
        assert (masks != theirs.masks).float().mean() < 1e-5


# name of the control: (model, config of the changed convention)
CONTROLS = {
    "mean of probabilities": ("cascade-rcnn_r50_fpn_1x_coco", {"head": {"cascade_scores": "probabilities"}}),
    "rounded anchors": ("retinanet_r18_fpn_1x_coco", {"head": {"round_anchors": True}}),
    "RoIAlign without shift": ("mask-rcnn_r50_fpn_1x_coco", {"head": {"box": {"pool": {"aligned": False}}}}),
    "two samples per bin": ("mask-rcnn_r50_fpn_1x_coco", {"head": {"box": {"pool": {"sampling_ratio": 2}}}}),
    "quality in the selection": ("fcos_r50-caffe_fpn_gn-head_1x_coco", {"head": {"quality_in": "selection"}}),
    "quality of the box tower": ("fcos_r50-caffe_fpn_gn-head_1x_coco", {"head": {"quality_tower": "box"}}),
    "distances by ReLU": ("fcos_r50-caffe_fpn_gn-head_1x_coco", {"head": {"distances": "relu"}}),
    "stride in the 3x3": ("faster-rcnn_r50-caffe_fpn_1x_coco", {"backbone": {"style": "pytorch"}}),
    "RGB": ("faster-rcnn_r50-caffe_fpn_1x_coco", {"input": {"channels": "rgb"}}),
}


def twin_with(change: dict[str, Any], name: str, references: dict[str, nn.Module]) -> Model:
    """Return our model with the weights of MMDetection's, but with a change of its config."""
    _, original, published = twins(name, references)
    model = build_model(published.model.replace(**change), published.classes["detection"].names).eval()
    model.load_state_dict(original.state_dict())
    return model


@pytest.mark.parametrize("name", CONTROLS)
def test_detections_differ_with_another_convention(name, references):
    """Control: the comparison of detections sees each convention."""
    model_name, change = CONTROLS[name]
    reference, _, _ = twins(model_name, references)
    model = twin_with(change, model_name, references)
    assert sum(mismatches(*pair) for pair in predictions(model, reference)) > 5


def test_the_coarsest_level_differs_with_a_relu(references):
    """Control: the comparison of features sees whether there is a ReLU between the extra levels."""
    _, model, _ = twins("retinanet_r18_fpn_1x_coco", references)
    _, images = random_images(SIZES)
    with torch.no_grad():
        other = twin_with({"neck": {"extra_relu": True}}, "retinanet_r18_fpn_1x_coco", references).features(images)
        assert (model.features(images)["p7"] - other["p7"]).abs().max() > 1e-3


def test_losses_of_retinanet_equal_mmdetections(references):
    """Oracle: MMDetection's losses with the same objects, which have positive anchors.

    The images have one size, since MMDetection ignores anchors in the padding of a batch.
    """
    from mmengine.structures import InstanceData

    reference, model, _ = twins("retinanet_r18_fpn_1x_coco", references)
    _, images = random_images([(128, 224), (128, 224)])
    boxes = [
        torch.tensor([[8.0, 10.0, 60.0, 80.0], [50.0, 20.0, 150.0, 120.0]]),
        torch.tensor([[5.0, 5.0, 200.0, 90.0]]),
    ]
    labels = [torch.tensor([3, 70]), torch.tensor([0])]
    data = preprocessed(reference, images)
    for sample, image_boxes, image_labels in zip(data["data_samples"], boxes, labels, strict=True):
        sample.gt_instances = InstanceData(bboxes=image_boxes, labels=image_labels)
    theirs = reference.loss(data["inputs"], data["data_samples"])
    ours = model(images, [Instances(*pair) for pair in zip(boxes, labels, strict=True)])
    torch.testing.assert_close(ours["loss_class"], sum(theirs["loss_cls"]), rtol=1e-5, atol=0)
    torch.testing.assert_close(ours["loss_box"], sum(theirs["loss_bbox"]), rtol=1e-5, atol=0)


def test_images_are_resized_to_mmcvs_sizes():
    """Oracle: mmcv's size of a resized image, for sizes at which rounding matters."""
    import_library("mmdet")
    import mmcv

    published, _ = find_published("mmdet/mask-rcnn_r50_fpn_1x_coco")
    for height in range(300, 900, 37):
        for width in range(200, 2000, 41):
            expected = mmcv.rescale_size((width, height), (1333, 800))
            assert published.preprocessing.output_size(height, width) == expected[::-1]


@pytest.mark.parametrize("name", list_published("mmdet/*"))
def test_every_row_describes_the_config_of_its_name(name):
    """Oracle: MMDetection's own config: pixels, backbone, style and size of images; and its list of weights."""
    _, folder = import_library("mmdet")
    from mmengine.config import Config
    from mmengine.fileio import load

    published, _ = find_published(name)
    entry = name.removeprefix("mmdet/")
    (path,) = folder.glob(f"*/{entry}.py")
    config = Config.fromfile(path)
    pixels, backbone = config.model.data_preprocessor, config.model.backbone
    range_of_pixels = 255 / published.model.input.scale
    assert [value * range_of_pixels for value in published.model.input.mean] == pytest.approx(pixels.mean)
    assert [value * range_of_pixels for value in published.model.input.std] == pytest.approx(pixels.std)
    assert (published.model.input.channels == "rgb") == pixels.bgr_to_rgb
    assert (backbone.depth, backbone.style) == (depth_of(published), published.model.backbone.style)
    assert config.test_pipeline[1].scale == (1333, 800)
    (listed,) = [row for row in load(path.parent / "metafile.yml")["Models"] if row["Config"].endswith(f"/{entry}.py")]
    (weights,) = published.weights.values()
    assert weights.url == listed["Weights"]
    assert list(weights.scores.values()) == [next(iter(row["Metrics"].values())) for row in listed["Results"]]


def depth_of(published: PublishedModel) -> int:
    """Return the depth in the name of a published model's backbone: ``resnext101_32x4d``."""
    return int("".join(filter(str.isdigit, published.model.backbone.name.partition("_")[0])))
