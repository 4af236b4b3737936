"""From a record that has been transformed to the sample that a model sees: tensors in place of arrays."""

import numpy as np
import torch

from ..types import Record, Sample, Target, Truth


def to_sample(record: Record) -> Sample:
    """Return the image and its ground truth as tensors."""
    image = torch.from_numpy(np.ascontiguousarray(record.image.transpose(2, 0, 1)))
    return Sample(image, _target_of(record), record.image_id, record.full_size, record.file)


def _target_of(record: Record) -> Target | None:
    """Return the ground truth of the image: of several tasks by task, of one alone, or None."""
    truths: dict[str, Truth] = {}
    if record.objects is not None:
        truths["detection"] = record.objects.to_instances()
    if record.semantic is not None:
        truths["semantic"] = torch.from_numpy(record.semantic.astype(np.int64))
    if record.label is not None:
        truths["classification"] = torch.tensor(record.label)
    return truths if len(truths) > 1 else next(iter(truths.values()), None)
