"""The batch of a step that ended a run, kept: whoever wants to know why can look at it, or take the step again."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...data import Batch
from ...structures import FieldTable, NonFiniteError


@contextlib.contextmanager
def save_bad_batch(path: Path, batches: Sequence[Batch]) -> Iterator[None]:
    """Where a step's numbers are not finite, write its micro-batches to ``path`` (.safetensors), and say so.

    A tensor's name is its place: ``0.images.pixels``, ``0.targets.1.boxes``. The image ids are in the file's metadata.
    """
    try:
        yield
    except NonFiniteError as fault:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _flatten(batches, "")}
        image_ids = [list(batch.image_ids) for batch in batches]
        with contextlib.suppress(OSError, SafetensorError):  # the numbers matter more than the file
            save_file(tensors, path, {"image_ids": json.dumps(image_ids), "fault": fault.what})
            fault.what += f"; the batch is in {path}"
        raise


def _flatten(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in sequences, mappings, field tables and dataclasses, with its place as its name."""
    if isinstance(value, Tensor):
        yield name.removeprefix("."), value
    elif isinstance(value, FieldTable):
        yield from _flatten(value.fields, name)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _flatten(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flatten(part, f"{name}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, part in enumerate(value):
            yield from _flatten(part, f"{name}.{place}")
