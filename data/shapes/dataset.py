"""The generated shapes as a data set: drawn on first use, kept in the user's cache."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...structures import MaskFormat
from ..coco_format import CocoConfig, CocoDataset, CocoSemantic, CocoSemanticConfig
from ..dataset import DATASETS, Dataset, DatasetConfig
from ..report import Policy
from ..voc_format import BACKGROUND
from .folder import parameters, write_shapes
from .scene import ImageSize, SceneConfig, Seed, Split
from .shape_polygons import CLASS_NAMES


class PicturesConfig(DatasetConfig):
    """Which pictures are drawn, and which of them these are."""

    split: Split
    train: int = Field(default=400, gt=0)
    """Pictures in the split for training; ``val`` in the other."""
    val: int = Field(default=100, gt=0)
    seed: Seed = 0
    size: ImageSize = SceneConfig().size
    root: Path | None = None
    """Where they are; None is in ``$VERTEBRA_CACHE``, else in ``vertebra`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""

    def draw(self) -> tuple[Path, Path]:
        """The folder of the split's pictures and its file of annotations, which are drawn if they are not there yet."""
        scene = SceneConfig(size=self.size)
        root = self.root or _cache_folder(parameters(self.train, self.val, self.seed, scene))
        write_shapes(root, self.train, self.val, self.seed, scene)
        return root / "coco" / self.split, root / "coco" / "annotations" / f"instances_{self.split}.json"


class ShapesConfig(PicturesConfig):
    """The pictures with their objects."""

    name: Literal["shapes"] = "shapes"
    masks: bool = False
    """Read the objects' masks too."""
    mask_format: MaskFormat = "bitmaps"
    """What they come to a head as; polygons are for a mask branch with ``truth="polygons"``."""

    def classes(self) -> tuple[str, ...]:
        """The names of the shapes."""
        return CLASS_NAMES


@DATASETS.register("shapes", ShapesConfig)
def build_shapes(policy: Policy, config: ShapesConfig) -> Dataset:
    """Boxes, and masks if they are wanted."""
    images, annotations = config.draw()
    files = CocoConfig(images=images, annotations=annotations, masks=config.masks, mask_format=config.mask_format)
    return CocoDataset(policy, files)


class ShapesSemanticConfig(PicturesConfig):
    """The pictures with a class for every pixel."""

    name: Literal["shapes_semantic"] = "shapes_semantic"

    def classes(self) -> tuple[str, ...]:
        """The names of the shapes, after the background."""
        return (BACKGROUND, *CLASS_NAMES)


@DATASETS.register("shapes_semantic", ShapesSemanticConfig)
def build_shapes_semantic(policy: Policy, config: ShapesSemanticConfig) -> Dataset:
    """The map of classes, 0 where no shape is."""
    images, annotations = config.draw()
    return CocoSemantic(policy, CocoSemanticConfig(images=images, annotations=annotations, overlap="smallest"))


def _cache_folder(wanted: dict[str, Any]) -> Path:
    """A folder of its own for each set of parameters."""
    if own := os.environ.get("VERTEBRA_CACHE"):
        cache = Path(own)
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vertebra"
    return cache / f"shapes-{hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:12]}"
