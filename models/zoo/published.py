"""The description of a model that another library publishes, and the building of models from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...backbones import WeightsOrigin
from ...heads import class_rows_by_tensor
from ...ops import join_first, state_dict_problems
from ...structures import CheckpointError, Classes, ImagePreprocessing, UsageError, suggest
from ..build import ModelConfig, build_model
from ..keys import BATCH_COUNTER, KeyMap
from ..model import Model


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A file of weights that another library publishes."""

    url: str
    scores: Mapping[str, float] = field(default_factory=dict)
    """The published scores in percent by metric, such as ``box AP``."""
    license: str = "unknown"
    page: str = "unknown"
    """The address of the page that describes the training."""
    sha256: str = ""
    """The first digits of the file's SHA-256 digest; empty if none are published."""
    md5: str = ""
    """The first digits of the file's MD5 digest; empty if none are published."""


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model of another library: its architecture, conventions and classes, and the names of its tensors.

    They belong together: weights are only ever loaded with the conventions that they were trained with.
    """

    name: str
    """Library and name there, such as ``torchvision/fasterrcnn_resnet50_fpn``."""
    model: ModelConfig
    """The architecture with the library's conventions and its pixel normalization."""
    classes: Mapping[str, Classes]
    """The classes of the published weights, by task."""
    preprocessing: ImagePreprocessing
    keys: KeyMap
    weights: Mapping[str, PublishedWeights] = field(default_factory=dict)
    """The published weights by tag; the first are the default. Empty if the library publishes no weights."""
    parameters: int | None = None
    """The number of parameters; None if it is not known without building the model."""

    @property
    def task(self) -> str:
        """The task of the model's targets, such as ``detection``."""
        return next(iter(self.classes))

    def find_weights(self, tag: str | None) -> PublishedWeights:
        """Return the weights with a tag, or the default weights for None; raise UsageError if there are none."""
        if not self.weights:
            raise UsageError(
                f"no weights are published for {self.name}", "give a file of weights for a model like this"
            )
        if tag is None:
            return next(iter(self.weights.values()))
        if tag not in self.weights:
            raise UsageError(f"{self.name} has no weights {tag!r}", suggest(tag, self.weights))
        return self.weights[tag]

    def build(self, class_names: Sequence[str] | None = None) -> Model:
        """Build the model with random weights, with the published classes or, if they are given, other ones."""
        names = {task: classes.names for task, classes in self.classes.items()}
        return build_model(self.model, names if class_names is None else class_names)

    def origin(self, weights: PublishedWeights) -> WeightsOrigin:
        """Return the origin of published weights."""
        return WeightsOrigin(self.name, weights.license, weights.page)

    def convert(self, tensors: Mapping[str, Tensor], source: Any) -> dict[str, Tensor]:
        """Convert a state dict of the library to Vertebra's names; raise CheckpointError, naming ``source``, if it has
        a name that the model does not have."""
        try:
            return self.keys.to_vertebra(tensors)
        except CheckpointError as error:
            raise CheckpointError(error.what, error.fix, file=source) from None

    def count_classes(self, tensors: Mapping[str, Tensor]) -> int:
        """Return the number of classes of a state dict with Vertebra's names, from its rows per class.

        Raises CheckpointError if it has no tensor with rows per class.
        """
        with torch.device("meta"):
            head = self.build().head
        for name, (task, rows) in class_rows_by_tensor(head).items():
            if task == self.task and rows.names is None and f"head.{name}" in tensors:
                count = len(rows.first(tensors[f"head.{name}"])) // rows.repeats // rows.per_class
                return count - (rows.background is not None)
        raise CheckpointError(f"there is no tensor with rows per class of {self.name}")


def load_tensors(model: Model, published: PublishedModel, tensors: Mapping[str, Tensor], source: Any) -> None:
    """Load a state dict of another library into a model that was built from ``published``.

    Every tensor of the model is set and every tensor of the state dict is used once; only counters of batch norms may
    be missing. Raises CheckpointError, naming ``source``, if a tensor is missing, unexpected or of another shape.
    """
    load_converted(model, published.convert(tensors, source), published.name, source)


def load_converted(model: Model, converted: Mapping[str, Tensor], name: str, source: Any) -> None:
    """Load a state dict with Vertebra's names strictly; ``name`` and ``source`` are for the error message."""
    expected = model.state_dict()
    problems = state_dict_problems(converted, expected, may_lack=_is_batch_counter, may_have=_is_batch_counter)
    if problems:
        raise CheckpointError(
            f"these are not weights of {name}: {join_first(problems)} (in Vertebra's names)",
            "check which model these weights belong to",
            file=source,
        )
    model.load_state_dict({key: tensor for key, tensor in converted.items() if key in expected}, strict=False)


def _is_batch_counter(name: str) -> bool:
    return name.endswith(BATCH_COUNTER)
