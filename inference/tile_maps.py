"""Merging of the class logits of overlapping tiles into a class map, row of tiles by row of tiles.

Where tiles overlap, their logits are averaged with weights that fall linearly to the border of a tile, where a network
has seen the least context. Logits stay at the resolution of the head, those of two rows of tiles at a time; resizing
them and applying the weights are products with one matrix for the rows and one for the columns.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..ops import CLASSES_AT_ONCE, full_size_logits, resize_maps
from ..structures import LogitWindow, SemanticLogits


def merge_maps(
    rows: Iterable[Sequence[SemanticLogits]],
    starts: tuple[Sequence[int], Sequence[int]],
    tile_size: tuple[int, int],
    size: tuple[int, int],
) -> UInt8[Tensor, "h w"]:
    """Return the class map of an image of ``size`` (height, width) from the logits of its tiles, row by row.

    ``starts`` are the tops of the rows of tiles and the lefts of their columns. A row is read when the one before it is
    finished.
    """
    down, across = (_Axis(*values) for values in zip(starts, tile_size, size, strict=True))
    windows: dict[int, list[LogitWindow]] = {}
    labels = torch.zeros(size, dtype=torch.uint8)
    for number, row in enumerate(rows):
        windows[number] = [_as_window(logits) for logits in row]
        for top, bottom, lines in down.pieces(*down.finished_by(number)):
            for left, right, columns in across.pieces(0, size[1]):
                tiles = (
                    (
                        down.resizing(windows[line][column], 0, line, (top, bottom)),
                        windows[line][column].grid.float(),
                        across.resizing(windows[line][column], 1, column, (left, right)),
                    )
                    for line in lines
                    for column in columns
                )
                labels[top:bottom, left:right] = _best_classes(*tiles)
        windows = {line: kept for line, kept in windows.items() if down.end(line) > down.finished_by(number)[1]}
    return labels


class _Axis:
    """The tiles along one side of an image, with their weights."""

    def __init__(self, starts: Sequence[int], tile: int, side: int) -> None:
        self.starts, self.tile, self.side = starts, tile, side
        total, ramps = torch.zeros(side), []
        for number, start in enumerate(starts):
            ramp = torch.ones(tile)
            if number:
                count = starts[number - 1] + tile - start  # pixels that overlap with the tile before
                ramp[:count] = (torch.arange(count) + 0.5) / count
            if number + 1 < len(starts):
                count = start + tile - starts[number + 1]
                ramp[tile - count :] = torch.minimum(ramp[tile - count :], (torch.arange(count) + 0.5).flip(0) / count)
            total[start : start + tile] += ramp
            ramps.append(ramp)
        self.weights = [ramp / total[start : start + tile] for start, ramp in zip(starts, ramps, strict=True)]

    def end(self, number: int) -> int:
        """Return where a tile ends."""
        return self.starts[number] + self.tile

    def finished_by(self, number: int) -> tuple[int, int]:
        """Return the first and the last (exclusive) pixel that a tile finishes: later tiles begin after them."""
        return self.starts[number], self.side if number + 1 == len(self.starts) else self.starts[number + 1]

    def pieces(self, first: int, last: int) -> Iterator[tuple[int, int, list[int]]]:
        """Yield the pieces (first, last, tiles) between two pixels in each of which the same tiles overlap."""
        borders = {first, last, *self.starts, *(self.end(number) for number in range(len(self.starts)))}
        borders = sorted(border for border in borders if first <= border <= last)
        for start, stop in itertools.pairwise(borders):
            covering = [number for number, begin in enumerate(self.starts) if begin <= start < begin + self.tile]
            yield start, stop, covering

    def resizing(self, window: LogitWindow, axis: int, number: int, piece: tuple[int, int]) -> Float[Tensor, "n g"]:
        """Return the matrix that resizes a tile's logits along this axis to the pixels of a piece, with its weights."""
        cells = window.grid.shape[1 + axis]
        line = torch.eye(cells, device=window.grid.device)[None, :, :, None]  # a map of each cell
        padded = resize_maps(line, (window.padded_size[axis], 1), window.align_corners)[:, :, : window.size[axis]]
        matrix = resize_maps(padded, (self.tile, 1))[0, :, :, 0].T
        inside = slice(piece[0] - self.starts[number], piece[1] - self.starts[number])
        return matrix[inside] * self.weights[number][inside, None].to(matrix.device)


def _as_window(logits: SemanticLogits) -> LogitWindow:
    """Return the logits of an image as a single window; several windows are averaged at full resolution."""
    window, *others = logits.windows
    return SemanticLogits.from_pixels(full_size_logits(logits)).windows[0] if others else window


_Part = tuple[Float[Tensor, "h _"], Float[Tensor, "k _ _"], Float[Tensor, "w _"]]


def _best_classes(first: _Part, *others: _Part) -> UInt8[Tensor, "h w"]:
    """Return the class with the highest sum of logits of the tiles, each resized by its matrices for rows and columns.

    Ties go to the lowest class.
    """
    down, grid, across = first
    best = grid.new_full((len(down), len(across)), -math.inf)
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for start in range(0, len(grid), CLASSES_AT_ONCE):
        stop = start + CLASSES_AT_ONCE
        logits = down @ grid[start:stop] @ across.T
        for other_down, other_grid, other_across in others:
            logits += other_down @ other_grid[start:stop] @ other_across.T
        for label, candidates in enumerate(logits, start):
            better = candidates > best
            torch.maximum(best, candidates, out=best)
            labels[better] = label
    return labels.cpu()
