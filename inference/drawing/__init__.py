"""Drawing of predictions into images: boxes, masks, maps and text, in sizes that follow the image."""

from .boxes import draw_boxes, draw_keypoints
from .masks import ColoredMask, blend_masks, draw_classes, draw_panoptic
from .sheets import draw_lines, side_by_side, write_image
from .style import Color, DrawingConfig, Picture, class_color
from .text import draw_text, render_text

__all__ = [
    "Color",
    "ColoredMask",
    "DrawingConfig",
    "Picture",
    "blend_masks",
    "class_color",
    "draw_boxes",
    "draw_classes",
    "draw_keypoints",
    "draw_lines",
    "draw_panoptic",
    "draw_text",
    "render_text",
    "side_by_side",
    "write_image",
]
