"""The eight classes as polygons, in whole numbers only.

Directions are counted in 1/1024 of a turn, clockwise on the screen; cosines come from a table of integers, so that no
machine's floating point can move a vertex. An outline is a list of rings that are filled even-odd: a second ring is
a hole.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

Ring = Int64[np.ndarray, "n 2"]
"""Vertices ``x y`` of a closed polygon: in ``UNIT`` of a radius before it is placed, in 1/``SUBPIXEL`` pixel after."""

TURN = 1024
UNIT = 1 << 14
SUBPIXEL = 16

# Rounding hides the last bit of the machine's cosine: no value is nearer than 1e-4 to where it would round otherwise.
_HEADINGS = np.array(
    [[round(UNIT * part(2 * math.pi * k / TURN)) for part in (math.cos, math.sin)] for k in range(TURN)], dtype=np.int64
)


def heading(direction: Int64[np.ndarray, " n"] | int) -> Int64[np.ndarray, "*n 2"]:
    """Cosine and sine, in ``UNIT``, of directions in 1/1024 turn."""
    return _HEADINGS[direction % TURN]


def _arc(radius: int, first: int = 0, last: int = TURN, points: int = 64) -> Ring:
    """Points on a circle whose radius is in percent, from one direction towards the other, the last left out."""
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
    turned = [[(x, y), (-y, x), (-x, -y), (y, -x)] for x, y in corner]
    return [np.array([turned[point][quarter] for quarter in range(4) for point in range(3)]) * UNIT // 100]


def _crescent() -> list[Ring]:
    """A disc of radius 112 % without one of 84 % that is moved by 48 %; the directions are where the circles meet."""
    outer, inner = _arc(112, 141, TURN - 141), _arc(84, TURN - 212, 212)
    return [np.concatenate([outer, inner + np.array([UNIT * 48 // 100, 0])])]


def _heart() -> list[Ring]:
    """The well-known curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t."""
    t = np.arange(0, TURN, TURN // 64)
    x = 16 * heading(t)[:, 1] ** 3 // UNIT**2
    y = sum(factor * heading(times * t)[:, 0] for times, factor in ((1, 13), (2, -5), (3, -2), (4, -1)))
    return [np.stack([x, -y - 2 * UNIT], axis=1) * 7 // 100]


_OUTLINES: dict[str, Callable[[], list[Ring]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
}

CLASS_NAMES = tuple(_OUTLINES)


def place_shape(label: int, center: tuple[int, int], radius: int, direction: int) -> list[Ring]:
    """A class's rings, turned and placed; ``center`` (x, y), ``radius`` and the result in 1/16 pixel."""
    turn = np.stack([heading(direction), heading(direction + TURN // 4)])
    rings = _OUTLINES[CLASS_NAMES[label]]()
    return [(ring @ turn * radius + UNIT**2 // 2) // UNIT**2 + np.asarray(center) for ring in rings]
