"""Tensor names of published models: strict loading, and the way back; without the libraries that publish them.

``published_tensors.json.gz`` has the names and shapes of the tensors of models that the libraries' own code built:
MMDetection 3.3.0 and MMSegmentation 1.2.2 from the config of the same name, SMP 0.6.0 with seven classes.
"""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vertebra.models import Model, build_model
from vertebra.models.zoo import PublishedModel, find_published, list_published, load_tensors
from vertebra.structures import CheckpointError, UsageError

LIST = Path(__file__).parent / "published_tensors.json.gz"
SHAPES: dict[str, dict[str, list[int]]] = json.loads(gzip.decompress(LIST.read_bytes()))
LIBRARIES = ("mmdet", "mmseg", "smp")
pytestmark = pytest.mark.filterwarnings("ignore:.*to a meta parameter:UserWarning")


def library_tensors(name: str) -> dict[str, Tensor]:
    """Return tensors with the names and shapes of a library's model; each has a value of its own, which is repeated."""
    return {
        key: torch.tensor(float(number) if shape else number).expand(shape)
        for number, (key, shape) in enumerate(SHAPES[name].items(), start=1)
    }


def build(published: PublishedModel, tensors: dict[str, Tensor]) -> Model:
    """Build the model without memory for its weights, with as many classes as the tensors have."""
    with torch.device("meta"):
        count = published.count_classes(published.keys.to_vertebra(tensors))
        return build_model(published.model, [f"class {index}" for index in range(count)])


@pytest.mark.parametrize("name", SHAPES)
def test_published_tensors_load_strictly_and_go_back_bit_equal(name):
    """Oracle: the names and shapes of the library's own model; every tensor is used once and comes back."""
    published, _ = find_published(name)
    tensors = library_tensors(name)
    model = build(published, tensors)
    load_tensors(model, published, tensors, "a file")
    loaded = model.state_dict()
    back = published.keys.from_vertebra(published.keys.to_vertebra(tensors))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(tensor, back[key]) for key, tensor in tensors.items())
    counters = sum(key.endswith("num_batches_tracked") for key in tensors)
    assert len(loaded) in (len(tensors), len(tensors) - counters)  # frozen norms have no counters


# name of the fault: (how the tensors are changed, the message)
FAULTS = {
    "missing": (lambda t, key: {k: v for k, v in t.items() if k != key}, "is missing"),
    "another shape": (lambda t, key: t | {key: torch.zeros(3, 5)}, r"has shape \(3, 5\)"),
    "not finite": (lambda t, key: t | {key: t[key] * float("nan")}, "has NaN"),
    "unknown": (lambda t, key: t | {"query_embedding.weight": torch.ones(1)}, "query_embedding.weight is not a tensor"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["mmdet/retinanet_r50_fpn_1x_coco", "smp/deeplabv3plus-resnet34"])
def test_tensors_that_do_not_fit_are_refused(name, fault):
    """docs/faults.md row 99. By hand: exit code 4 with the file and the tensor."""
    published, _ = find_published(name)
    tensors = library_tensors(name)
    model = build(published, tensors)
    change, message = FAULTS[fault]
    key = next(key for key, tensor in tensors.items() if tensor.ndim == 4)
    with pytest.raises(CheckpointError, match=rf"weights\.pth: .*{message}") as caught:
        load_tensors(model, published, change(tensors, key), "weights.pth")
    assert caught.value.exit_code == 4


def test_loaded_tensors_have_the_values_of_the_file():
    """By hand: a tensor of each part of the model; the rows of the class logits are sorted by size, then ratio."""
    published, _ = find_published("mmdet/retinanet_r18_fpn_1x_coco")
    names = published.build().state_dict()
    tensors = {key: torch.randn(tensor.shape) for key, tensor in published.keys.from_vertebra(names).items()}
    model = published.build()
    load_tensors(model, published, tensors, "weights.pth")
    assert torch.equal(model.backbone.conv1.weight, tensors["backbone.conv1.weight"])
    assert torch.equal(model.neck.output["p4"].weight, tensors["neck.fpn_convs.1.conv.weight"])
    assert torch.equal(model.head.box_tower[2][0].bias, tensors["bbox_head.reg_convs.2.conv.bias"])
    theirs = tensors["bbox_head.retina_cls.bias"].view(3, 3, 80)  # ratio, size, class
    assert torch.equal(model.head.class_logits.bias.view(3, 3, 80)[2, 1], theirs[1, 2])


def test_inputs_of_image_pooling_are_last_and_go_back_first():
    """By hand: MMSegmentation concatenates the features of the image pooling before those of the four convolutions."""
    published, _ = find_published("mmseg/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024")
    theirs = {"decode_head.bottleneck.conv.weight": torch.arange(10.0).view(1, 10, 1, 1)}
    ours = published.keys.to_vertebra(theirs)
    assert ours["head.aspp.project.0.weight"].flatten().tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert torch.equal(published.keys.from_vertebra(ours)["decode_head.bottleneck.conv.weight"], *theirs.values())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (
            "mmdet/mask-rcnn_r50-caffe_fpn_ms-poly-3x_coco",
            "mmdetection/v2.0/mask_rcnn/mask_rcnn_r50_caffe_fpn_mstrain-poly_3x_coco/"
            "mask_rcnn_r50_caffe_fpn_mstrain-poly_3x_coco_bbox_mAP-0.408__segm_mAP-0.37_20200504_163245-42aa3d00.pth",
        ),
        (
            "mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco",
            "mmdetection/v2.0/fcos/fcos_r50_caffe_fpn_gn-head_1x_coco/fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa.pth",
        ),
        (
            "mmseg/fcn_r50-d8_4xb4-20k_voc12aug-512x512",
            "mmsegmentation/v0.5/fcn/fcn_r50-d8_512x512_20k_voc12aug/"
            "fcn_r50-d8_512x512_20k_voc12aug_20200617_010715-52dc5306.pth",
        ),
    ],
)
def test_files_have_the_names_of_former_versions(name, path):
    """Oracle: the addresses in the libraries' own lists of models."""
    published, _ = find_published(name)
    assert published.find_weights(None).url == f"https://download.openmmlab.com/{path}"


def test_weights_of_another_family_are_refused():
    """Control: a Mask R-CNN does not fit a Faster R-CNN, nor a RetinaNet an FCOS."""
    for source, target in (
        ("mmdet/mask-rcnn_r50_fpn_1x_coco", "mmdet/faster-rcnn_r50_fpn_1x_coco"),
        ("mmdet/retinanet_r50_fpn_1x_coco", "mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco"),
    ):
        published, _ = find_published(target)
        with torch.device("meta"):
            model = published.build()
        with pytest.raises(CheckpointError):
            load_tensors(model, published, library_tensors(source), "weights.pth")


def test_former_names_of_fcos_are_read():
    """By hand: the names of the output convolutions before MMDetection's version 2.0."""
    published, _ = find_published("mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco")
    tensors = library_tensors(published.name)
    renamed = {key.replace("bbox_head.conv_", "bbox_head.fcos_"): tensor for key, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    assert published.keys.to_vertebra(renamed).keys() == published.keys.to_vertebra(tensors).keys()


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_row_has_a_name_for_every_tensor(library):
    """Law: the tensors of each model of the zoo go to the library's names and back, one to one."""
    seen = []
    for name in list_published(f"{library}/*"):
        published, _ = find_published(name)
        parts = (published.model.backbone.name, published.model.neck, published.model.head)
        if parts in seen:
            continue
        seen.append(parts)
        with torch.device("meta"):
            names = published.build(["one", "two", "three"]).state_dict()
        theirs = published.keys.from_vertebra(names)
        assert len(theirs) == len(names)
        assert published.keys.to_vertebra(theirs).keys() == names.keys()


@pytest.mark.parametrize("name", [name for library in ("mmdet", "mmseg") for name in list_published(f"{library}/*")])
def test_every_row_has_weights_with_scores_license_and_digest(name):
    """By hand: the facts that a list of models shows."""
    published, _ = find_published(name)
    weights = published.find_weights(None)
    assert weights.url.startswith("https://download.openmmlab.com/") and weights.url.endswith(f"{weights.sha256}.pth")
    assert len(weights.sha256) == 8
    assert weights.scores
    assert weights.license.startswith("Apache-2.0")
    assert find_published(f"{name}.{weights.sha256}") == (published, weights.sha256)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mmdet/cascade-mask-rcnn_r50_fpn_1x_coco", "three mask branches"),
        ("mmdet/faster-rcnn_r50-caffe-c4_1x_coco", "choose an FPN model"),
        ("mmdet/mask-rcnn_r50_fpn_1x_coc", "mask-rcnn_r50_fpn_1x_coco"),
        ("mmseg/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024", "are not covered"),
        ("smp/unet-efficientnet-b0", "other encoders"),
        ("smp/linknet-resnet50", "are not covered"),
    ],
)
def test_model_that_is_not_covered_is_refused_with_the_reason(name, message):
    """By hand: exit code 2, and the reason or the nearest name."""
    with pytest.raises(UsageError, match=message) as caught:
        find_published(name)
    assert caught.value.exit_code == 2
