"""MMDetection and MMSegmentation without mmcv's compiled operators, in whose place torchvision's are used.

``pip install mmengine mmcv-lite mmdet mmsegmentation`` is sufficient; without them the tests are skipped.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from vertebra.structures import Images

NEWEST_MMCV = "2.1.0"  # mmdet refuses mmcv from 2.2, and mmcv-lite has no older version for newer Pythons


class StandIn(ModuleType):
    """A module in which every name is a class without content."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, type(name, (nn.Module,), {}))
        return getattr(self, name)


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An import hook for mmcv's compiled operators, and for packages that draw pictures and are not installed."""

    def find_spec(self, fullname, path, target=None):
        drawing = fullname.partition(".")[0] == "matplotlib"
        if drawing or (fullname + ".").startswith("mmcv.ops."):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module) -> None:
        if module.__name__ == "mmcv.ops":
            module.RoIAlign = RoIAlign
        if module.__name__ in ("mmcv.ops", "mmcv.ops.nms"):
            module.batched_nms = batched_nms


class RoIAlign(nn.Module):
    """RoIAlign with the arguments of mmcv's, computed by torchvision's."""

    def __init__(self, output_size: int, spatial_scale: float, sampling_ratio: int, aligned: bool = True) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = (output_size, output_size), spatial_scale
        self.sampling_ratio, self.aligned = sampling_ratio or -1, aligned

    def forward(self, level: Tensor, rois: Tensor) -> Tensor:
        return torchvision.ops.roi_align(
            level, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        )


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, nms_cfg: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Suppress boxes within their groups as mmcv does."""
    kept = torchvision.ops.batched_nms(boxes, scores, groups, nms_cfg["iou_threshold"])
    return torch.cat([boxes[kept], scores[kept, None]], dim=1), kept


def import_library(name: str) -> tuple[Any, Path]:
    """Import ``mmdet`` or ``mmseg``; return its registry of models and the folder of its configs. Skip without it."""
    for package in ("mmengine", "mmcv", name):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, StandInFinder())
    import mmcv

    mmcv.__version__ = NEWEST_MMCV
    library = importlib.import_module(name)
    importlib.import_module(f"{name}.models")
    return importlib.import_module(f"{name}.registry").MODELS, Path(library.__file__).parent / ".mim" / "configs"


def build_reference(library: str, config: str, **changes: Any) -> tuple[nn.Module, Any]:
    """Build a model from a config of the library, with random weights; return it in evaluation mode with its config.

    ``config`` is a path in its folder of configs, ``changes`` are merged into the config of the model.
    """
    registry, folder = import_library(library)
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    settings = Config.fromfile(folder / config)
    settings.merge_from_dict({"model": {"backbone": {"init_cfg": None}, "pretrained": None, **changes}})
    settings.model.pop("pretrained", None)
    with DefaultScope.overwrite_default_scope(library):
        return registry.build(settings.model).eval(), settings


def library_input(images: Images, sample: type, **facts: Any) -> dict[str, list[Any]]:
    """Return images as the data preprocessors of both libraries take them: BGR, with a data sample for each."""
    pixels = [
        image[[2, 1, 0], :height, :width]
        for image, (height, width) in zip(images.pixels, images.sizes.tolist(), strict=True)
    ]
    samples = []
    for image in pixels:
        shape = (image.shape[1], image.shape[2])
        samples.append(sample(metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0), **facts}))
    return {"inputs": pixels, "data_samples": samples}


def randomize(model: nn.Module, spread: dict[str, float]) -> None:
    """Give the norms of a model random statistics, and multiply weights whose names end so by a factor.

    With the initial weights of a library, a detector would detect nothing.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(std=0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                tensor.add_(torch.randn_like(tensor) * 0.05)
            for ending, factor in spread.items():
                if name.endswith(ending):
                    tensor.mul_(factor)
