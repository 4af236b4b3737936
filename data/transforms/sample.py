"""From a record that is ready to the sample that a model sees: torch's tensors in place of numpy's arrays."""

import numpy as np
import torch

from ...structures import Instances
from ..polygons import pad_polygon_masks
from ..types import Objects, Record, Sample, Target, Truth


def to_sample(record: Record) -> Sample:
    """The same image and truth."""
    image = torch.from_numpy(np.ascontiguousarray(record.image.transpose(2, 0, 1)))
    return Sample(image, _target(record), record.image_id, record.full_size, record.file)


def _target(record: Record) -> Target | None:
    """What is known of the image; by task where there are several kinds."""
    truths: dict[str, Truth] = {}
    if record.objects is not None:
        truths["detection"] = _instances(record.objects)
    if record.semantic is not None:
        truths["semantic"] = torch.from_numpy(record.semantic.astype(np.int64))
    if record.label is not None:
        truths["classification"] = torch.tensor(record.label)
    return truths if len(truths) > 1 else next(iter(truths.values()), None)


def _instances(objects: Objects) -> Instances:
    return Instances(
        torch.from_numpy(objects.boxes),
        torch.from_numpy(objects.labels),
        None if objects.masks is None else torch.from_numpy(objects.masks.view(bool)),
        torch.from_numpy(objects.ignored),
        None if objects.polygon_masks is None else pad_polygon_masks(objects.polygon_masks),
    )
