"""Where a trained model comes from: a run, a model file, or a model that another library publishes."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ..backbones import WeightsOrigin, read_facts, read_state_dict, read_weights_metadata
from ..models import Model, build_model
from ..models.zoo import (
    PublishedModel,
    download,
    find_published,
    is_published_name,
    load_converted,
)
from ..structures import (
    CheckpointError,
    Classes,
    UsageError,
    pick_device,
    usage_error_from_validation,
)
from .checkpoint import BEST, Checkpoint, InferenceConfig, load_checkpoint_model, open_checkpoint
from .user_code import import_user_code


class TrainedModel(ABC):
    """A model with trained weights, which :meth:`load` reads; everything else is known before."""

    @property
    @abstractmethod
    def source(self) -> str:
        """The path, or the name of the published model."""

    @property
    @abstractmethod
    def inference(self) -> InferenceConfig:
        """The architecture, and how images are prepared for it."""

    @property
    @abstractmethod
    def classes(self) -> Mapping[str, Classes]:
        """The classes of the labels, by task."""

    @property
    @abstractmethod
    def origin(self) -> WeightsOrigin | None:
        """The origin and the license of the weights; None if nothing is known."""

    @abstractmethod
    def load(self, device: torch.device | str = "cpu") -> Model:
        """Build the model and load its weights; it is in evaluation mode."""


@dataclass(frozen=True, slots=True)
class RunModel(TrainedModel):
    """The model of a run's checkpoint."""

    checkpoint: Checkpoint

    @property
    def source(self) -> str:
        return str(self.checkpoint.path)

    @property
    def inference(self) -> InferenceConfig:
        return self.checkpoint.inference_config()

    @property
    def classes(self) -> Mapping[str, Classes]:
        return self.checkpoint.classes

    @property
    def origin(self) -> WeightsOrigin | None:
        return _trained_further(self.checkpoint.origin, self.source)

    def load(self, device: torch.device | str = "cpu") -> Model:
        return load_checkpoint_model(self.checkpoint, device)


@dataclass(frozen=True, slots=True)
class ModelFile(TrainedModel):
    """The model in a ``.safetensors`` file, whose metadata describe it; ``vertebra convert`` writes such files."""

    path: Path
    inference_values: Mapping[str, Any]
    """An :class:`InferenceConfig` as JSON values."""
    class_values: Mapping[str, Mapping[str, Any]]
    """The fields of :class:`~vertebra.structures.Classes` by task."""
    stated_origin: WeightsOrigin | None

    @property
    def source(self) -> str:
        return str(self.path)

    @property
    def inference(self) -> InferenceConfig:
        return read_inference(self.inference_values, self.path)

    @property
    def classes(self) -> Mapping[str, Classes]:
        return {task: Classes.from_json(values) for task, values in self.class_values.items()}

    @property
    def origin(self) -> WeightsOrigin | None:
        return _trained_further(self.stated_origin, self.source)

    def load(self, device: torch.device | str = "cpu") -> Model:
        model = build_model(self.inference.model, {task: classes.names for task, classes in self.classes.items()})
        load_converted(model, read_state_dict(self.path), "the model that the file describes", self.path)
        return model.to(pick_device(device)).eval()


@dataclass(frozen=True, slots=True)
class ExternalModel(TrainedModel):
    """A model of another library: published weights, or the user's file of weights for the same architecture."""

    published: PublishedModel
    tag: str | None = None
    """The tag of the published weights; None: the default."""
    path: Path | None = None
    """The user's file of weights; None: the published weights."""
    class_names: tuple[str, ...] | None = None
    """The names of the classes of a file, in the order of its labels. None: the published classes, or numbers if the
    file has another number of classes."""

    @property
    def source(self) -> str:
        return self.published.name if self.path is None else str(self.path)

    @property
    def inference(self) -> InferenceConfig:
        return InferenceConfig(model=self.published.model, preprocessing=self.published.preprocessing)

    @property
    def classes(self) -> Mapping[str, Classes]:
        return self.published.classes if self.path is None else self._classes_of(self._read())

    @property
    def origin(self) -> WeightsOrigin | None:
        if self.path is not None:
            return WeightsOrigin(self.source)
        return self.published.origin(self.published.find_weights(self.tag))

    def load(self, device: torch.device | str = "cpu") -> Model:
        tensors, published = self._read(), self.published
        classes = self._classes_of(tensors)
        model = published.build(None if classes == published.classes else classes[published.task].names)
        load_converted(model, tensors, published.name, self.source)
        return model.to(pick_device(device)).eval()

    def _read(self) -> Mapping[str, torch.Tensor]:
        """Read the file, and return its tensors by Vertebra's names; published weights may be downloaded first."""
        path = self.path or download(self.published.find_weights(self.tag))
        return self.published.convert(read_state_dict(path), self.source)

    def _classes_of(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, Classes]:
        """Return the classes of the tensors, which may differ from the published ones in a user's file."""
        published = self.published
        if self.path is None or len(published.classes) > 1:
            return published.classes
        known, names, count = published.classes[published.task], self.class_names, published.count_classes(tensors)
        if names is None:
            if count == len(known.names):
                return published.classes
            names = tuple(f"class {label}" for label in range(count))
        if len(names) != count:
            raise UsageError(
                f"{len(names)} class names are given, but the weights have {count} classes",
                "name each class once, in the order of the labels",
                file=self.path,
            )
        return {published.task: replace(known, names=names, ids=tuple(range(1, count + 1)))}


def read_inference(values: Mapping[str, Any], path: Path) -> InferenceConfig:
    """Validate the inference config in a file; raise CheckpointError if it is invalid or a part is not registered."""
    try:
        return InferenceConfig.model_validate(values)
    except (ValidationError, UsageError) as error:
        if isinstance(error, ValidationError):
            error = usage_error_from_validation("inference", error)
        raise CheckpointError(error.what, error.fix or "import the custom parts first", file=path) from None


def _trained_further(origin: WeightsOrigin | None, source: str) -> WeightsOrigin:
    """Return the origin of the weights ``source``, which were trained from weights of another origin, if any."""
    return WeightsOrigin(source) if origin is None else origin.trained_further(source)


def open_model(
    source: str | os.PathLike[str], like: str | None = None, class_names: Sequence[str] | None = None
) -> TrainedModel:
    """Find a trained model, without loading its weights.

    ``source`` is one of

    - a run folder or a checkpoint;
    - a model file, which ``vertebra convert`` writes, or an exported file, which ``vertebra export`` writes;
    - the name of a published model, such as ``torchvision/fasterrcnn_resnet50_fpn``, with a tag for other weights than
      the default: ``torchvision/keypointrcnn_resnet50_fpn.COCO_LEGACY``;
    - a file of weights with the tensor names of the published model ``like``; ``class_names`` are the names of its
      classes if they differ from the published ones.

    Raises UsageError or CheckpointError if there is no such model.
    """
    path = Path(source).expanduser()
    names = None if class_names is None else tuple(class_names)
    if like is not None:
        if not path.is_file():
            raise UsageError("there is no such file of weights", f"it should have the names of {like}", file=path)
        published, tag = find_published(like)
        return ExternalModel(published, tag, path, names)
    if path.is_file() and path.name != BEST:
        return _open_exported_file(path) or _open_model_file(path)
    if not path.exists() and is_published_name(str(source)):
        published, tag = find_published(str(source))
        published.find_weights(tag)
        return ExternalModel(published, tag)
    return RunModel(open_checkpoint(path))


def load_model(
    source: str | os.PathLike[str],
    device: torch.device | str = "auto",
    *,
    like: str | None = None,
    imports: Sequence[str | os.PathLike[str]] = (),
) -> Model:
    """Load a trained model, in evaluation mode; see :func:`open_model` for ``source`` and ``like``.

    ``model.class_names`` are the names of its labels. ``imports`` are modules or Python files with custom parts, which
    are imported first. Raises UsageError or CheckpointError if there is no usable model.
    """
    for name in imports:
        import_user_code(name)
    return open_model(source, like).load(device)


def _open_exported_file(path: Path) -> TrainedModel | None:
    """Open an exported file; return None for any other file."""
    from .export.exported_model import open_exported  # it imports this module
    from .export.sessions import is_exported

    return open_exported(path) if is_exported(path) else None


def _open_model_file(path: Path) -> ModelFile:
    facts = read_facts(path)
    if "inference" not in facts or "classes" not in facts:
        fix = "name the published model whose architecture it has with --like (like= in Python)"
        raise UsageError("this file holds weights without a description of their model", fix, file=path)
    return ModelFile(path, facts["inference"], facts["classes"], read_weights_metadata(path).origin)
