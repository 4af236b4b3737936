"""torchvision's published detectors with random weights whose activations are those of a trained network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models import get_model_builder

from vertebra.models import Model
from vertebra.models.zoo import PublishedModel, find_published, load_tensors

from .reference_detector import random_images

_OUTPUT_SCALES: Mapping[str, float] = {
    "rpn.head.conv.0.0": 1.0,
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.1,
    "roi_heads.box_head.fc6": 1.0,
    "roi_heads.box_head.fc7": 1.0,
    "roi_heads.box_head.5": 1.0,
    "roi_heads.box_predictor.cls_score": 2.0,
    "roi_heads.box_predictor.bbox_pred": 0.3,
    "roi_heads.mask_predictor.mask_fcn_logits": 2.0,
    "roi_heads.keypoint_predictor.kps_score_lowres": 3.0,
    "head.classification_head.cls_logits": 1.0,
    "head.regression_head.bbox_reg": 0.1,
    "head.regression_head.bbox_ctrness": 1.0,
}
"""The standard deviation of the outputs of layers, chosen so that many detections have a score above the threshold."""


def torchvision_model(entry: str, seed: int = 0) -> nn.Module:
    """Return torchvision's detector ``entry``, which does not resize, with random weights that find many objects.

    Norms get the statistics of an image, and other layers a scale, so that rounding errors stay as small as in a
    trained network. The epsilon of the norms is that of the published weights.
    """
    torch.manual_seed(seed)
    model: nn.Module = get_model_builder(entry)(weights=None, weights_backbone=None)
    model.transform.resize = lambda image, target=None: (image, target)
    pixels, _ = random_images([(128, 160)], seed)
    published, _ = find_published(f"torchvision/{entry}")
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    with torch.no_grad():
        for name, norm in norms.items():
            norm.momentum = 1.0
            # As in trained networks, blocks add little to their shortcuts, so that rounding errors do not grow.
            nn.init.uniform_(norm.weight, *((0.05, 0.15) if name.endswith("bn3") else (0.5, 1.0)))
            nn.init.normal_(norm.bias, std=0.1)
        model.backbone.train()
        model.backbone(model.transform(pixels)[0].tensors)
        model.eval()
        for name, layer in model.named_modules():
            scale = _OUTPUT_SCALES.get(name, 1.0 if name.startswith("backbone.fpn") or ".conv." in name else None)
            if scale is not None and isinstance(layer, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
                _scale_first_output(layer, scale)
        model(pixels)
    if "head" not in dict(model.named_children()):
        return _with_epsilon(model, list(norms.values()), published)
    model.head.classification_head.cls_logits.bias.data.fill_(-3.0)
    return _with_epsilon(model, list(norms.values()), published)


def _with_epsilon(model: nn.Module, norms: list[nn.BatchNorm2d], published: PublishedModel) -> nn.Module:
    epsilon = getattr(published.model.backbone, "norm_eps", 1e-5)
    for norm in norms:
        norm.eps = epsilon
    return model.eval()


def _scale_first_output(layer: nn.Module, scale: float) -> None:
    """Let the first forward pass scale a layer's weights so that its outputs have this standard deviation."""

    def rescale(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        handle.remove()
        factor = scale / output.std().clamp(min=1e-6)
        module.get_parameter("weight").mul_(factor)
        if module.bias is not None:
            module.get_parameter("bias").mul_(factor)
        return output * factor

    handle = layer.register_forward_hook(rescale)


def vertebra_model(entry: str, reference: nn.Module, published: PublishedModel | None = None) -> Model:
    """Return Vertebra's model ``entry`` with the weights of torchvision's; ``published`` may change a convention."""
    published = published or find_published(f"torchvision/{entry}")[0]
    model = published.build().eval()
    load_tensors(model, published, reference.state_dict(), entry)
    return model
