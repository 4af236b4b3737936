"""Conversion of trained models to model files of Vertebra and to weights files of other libraries."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..backbones import weights_metadata
from ..inference import TrainedModel
from ..models import build_model
from ..models.zoo import PublishedModel
from ..ops import join_first, state_dict_problems
from ..structures import UsageError
from .checkpoints import save_tensors, write_errors
from .run import describe_model_changes


def save_model_file(trained: TrainedModel, path: Path) -> None:
    """Write a trained model to a ``.safetensors`` file that describes itself, which ``open_model`` reads.

    Its metadata hold the architecture with all conventions, the preprocessing, the classes, and the origin and license
    of the weights.
    """
    if path.suffix != ".safetensors":
        raise UsageError("a model file of Vertebra ends in .safetensors", "choose another name", file=path)
    model, inference, classes = trained.load(), trained.inference, trained.classes
    inference = inference.replace(model=inference.model.replace(weights=None, start_from=None, start_from_like=None))
    metadata = weights_metadata(
        model.preprocess.config,
        model.backbone.config,
        trained.origin,
        inference=inference.model_dump(mode="json"),
        classes={task: asdict(values) for task, values in classes.items()},
    )
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    _write(path, lambda part: save_tensors(part, tensors, metadata))


def save_for_library(trained: TrainedModel, published: PublishedModel, path: Path) -> str | None:
    """Write the weights of a trained model as a state dict with the tensor names of a published model's library.

    Return a line on settings of the model that the library's model does not have, or None. Raises UsageError if the
    architectures differ.
    """
    if path.suffix not in (".pth", ".pt"):
        raise UsageError("weights for other libraries are written with torch.save", "use the suffix .pth", file=path)
    model, names = trained.load(), {task: classes.names for task, classes in trained.classes.items()}
    if set(names) != set(published.classes):
        raise UsageError(f"{trained.source} is for {', '.join(names)}, {published.name} for {published.task}")
    with torch.device("meta"):
        expected = build_model(published.model, names).state_dict()
    tensors = model.state_dict()
    if problems := state_dict_problems(tensors, expected):
        raise UsageError(
            f"the model is not a {published.name}: {join_first(problems)}", "choose the model that has the same parts"
        )
    converted: dict[str, Tensor] = published.keys.from_vertebra(tensors)
    _write(path, lambda part: torch.save(converted, part))
    changes = describe_model_changes(published.model, trained.inference.model)
    return changes and f"set these in {published.name} too, or its predictions differ: {changes}"


def _write(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under a temporary name first, so that no incomplete file has the final name."""
    part = path.with_name(f".writing-{path.name}")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
