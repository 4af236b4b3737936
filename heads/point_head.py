"""The point head of PointRend: an MLP that predicts logits at points (1912.08193 section 3.3)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ..structures import Config, UnitInterval
from .class_rows import ClassRows


class PointHeadConfig(Config):
    """The options of a point head and of its points. The defaults are those of the paper and detectron2 for masks."""

    channels: tuple[PositiveInt, ...] = Field(default=(256, 256, 256), min_length=1)
    """Widths of the layers before the logits."""
    coarse_in_every_layer: bool = True
    """Append the coarse logits to the input of every layer. False: only of the first (detectron2's semantic head)."""
    points: PositiveInt = 14 * 14
    """Number of training points per region (masks) or per image (semantic maps)."""
    oversampling: float = Field(default=3.0, ge=1)
    """Number of random candidates per training point, from which the most uncertain are chosen."""
    importance: UnitInterval = 0.75
    """Fraction of the training points that are chosen by uncertainty; the others are drawn uniformly."""
    subdivisions: NonNegativeInt = 5
    """Number of subdivision steps in prediction, each of which doubles the resolution."""
    subdivision_points: PositiveInt = 28 * 28
    """Number of cells that the point head recomputes in each subdivision step: the most uncertain ones."""

    @property
    def num_drawn(self) -> int:
        """The number of random points to draw: the candidates and the uniform points."""
        return int(self.points * self.oversampling) + self.num_uniform

    @property
    def num_uncertain(self) -> int:
        """The number of training points that are chosen by uncertainty."""
        return int(self.importance * self.points)

    @property
    def num_uniform(self) -> int:
        """The number of training points that are drawn uniformly."""
        return self.points - self.num_uncertain


class PointHead(nn.Module):
    """An MLP, shared by all points, that predicts the class logits at a point from its fine features and coarse logits.

    ``class_columns`` maps the name of each layer that reads coarse logits to the number of input channels before them.
    """

    def __init__(self, channels: int, num_classes: int, config: PointHeadConfig) -> None:
        super().__init__()
        self.config = config
        fine = [channels, *config.channels]
        later = num_classes if config.coarse_in_every_layer else 0
        coarse = [num_classes, *[later] * len(config.channels)]
        inputs = [width + count for width, count in zip(fine, coarse, strict=True)]
        outputs = [*config.channels, num_classes]
        layers = [nn.Conv1d(*pair, 1) for pair in zip(inputs, outputs, strict=True)]
        self.layers, self.logits = nn.ModuleList(layers[:-1]), layers[-1]
        names = [*(f"layers.{index}" for index in range(len(self.layers))), "logits"]
        self.class_rows = {"logits": ClassRows()}
        self.class_columns = {name: width for name, width, count in zip(names, fine, coarse, strict=True) if count}
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.normal_(self.logits.weight, std=0.001)

    def forward(self, fine: Float[Tensor, "n c p"], coarse: Float[Tensor, "n k p"]) -> Float[Tensor, "n k p"]:
        """Return the class logits at points, given the fine features and the coarse logits there."""
        hidden = torch.cat([fine, coarse], dim=1)
        for layer in self.layers:
            hidden = F.relu(layer(hidden))
            if self.config.coarse_in_every_layer:
                hidden = torch.cat([hidden, coarse], dim=1)
        return self.logits(hidden).float()
