"""The polygons of the eight classes of shapes, computed in integers.

Directions are in 1/1024 of a turn, clockwise on the screen. Cosines are taken from a table of integers, so that the
vertices do not depend on the floating-point arithmetic of the machine. A shape is a list of rings, filled by the
even-odd rule, so that a second ring is a hole.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

Ring = Int64[np.ndarray, "n 2"]
"""Vertices (x, y) of a closed polygon, in units of 1/``UNIT`` of the shape's radius or, after the shape was placed in
an image, of 1/``SUBPIXEL`` pixel."""

TURN = 1024
UNIT = 1 << 14
SUBPIXEL = 16

# Rounding removes differences between machines, since no value is within 1e-4 of a rounding threshold.
_HEADINGS = np.array(
    [[round(UNIT * part(2 * math.pi * k / TURN)) for part in (math.cos, math.sin)] for k in range(TURN)], dtype=np.int64
)


def heading(direction: Int64[np.ndarray, " n"] | int) -> Int64[np.ndarray, "*n 2"]:
    """Return the (cosine, sine), in units of 1/``UNIT``, of directions in 1/1024 of a turn."""
    return _HEADINGS[direction % TURN]


def _arc(radius: int, first: int = 0, last: int = TURN, points: int = 64) -> Ring:
    """Return points on a circle with a radius in percent, from direction ``first`` to ``last`` (exclusive)."""
    return heading(first + (last - first) * np.arange(points) // points) * radius // 100


def _circle() -> list[Ring]:
    return [_arc(92)]


def _square() -> list[Ring]:
    return [_arc(116, points=4)]


def _triangle() -> list[Ring]:
    return [_arc(126, points=3)]


def _star() -> list[Ring]:
    tips = np.where(np.arange(10) % 2 == 0, 124, 54)
    return [_arc(100, points=10) * tips[:, None] // 100]


def _ring() -> list[Ring]:
    return [_arc(100), _arc(54)]


def _cross() -> list[Ring]:
    long, thick = 104, 36
    corner = [(long, -thick), (long, thick), (thick, thick)]
    rotated = [[(x, y), (-y, x), (-x, -y), (y, -x)] for x, y in corner]
    return [np.array([rotated[point][quarter] for quarter in range(4) for point in range(3)]) * UNIT // 100]


def _crescent() -> list[Ring]:
    """Return a disc of radius 112 % minus a disc of radius 84 % that is shifted by 48 %.

    The arcs begin and end at the points where the two circles intersect.
    """
    outer, inner = _arc(112, 141, TURN - 141), _arc(84, TURN - 212, 212)
    return [np.concatenate([outer, inner + np.array([UNIT * 48 // 100, 0])])]


def _heart() -> list[Ring]:
    """Return the curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t."""
    t = np.arange(0, TURN, TURN // 64)
    x = 16 * heading(t)[:, 1] ** 3 // UNIT**2
    y = sum(factor * heading(times * t)[:, 0] for times, factor in ((1, 13), (2, -5), (3, -2), (4, -1)))
    return [np.stack([x, -y - 2 * UNIT], axis=1) * 7 // 100]


_SHAPES: dict[str, Callable[[], list[Ring]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
}

CLASS_NAMES = tuple(_SHAPES)


def place_shape(label: int, center: tuple[int, int], radius: int, direction: int) -> list[Ring]:
    """Return the rings of a class's shape, rotated to ``direction``, scaled to ``radius`` and moved to ``center``.

    ``center`` (x, y), ``radius`` and the result are in units of 1/16 pixel.
    """
    return place_rings(_SHAPES[CLASS_NAMES[label]](), center, radius, direction)


def place_rings(rings: list[Ring], center: tuple[int, int], radius: int, direction: int) -> list[Ring]:
    """Place rings, whose unit is 1/``UNIT`` of a shape's radius, in an image as :func:`place_shape` does."""
    rotation = np.stack([heading(direction), heading(direction + TURN // 4)])
    return [(ring @ rotation * radius + UNIT**2 // 2) // UNIT**2 + np.asarray(center) for ring in rings]
