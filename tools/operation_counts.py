"""Counting the operations of a training step on tensors without values; for ``vertebra count-operations``."""

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import vertebra
from vertebra.heads import HEADS, required_keypoints, required_mask_format
from vertebra.models import Model
from vertebra.necks import FPN
from vertebra.ops import total_loss
from vertebra.structures import Images, Instances, PolygonMasks
from vertebra.tools.benchmark_pairs import CLASSES, DETECTORS

OBJECTS, EDGES = 10, 40  # in an image, and of the polygons of an object


class Counts(NamedTuple):
    """The operations of a training step by name; views are not counted."""

    forward: Counter[str]
    backward: Counter[str]


class _Recorder(TorchDispatchMode):
    """Counts the operations that run inside its ``with`` block, except views."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads_no_tensor = func.namespace == "prim" or func.name().startswith("aten::promote_types")
        if not func.is_view and not reads_no_tensor:
            self.counts[func.name().removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def count_operations(detector: str, size: tuple[int, int], batch: int) -> Counts:
    """Count the operations of a step of a detector of ``DETECTORS`` on ``batch`` images of ``size`` (height, width).

    The images have ``OBJECTS`` objects each. The second step is counted, without what only the first one computes.
    Reading a value from the device raises an error, as does a shape that depends on values.
    """
    counts = Counts(Counter(), Counter())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("meta"):
        model = _build_model(detector)
        images, targets = _make_batch(detector, size, batch)
        for _ in range(2):
            model.zero_grad(set_to_none=True)
            with _Recorder() as forward:
                loss = total_loss(model(images, targets))
            with _Recorder() as backward:
                loss.backward()
            counts = Counts(forward.counts, backward.counts)
    return counts


def _build_model(detector: str) -> Model:
    neck_config, head_config, _ = DETECTORS[detector]
    backbone = vertebra.create_backbone("resnet50", norm="frozen", freeze_at=2)
    neck = FPN(backbone.feature_info, neck_config)
    return Model(backbone, neck, HEADS.build(head_config, neck.feature_info, CLASSES)).train()


def _make_batch(detector: str, size: tuple[int, int], batch: int) -> tuple[Images, list[Instances]]:
    """Return images and targets of the right shapes."""
    _, config, _ = DETECTORS[detector]
    masks, names = required_mask_format(config), required_keypoints(config)
    targets = []
    for _ in range(batch):
        edges, parts = torch.zeros(OBJECTS, EDGES, 4), torch.zeros(OBJECTS, EDGES, dtype=torch.int64)
        fields = {
            "masks": torch.zeros(OBJECTS, *size, dtype=torch.bool) if masks == "bitmaps" else None,
            "polygon_masks": PolygonMasks(edges, parts, most_parts=1) if masks == "polygons" else None,
            "keypoints": torch.zeros(OBJECTS, len(names), 3) if names is not None else None,
        }
        targets.append(Instances(torch.zeros(OBJECTS, 4), torch.zeros(OBJECTS, dtype=torch.int64), **fields))
    return Images(torch.zeros(batch, 3, *size, dtype=torch.uint8), torch.zeros(batch, 2, dtype=torch.int64)), targets
