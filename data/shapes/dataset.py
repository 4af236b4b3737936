"""Data sets of generated shapes, whose files are written to the user's cache at first use."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ...structures import MaskFormat
from ..cache import cache_folder, short_digest
from ..coco_format import (
    CocoConfig,
    CocoDataset,
    CocoPanoptic,
    CocoPanopticConfig,
    CocoSemantic,
    CocoSemanticConfig,
)
from ..dataset import DATASETS, Dataset, DatasetConfig
from ..report import Policy
from ..voc_format import BACKGROUND
from .folder import generation_parameters, write_shapes
from .scene import ImageSize, SceneConfig, Seed, Split
from .shape_polygons import CLASS_NAMES
from .stuff import STUFF_NAMES


class GeneratedImagesConfig(DatasetConfig):
    """Base class of the configs of data sets of generated images."""

    split: Split
    train: int = Field(default=400, gt=0)
    """The number of images of the training split."""
    val: int = Field(default=100, gt=0)
    """The number of images of the validation split."""
    seed: Seed = 0
    size: ImageSize = SceneConfig().size
    """The mean height and width in pixels; both vary from 4/5 to 6/5 of it."""
    root: Path | None = None
    """The folder of the files; None is a folder in ``$VERTEBRA_CACHE`` or, if this is unset, in ``vertebra`` in
    ``$XDG_CACHE_HOME`` or ``~/.cache``."""

    def write_files(self, stuff: bool = False) -> tuple[Path, Path]:
        """Write the files unless they exist; return the image folder and the COCO annotation file of the split.

        With ``stuff``, backgrounds are drawn as stuff classes, and the annotation file is in the panoptic format.
        """
        scene = SceneConfig(size=self.size, stuff=stuff)
        prefix = "panoptic" if stuff else "instances"
        parameters = generation_parameters(self.train, self.val, self.seed, scene)
        root = self.root or cache_folder() / f"shapes-{short_digest(parameters)}"
        write_shapes(root, self.train, self.val, self.seed, scene)
        return root / "coco" / self.split, root / "coco" / "annotations" / f"{prefix}_{self.split}.json"


class ShapesConfig(GeneratedImagesConfig):
    """The options of the data set ``shapes``: generated images with boxes and, optionally, masks."""

    name: Literal["shapes"] = "shapes"
    masks: bool = False
    """Whether to read the masks of objects."""
    mask_format: MaskFormat = "bitmaps"
    """The form in which a head receives the masks; polygons are for a mask branch with ``truth="polygons"``."""

    def classes(self) -> tuple[str, ...]:
        """Return the names of the shapes."""
        return CLASS_NAMES


@DATASETS.register("shapes", ShapesConfig)
def build_shapes(policy: Policy, config: ShapesConfig) -> Dataset:
    """Open the generated shapes as a detection data set."""
    images, annotations = config.write_files()
    files = CocoConfig(images=images, annotations=annotations, masks=config.masks, mask_format=config.mask_format)
    return CocoDataset(policy, files)


class ShapesSemanticConfig(GeneratedImagesConfig):
    """The options of the data set ``shapes_semantic``: generated images with a class for every pixel."""

    name: Literal["shapes_semantic"] = "shapes_semantic"

    def classes(self) -> tuple[str, ...]:
        """Return the background and the names of the shapes."""
        return (BACKGROUND, *CLASS_NAMES)


@DATASETS.register("shapes_semantic", ShapesSemanticConfig)
def build_shapes_semantic(policy: Policy, config: ShapesSemanticConfig) -> Dataset:
    """Open the generated shapes as a semantic segmentation data set; the background is class 0."""
    images, annotations = config.write_files()
    return CocoSemantic(policy, CocoSemanticConfig(images=images, annotations=annotations, overlap="smallest"))


class ShapesPanopticConfig(GeneratedImagesConfig):
    """The options of the data set ``shapes_panoptic``: generated images of shapes on areas of four textures."""

    name: Literal["shapes_panoptic"] = "shapes_panoptic"
    semantic_things: Literal["one", "each"] = "one"
    """Whether the class map has one class for all things, or one for each thing class."""

    def classes(self) -> dict[str, tuple[str, ...]]:
        """Return the class names by task."""
        files = CocoPanopticConfig(
            images=Path(), annotations=Path(), things=CLASS_NAMES, stuff=STUFF_NAMES,
            semantic_things=self.semantic_things,
        )  # fmt: skip
        return files.classes()


@DATASETS.register("shapes_panoptic", ShapesPanopticConfig)
def build_shapes_panoptic(policy: Policy, config: ShapesPanopticConfig) -> Dataset:
    """Open the generated shapes on textures as a panoptic data set."""
    images, annotations = config.write_files(stuff=True)
    return CocoPanoptic(
        policy, CocoPanopticConfig(images=images, annotations=annotations, semantic_things=config.semantic_things)
    )
