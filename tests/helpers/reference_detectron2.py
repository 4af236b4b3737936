"""detectron2's models with random weights as a reference, and Vertebra's models with the same weights.

Both are built from one config of detectron2: Vertebra's from the file that detectron2 writes. detectron2's Python code
and the folder ``configs`` of its repository beside it are sufficient, its compiled extension is not needed.
"""

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from vertebra.models import Model
from vertebra.models.zoo import PublishedModel, load_tensors
from vertebra.models.zoo.detectron2_config import published_from_config
from vertebra.structures import Images

SMALL = {
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ROI_HEADS.NUM_CLASSES": 7,
    "MODEL.RETINANET.NUM_CLASSES": 7,
    "MODEL.RETINANET.NUM_CONVS": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [32, 32],
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 6,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": 50,
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.3,
}
"""Settings of narrow heads, since wide ones would test nothing more."""

STDS = {
    "proposal_generator.rpn_head.objectness_logits": 1.0,
    "proposal_generator.rpn_head.anchor_deltas": 0.2,
    "roi_heads.box_predictor.cls_score": 2.0,
    "roi_heads.box_predictor.bbox_pred": 1.0,
    "roi_heads.mask_head.predictor": 2.0,
    "roi_heads.keypoint_head.score_lowres": 2.0,
    "sem_seg_head.predictor": 1.0,
    "head.cls_score": 1.0,
    "head.bbox_pred": 0.2,
}
"""The standard deviations to which the outputs are scaled, so that there are many detections of all classes."""

MEANS = {"head.cls_score": -3.0}
"""The means to which the outputs are shifted, if not 0."""


def read_config(name: str, changes: Mapping[str, Any] | None = None) -> Any:
    """Read a config of detectron2's repository by its name in the zoo, with changed settings."""
    import detectron2
    from detectron2.config import get_cfg

    config = get_cfg()
    file = Path(detectron2.__file__).parents[1] / "configs" / f"{name}.yaml"
    config.merge_from_file(str(file), allow_unsafe=True)
    for setting, value in {"MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": "", **(changes or {})}.items():
        config.merge_from_list([setting, value])
    return config


def published(config: Any) -> PublishedModel:
    """Return the model that Vertebra reads from the file that detectron2 writes."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(config.dump())
        return published_from_config(file)


def random_detectron2(config: Any, image: Tensor) -> Any:
    """Return detectron2's model with random weights, scaled so that it detects many objects in ``image``."""
    from detectron2.modeling import build_model

    torch.manual_seed(0)
    with redirect_stderr(io.StringIO()):
        model = build_model(config).eval()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            low, high = (-0.3, 0.3) if name.endswith(("bias", "running_mean")) else (0.5, 1.2)
            # The last norm of a block is small, so that the residuals do not add up to huge values.
            scale = 0.3 if name.endswith("conv3.norm.weight") else 1.0
            tensor.uniform_(low * scale, high * scale, generator=generator)
    modules = dict(model.named_modules())
    for start, std in STDS.items():
        for name, module in modules.items():
            if name == start or (name.startswith(f"{start}.") and name.removeprefix(f"{start}.").isdigit()):
                scale_output(lambda: predict(model, image), module, std, MEANS.get(start, 0.0))
    return model


@torch.no_grad()
def scale_output(run: Callable[[], Any], module: torch.nn.Module, std: float, mean: float = 0.0) -> Tensor:
    """Change a predictor so that its outputs have a standard deviation, and each channel a mean; return the factor.

    ``run`` runs the model on an image.
    """
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, inputs, output: outputs.append(output.transpose(0, 1).flatten(1)))
    run()
    handle.remove()
    values = torch.cat(outputs, dim=1)
    centers = values.mean(dim=1)
    factor = std / (values - centers[:, None]).std()
    module.get_parameter("weight").mul_(factor)
    bias = module.get_parameter("bias")
    bias.copy_((bias - centers) * factor + mean)
    return factor


@torch.no_grad()
def predict(model: Any, image: Tensor) -> dict[str, Any]:
    """Return detectron2's prediction for an RGB image of uint8, which its mapper would pass in the model's format."""
    pixels = image.flip(0) if model.input_format == "BGR" else image
    (prediction,) = model([{"image": pixels, "height": image.shape[1], "width": image.shape[2]}])
    return prediction


def random_image(height: int, width: int, seed: int = 0) -> Tensor:
    """Return a smooth random RGB image of uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (smooth.clamp(0, 1) * 255).to(torch.uint8)


def vertebra_model(reference: Any, described: PublishedModel) -> Model:
    """Return Vertebra's model of a description, with the weights of detectron2's."""
    model = described.build()
    load_tensors(model, described, reference.state_dict(), "detectron2")
    return model.eval()


def as_images(image: Tensor, divisor: int = 32) -> Images:
    """Return an image as Vertebra's models take it."""
    return Images.from_list([image], divisor)
