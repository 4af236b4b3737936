"""Outlines of the shapes that labeling tools draw, as polygons ``[x1, y1, x2, y2, ...]`` in pixels."""

import math

FEWEST_POINTS = 12
"""The minimum number of points of an ellipse, as in LabelMe's own conversion to COCO."""
MOST_POINTS = 1000


def ellipse_outline(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> list[float]:
    """Return the polygon of an ellipse around (x, y), turned clockwise, whose edges are within a pixel of it."""
    radius = max(abs(radius_x), abs(radius_y), 1.0)
    angle = max(math.acos(1 - min(1 / radius, 1)), math.pi / MOST_POINTS)  # half of an edge, seen from the center
    count = max(math.ceil(math.pi / angle), FEWEST_POINTS)
    angles = [2 * math.pi * index / count for index in range(count)]
    points = [(radius_x * math.cos(angle), radius_y * math.sin(angle)) for angle in angles]
    return _turned(points, x, y, degrees)


def rectangle_outline(
    x1: float, y1: float, x2: float, y2: float, degrees: float = 0.0, pivot: tuple[float, float] | None = None
) -> list[float]:
    """Return the polygon of a rectangle, turned clockwise around a point, by default its center."""
    x, y = ((x1 + x2) / 2, (y1 + y2) / 2) if pivot is None else pivot
    corners = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    return _turned([(corner_x - x, corner_y - y) for corner_x, corner_y in corners], x, y, degrees)


def _turned(points: list[tuple[float, float]], x: float, y: float, degrees: float) -> list[float]:
    """Return points around (0, 0) turned clockwise and moved to (x, y)."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if degrees % 360 == 0:
        cosine, sine = 1.0, 0.0
    return [
        value
        for dx, dy in points
        for value in (x + dx * cosine - dy * sine, y + dx * sine + dy * cosine)
    ]  # fmt: skip
