"""The description of a model that an exported file carries: classes, preprocessing, inputs, outputs and provenance."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...backbones import WeightsOrigin
from ...structures import CheckpointError, Classes

KEY = "vertebra"
"""The name of the metadata entry of a file that holds the description as JSON."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Description:
    """Everything about an exported file that its graph does not say. It is stored in the file as JSON."""

    task: str
    classes: Mapping[str, Classes]
    """The classes of the labels, by task."""
    channels: int
    """The number of channels of the images."""
    resizes: bool
    """Whether images are photos that the graph preprocesses; otherwise they are preprocessed and padded."""
    size: tuple[int, int] | None
    """(height, width) of the images; None: any."""
    batch: int | None
    """The number of images; None: any."""
    size_divisor: int
    """The graph pads images to a multiple of this number of pixels."""
    least_side: int
    """The smallest height and width of images that the tracing of the graph allows; programs of torch insist on it."""
    half: bool
    """Whether the weights are stored in float16."""
    outputs: tuple[str, ...]
    """The names of the outputs, in their order."""
    tensors: tuple[str, ...]
    """The names of those outputs from which the head assembles its predictions."""
    inference: Mapping[str, Any] | None
    """An :class:`~vertebra.inference.InferenceConfig` as JSON values, with the architecture and the preprocessing; None
    for a model that was built from parts."""
    origin: WeightsOrigin | None
    """The origin and the license of the weights; None if nothing is known."""
    versions: Mapping[str, str]
    """The versions of the packages that wrote the file, by package name."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, in their order."""
        return ("images",) if self.resizes else ("images", "sizes")

    def to_json(self) -> str:
        """Return the description as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | None, path: Any) -> "Description":
        """Return the description in the metadata of the file ``path``; raise CheckpointError if there is none."""
        if text is None:
            fix = "give a file that `vertebra export` wrote"
            raise CheckpointError("this file has no description of its model", fix, file=path)
        values = json.loads(text)
        if (number := values.pop("format")) != FORMAT:
            fix = "upgrade vertebra" if number > FORMAT else "export the model again"
            raise CheckpointError(f"has format {number}, this version reads {FORMAT}", fix, file=path)
        size, origin = values["size"], values["origin"]
        return cls(
            **values
            | {
                "classes": {task: Classes.from_json(fields) for task, fields in values["classes"].items()},
                "size": None if size is None else (size[0], size[1]),
                "outputs": tuple(values["outputs"]),
                "tensors": tuple(values["tensors"]),
                "origin": None if origin is None else WeightsOrigin(**origin),
            }
        )
