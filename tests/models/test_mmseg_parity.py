"""MMSegmentation's models against its own code with the same weights; skipped if it is not installed.

Its Python code is sufficient (see ``helpers/openmmlab.py``).
"""

from typing import Any

import pytest
import torch
from torch import nn

from vertebra.models import Model, build_model
from vertebra.models.zoo import PublishedModel, find_published, list_published, load_tensors
from vertebra.ops import full_size_logits
from vertebra.structures import Images, UsageError

from ..helpers.openmmlab import build_reference, import_library, library_input, randomize
from ..helpers.reference_detector import random_images

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

MODELS = {
    "deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024": "deeplabv3",
    "deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512": "deeplabv3plus",
    "fcn_r101-d8_4xb4-20k_voc12aug-512x512": "fcn",
}
SIZE = (72, 104)


@pytest.fixture(scope="module")
def references() -> dict[str, nn.Module]:
    """Return an empty dict, in which the models of MMSegmentation are kept once they are built."""
    return {}


def twins(
    name: str, references: dict[str, nn.Module], change: dict[str, Any] | None = None
) -> tuple[nn.Module, Model, PublishedModel]:
    """Return MMSegmentation's model, and ours with its weights and a change of the config."""
    if name not in references:
        import_library("mmseg")
        folder = MODELS[name]
        batch_norm = {"type": "BN"}  # a synchronized norm needs a GPU
        changes = {part: {"norm_cfg": batch_norm} for part in ("decode_head", "auxiliary_head")}
        references[name] = build_reference(
            "mmseg", f"{folder}/{name}.py", backbone={"norm_cfg": batch_norm, "init_cfg": None}, **changes
        )[0]
        randomize(references[name], {})
    published, _ = find_published(f"mmseg/{name}")
    model = build_model(published.model.replace(**(change or {})), published.classes["semantic"].names).eval()
    load_tensors(model, published, references[name].state_dict(), name)
    return references[name], model, published


def preprocessed(reference: nn.Module, images: Images) -> Any:
    """Return normalized images with their samples, as MMSegmentation's model takes them."""
    from mmseg.structures import SegDataSample

    return reference.data_preprocessor(library_input(images, SegDataSample, padding_size=[0, 0, 0, 0]))


@torch.no_grad()
def difference(reference: nn.Module, model: Model) -> float:
    """Return the greatest difference of the logits of all pixels, over the greatest logit."""
    _, images = random_images([SIZE])
    images = Images.from_list([images.pixels[0, :, : SIZE[0], : SIZE[1]]], divisor=8)
    data = preprocessed(reference, images)
    (sample,) = reference.predict(data["inputs"], data["data_samples"])
    expected = sample.seg_logits.data
    found = full_size_logits(model.predict(images)[0])
    assert expected.shape == found.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_mmsegmentations(name, references):
    """Oracle: MMSegmentation's logits of every pixel; and the names of all tensors go back and forth."""
    reference, model, published = twins(name, references)
    assert difference(reference, model) < 1e-5
    tensors = reference.state_dict()
    back = published.keys.from_vertebra(published.keys.to_vertebra(tensors))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(tensor, back[key]) for key, tensor in tensors.items())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024", {"head": {"align_corners": True}}),
        ("deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024", {"backbone": {"dilate_first": True}}),
        ("deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512", {"head": {"align_corners": True}}),
        ("fcn_r101-d8_4xb4-20k_voc12aug-512x512", {"backbone": {"output_stride": 16}}),
    ],
)
def test_logits_differ_with_another_convention(name, change, references):
    """Control: the comparison sees each convention."""
    reference, model, _ = twins(name, references, change)
    assert difference(reference, model) > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_auxiliary_logits_equal_mmsegmentations(name, references):
    """Oracle: MMSegmentation's auxiliary head, on its own features."""
    reference, model, _ = twins(name, references)
    _, images = random_images([SIZE])
    with torch.no_grad():
        features = reference.extract_feat(preprocessed(reference, images)["inputs"])
        expected = reference.auxiliary_head(features)
        found = model.head.auxiliary(features[2])
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("name", list_published("mmseg/*"))
def test_every_row_describes_the_config_of_its_name(name):
    """Oracle: MMSegmentation's own config: pixels, network, classes and size of images; and its list of weights."""
    _, folder = import_library("mmseg")
    import mmseg.datasets
    from mmengine.config import Config
    from mmengine.fileio import load

    published, _ = find_published(name)
    entry = name.removeprefix("mmseg/")
    (path,) = folder.glob(f"*/{entry}.py")
    config = Config.fromfile(path)
    backbone, head = config.model.backbone, config.model.decode_head
    assert (backbone.type, f"resnet{backbone.depth}c") == ("ResNetV1c", published.model.backbone.name)
    assert (tuple(backbone.strides), tuple(backbone.dilations)) == ((1, 2, 1, 1), (1, 1, 2, 4))
    assert head.align_corners is published.model.head.align_corners is False
    assert config.model.test_cfg.mode == "whole"
    assert head.num_classes == len(published.classes["semantic"].names)
    assert tuple(config.test_pipeline[1].scale) == (2048, published.preprocessing.short_side)
    data = {"CityscapesDataset": "CityscapesDataset", "ADE20KDataset": "ADE20KDataset"}.get(
        config.dataset_type, "PascalVOCDataset"
    )
    assert published.classes["semantic"].names == getattr(mmseg.datasets, data).METAINFO["classes"]
    (weights,) = published.weights.values()
    listed = [row for row in load(path.parent / "metafile.yaml")["Models"] if row["Weights"] == weights.url]
    assert [row["Results"]["Metrics"]["mIoU"] for row in listed] == list(weights.scores.values())


def test_model_with_sliding_windows_is_refused_with_the_reason():
    """By hand: exit code 2 and what to choose instead."""
    with pytest.raises(UsageError, match="sliding windows"):
        find_published("mmseg/fcn_r50-d8_4xb2-40k_cityscapes-769x769")
