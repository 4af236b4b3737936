"""The generated shapes as a data set: drawn on first use, kept in the user's cache."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..coco_format import CocoConfig, CocoDataset
from ..dataset import Dataset, DatasetConfig, datasets
from ..report import Policy
from .folder import parameters, write_shapes
from .outlines import CLASS_NAMES
from .scene import ImageSize, SceneConfig, Seed, Split


class ShapesConfig(DatasetConfig):
    """Which pictures are drawn, and which of them these are."""

    name: Literal["shapes"] = "shapes"
    split: Split
    train: int = Field(default=400, gt=0)
    """Pictures in the split for training; ``val`` in the other."""
    val: int = Field(default=100, gt=0)
    seed: Seed = 0
    size: ImageSize = SceneConfig().size
    masks: bool = False
    """Read the objects' masks too."""
    root: Path | None = None
    """Where they are; None is in ``$VERTEBRA_CACHE``, else in ``vertebra`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""

    def classes(self) -> tuple[str, ...]:
        """The names of the shapes."""
        return CLASS_NAMES


@datasets.register("shapes", ShapesConfig)
def build_shapes(policy: Policy, config: ShapesConfig) -> Dataset:
    """One split of the pictures, which are drawn if they are not there yet."""
    scene = SceneConfig(size=config.size)
    root = config.root or _cache_folder(parameters(config.train, config.val, config.seed, scene))
    write_shapes(root, config.train, config.val, config.seed, scene)
    coco = root / "coco"
    annotations = coco / "annotations" / f"instances_{config.split}.json"
    return CocoDataset(policy, CocoConfig(images=coco / config.split, annotations=annotations, masks=config.masks))


def _cache_folder(wanted: dict[str, Any]) -> Path:
    """A folder of its own for each set of parameters."""
    if own := os.environ.get("VERTEBRA_CACHE"):
        cache = Path(own)
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vertebra"
    return cache / f"shapes-{hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:12]}"
