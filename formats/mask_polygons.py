"""Conversion of masks to polygons along their pixel edges, which rasterise back to exactly the same mask."""

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

Corner = tuple[int, int]

# For each side of a pixel, walked clockwise: its direction (x, y), and the corner of the pixel where it starts.
_SIDES = (((1, 0), (0, 0)), ((0, 1), (1, 0)), ((-1, 0), (1, 1)), ((0, -1), (0, 1)))


def mask_to_polygons(mask: Bool[np.ndarray, "h w"]) -> list[list[int]]:
    """Return the polygons ``[x1, y1, x2, y2, ...]`` of a mask, as in COCO, one for each 4-connected component.

    COCO fills every polygon, so polygons cannot have holes: a component with a hole is cut in two through the hole.
    """
    polygons, pending = [], [(mask.astype(np.uint8), 0, 0)]
    while pending:
        pixels, left, top = pending.pop()
        count, parts, boxes, _ = cv2.connectedComponentsWithStats(pixels, connectivity=4)
        for part in range(1, count):
            x, y, width, height = (int(value) for value in boxes[part, :4])
            window = (parts[y : y + height, x : x + width] == part).astype(np.uint8)
            outer, *holes = _loops(window)
            if holes:
                columns = [column for column, _ in holes[0]]
                cut = (min(columns) + max(columns)) // 2
                pending.append((window[:, :cut], left + x, top + y))
                pending.append((window[:, cut:], left + x + cut, top + y))
            else:
                polygons.append([value for column, row in outer for value in (left + x + column, top + y + row)])
    return polygons


def _loops(pixels: UInt8[np.ndarray, "h w"]) -> list[list[Corner]]:
    """Return the corners of every closed path between inside and outside of a mask, the outermost path first."""
    height, width = pixels.shape
    padded = np.pad(pixels, 1)
    sides: dict[tuple[int, int, int, int], None] = {}  # an ordered set of (start, direction)
    for (dx, dy), (start_x, start_y) in _SIDES:
        outside = padded[1 - dx : 1 - dx + height, 1 + dy : 1 + dy + width] == 0  # the pixel to the left of the side
        for y, x in np.argwhere((pixels == 1) & outside).tolist():
            sides[x + start_x, y + start_y, dx, dy] = None
    loops = []
    while sides:
        side, corners = next(iter(sides)), []
        while side in sides:
            del sides[side]
            x, y, dx, dy = side
            x, y = x + dx, y + dy
            # Try to turn right first: where two pixels touch only at a corner, the path then stays at the same pixel.
            for direction in ((-dy, dx), (dx, dy), (dy, -dx)):
                side = (x, y, *direction)
                if side in sides:
                    break
            if side[2:] != (dx, dy):
                corners.append((x, y))
        loops.append(corners)
    return loops
