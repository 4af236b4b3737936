"""Models of detectron2 against recorded outputs of detectron2, for machines without it.

``recorded/detectron2_outputs.safetensors`` was written by ``record`` below, run with detectron2 (commit 02b5c4e2) and
the folder ``configs`` of its repository. Weights are computed from the names of the tensors, and only the scales of the
predictors are recorded, which give many detections.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from vertebra.models import Model
from vertebra.models.zoo import load_tensors
from vertebra.models.zoo.detectron2_config import published_from_config
from vertebra.ops import merge_panoptic, paste_masks
from vertebra.structures import Images

from ..helpers.reference_detectron2 import MEANS, SMALL, STDS, scale_output

RECORDED = Path(__file__).parent / "recorded"
OUTPUTS = RECORDED / "detectron2_outputs.safetensors"
SIZE, COUNT, MASKS = (96, 128), 20, 4  # detections and masks that are recorded
MODELS = {
    "faster": "COCO-Detection/faster_rcnn_R_50_FPN_1x",
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_1x",
    "mask": "Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x",  # sampling ratio 2, not aligned
    "keypoint": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x",
    "panoptic": "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x",
}


def image() -> Tensor:
    """Return an RGB image of uint8 from integer arithmetic."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    channels = [x * y // 40 + 3 * x, (x - 50) ** 2 // 30 + 2 * y, (y - 30) ** 2 // 20 + x * 5 // 3]
    return (torch.stack(channels) % 256).to(torch.uint8)


def weight(name: str, shape: torch.Size) -> Tensor:
    """Return the random values of a tensor by its name in detectron2."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    values = torch.from_numpy(generator.random(tuple(shape), dtype=np.float32))
    if ".norm." in name and name.endswith(("weight", "running_var")):
        return (0.5 + 0.7 * values) * (0.3 if name.endswith("conv3.norm.weight") else 1.0)
    if len(shape) < 2:
        return 0.6 * values - 0.3
    scale = 0.01 if "score_lowres" in name else 1.0  # so that the heatmaps do not overflow before they are scaled
    return (2 * values - 1) * scale * (6 / np.prod(shape[1:])) ** 0.5


def predictors(names: Mapping[str, Tensor]) -> list[str]:
    """Return the modules that compute predictions, in the order in which they are scaled."""
    modules = {name.removesuffix(".weight") for name in names}
    return [name for start in STDS for name in sorted(modules) if name.rstrip(".0123456789") == start]


def record() -> None:
    """Write the outputs of detectron2."""
    from detectron2.modeling import build_model

    from ..helpers.reference_detectron2 import predict, read_config

    recorded: dict[str, Tensor] = {}
    for case, name in MODELS.items():
        model = build_model(read_config(name, SMALL)).eval()
        model.load_state_dict({key: weight(key, tensor.shape) for key, tensor in model.state_dict().items()})
        for predictor in predictors(model.state_dict()):
            module = model.get_submodule(predictor)
            start = predictor.rstrip(".0123456789")
            factor = scale_output(lambda: predict(model, image()), module, STDS[start], MEANS.get(start, 0.0))  # noqa: B023
            recorded[f"{case}/{predictor}.factor"] = factor
            recorded[f"{case}/{predictor}.bias"] = module.bias.detach().clone()
        recorded |= {f"{case}/{key}": value for key, value in _outputs(predict(model, image())).items()}
    save_file({name: tensor.contiguous() for name, tensor in recorded.items()}, OUTPUTS)


def _outputs(prediction: dict[str, Any]) -> dict[str, Tensor]:
    """Return what is recorded of detectron2's prediction."""
    found = prediction["instances"][:COUNT]
    outputs = {"boxes": found.pred_boxes.tensor, "scores": found.scores, "labels": found.pred_classes.to(torch.uint8)}
    if found.has("pred_masks"):
        outputs["masks"] = torch.from_numpy(np.packbits(found.pred_masks[:MASKS].numpy(), axis=-1))
    if found.has("pred_keypoints"):
        outputs["keypoints"] = found.pred_keypoints[:MASKS]
    if "panoptic_seg" in prediction:
        outputs["segments"] = prediction["panoptic_seg"][0].to(torch.uint8)
    return outputs


def vertebra_model(case: str, folder: Path, recorded: Mapping[str, Tensor]) -> Model:
    """Return Vertebra's model of detectron2's recorded config, with the weights that the outputs were recorded with."""
    content = yaml.safe_load((RECORDED / "detectron2_config.yaml").read_text())
    changes = json.loads((RECORDED / "detectron2_zoo.json").read_text())[MODELS[case]]["settings"] | SMALL
    for setting, value in changes.items():
        *sections, last = setting.split(".")
        section = content
        for name in sections:
            section = section[name]
        section[last] = value
    file = folder / "config.yaml"
    file.write_text(json.dumps(content))
    published = published_from_config(file)
    with torch.device("meta"):
        shapes = published.keys.from_vertebra(published.build().state_dict())
    weights = {name: weight(name, tensor.shape) for name, tensor in shapes.items()}
    for predictor in predictors(weights):
        weights[f"{predictor}.weight"] *= recorded[f"{case}/{predictor}.factor"]
        weights[f"{predictor}.bias"] = recorded[f"{case}/{predictor}.bias"]
    model = published.build()
    load_tensors(model, published, weights, case)
    return model.eval()


@pytest.mark.parametrize("case", MODELS)
def test_predictions_equal_the_recorded_ones(case, tmp_path):
    """Oracle: recorded detections of detectron2 (boxes 1e-2 px, scores 1e-4), and their masks, keypoints, segments."""
    recorded = load_file(OUTPUTS)
    prediction = vertebra_model(case, tmp_path, recorded).predict(Images.from_list([image()], 32))[0]
    expected = {name.removeprefix(f"{case}/"): tensor for name, tensor in recorded.items() if name.startswith(case)}
    detections = prediction["detection"] if isinstance(prediction, dict) else prediction
    assert len(detections) > COUNT == len(expected["boxes"])
    torch.testing.assert_close(detections.boxes[:COUNT], expected["boxes"], atol=1e-2, rtol=0)
    torch.testing.assert_close(detections.scores[:COUNT], expected["scores"], atol=1e-4, rtol=0)
    assert torch.equal(detections.labels[:COUNT], expected["labels"].long())
    if "masks" in expected:
        masks = np.unpackbits(expected["masks"].numpy(), axis=-1, count=SIZE[1])
        assert (paste_masks(detections.masks, detections.boxes)[:MASKS].numpy() != masks).mean() < 1e-3
    if "keypoints" in expected:
        near = (detections.keypoints[:MASKS] - expected["keypoints"]).abs().amax(dim=2) < 1e-2
        assert near.float().mean() > 0.95
    if "segments" in expected:
        segments = merge_panoptic(prediction["panoptic"], SIZE)
        assert len(segments.segments) > 3
        assert (segments.ids != expected["segments"]).float().mean() < 1e-2


def test_negative_control_of_the_recorded_outputs(tmp_path):
    """Control: without the half-cell shift of RoIAlign, the detections differ from the recorded ones."""
    recorded = load_file(OUTPUTS)
    model: Any = vertebra_model("faster", tmp_path, recorded)
    model.head.box.pool.config = model.head.box.pool.config.replace(aligned=False)
    found = model.predict(Images.from_list([image()], 32))[0]
    assert (found.scores[:COUNT] - recorded["faster/scores"]).abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_recorded_outputs_are_detectron2s(monkeypatch, tmp_path):
    """Oracle: detectron2 itself, if it is installed, computes the recorded outputs again."""
    pytest.importorskip("detectron2.modeling", reason="detectron2 is not installed")
    again = tmp_path / "again.safetensors"
    before = load_file(OUTPUTS)
    monkeypatch.setattr(f"{__name__}.OUTPUTS", again)
    record()
    after = load_file(again)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-2, rtol=1e-3)
