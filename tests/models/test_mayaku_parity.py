"""Models of detectron2 against mayaku, which also loads detectron2's files; skipped if it is not installed.

A second opinion on the tensor names and conventions, independent of detectron2's code.
"""

from pathlib import Path

import pytest
import torch
import yaml

from vertebra.models.zoo.detectron2_config import published_from_config
from vertebra.structures import Images

from ..helpers.reference_detectron2 import random_image, scale_output

d2 = pytest.importorskip("mayaku.d2", reason="mayaku is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STDS = {"rpn.objectness": 1.0, "rpn.offsets": 0.2, "box.class_logits": 3.0, "box.box_offsets": 1.0, "mask.logits": 2.0}
RECORDED = Path(__file__).parent / "recorded" / "detectron2_config.yaml"


@torch.no_grad()
def test_predictions_equal_mayakus(tmp_path):
    """Oracle: mayaku's Mask R-CNN with the same file of weights and config: 100 detections.

    The config has a sampling ratio of 2: mayaku 2.0.1 reads detectron2's 0, one sample per cell, as 2 too.
    """
    from mayaku.cli._factory import build_detector

    content = yaml.safe_load(RECORDED.read_text())
    for branch in ("BOX", "MASK"):
        content["MODEL"][f"ROI_{branch}_HEAD"]["POOLER_SAMPLING_RATIO"] = 2
    config, file = tmp_path / "config.yaml", tmp_path / "model_final.pth"
    config.write_text(yaml.safe_dump(content))
    published = published_from_config(config)
    torch.manual_seed(0)
    model = published.build().eval()
    for name, tensor in model.backbone.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            tensor.uniform_(0.1, 0.3) if name.endswith("bn3.weight") else tensor.uniform_(0.5, 1.2)
    images = Images.from_list([random_image(288, 352)], 32)
    for predictor, std in STDS.items():
        scale_output(lambda: model.predict(images), model.get_submodule(f"head.{predictor}"), std)
    torch.save({"model": published.keys.from_vertebra(model.state_dict())}, file)

    detector = build_detector(d2.convert_d2(file, d2_config=config, output=tmp_path / "mayaku.pth")).eval()
    detector.load_state_dict(torch.load(tmp_path / "mayaku.pth", weights_only=True)["model"])
    (theirs,) = detector([{"image": images.pixels[0].float(), "height": 288, "width": 352}])
    theirs, ours = theirs["instances"], model.predict(images)[0]
    assert len(ours) == len(theirs) == 100
    torch.testing.assert_close(ours.boxes, theirs.pred_boxes.tensor, atol=1e-2, rtol=0)
    torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-5, rtol=0)
    assert torch.equal(ours.labels, theirs.pred_classes)
