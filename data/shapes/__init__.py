"""Generated images of eight shapes with pixel-exact annotations, for tests and first steps without a download.

The annotations include classes, masks and boxes of the visible parts of objects, crowds, and images without objects.
"""

from .crops import ShapeCropsConfig, draw_crop
from .dataset import (
    ShapesConfig,
    ShapesPanopticConfig,
    ShapesSemanticConfig,
    build_shapes,
    build_shapes_panoptic,
    build_shapes_semantic,
)
from .folder import write_shapes
from .outlines import Outlines, OutlinesConfig, draw_outline_image
from .scene import Scene, SceneConfig, SceneObject, draw_scene
from .shape_polygons import CLASS_NAMES
from .stuff import STUFF_NAMES

__all__ = [
    "CLASS_NAMES",
    "STUFF_NAMES",
    "Outlines",
    "OutlinesConfig",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "ShapeCropsConfig",
    "ShapesConfig",
    "ShapesPanopticConfig",
    "ShapesSemanticConfig",
    "build_shapes",
    "build_shapes_panoptic",
    "build_shapes_semantic",
    "draw_crop",
    "draw_outline_image",
    "draw_scene",
    "write_shapes",
]
