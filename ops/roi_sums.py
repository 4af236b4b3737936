"""RoIAlign on a CPU, as weighted sums of cells.

RoIAlign is linear in the features, and its weights are products of weights along y and along x. So each bin of a
region is the weighted sum of a window of cells, which ``embedding_bag`` computes for all channels of a cell at a time.
On a CPU this is several times as fast as torchvision's operator, which computes one channel after another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from .roi_config import RoIAlignConfig


def pool_as_sums(
    features: Sequence[Float[Tensor, "b c _ _"]],
    strides: Sequence[int],
    rois: Float[Tensor, "n 5"],
    levels: Int64[Tensor, " n"],
    config: RoIAlignConfig,
) -> Float[Tensor, "n c s s"]:
    """Pool the features of each region from its level.

    A row of ``rois`` is (image index, x1, y1, x2, y2), and ``levels`` has the index of its level in ``features``.
    """
    batch, channels = features[0].shape[:2]
    if not len(rois):
        return features[0].new_zeros(0, channels, config.size, config.size)
    dtype = torch.promote_types(features[0].dtype, torch.float32)
    cells = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in features]).to(dtype)
    sizes = torch.tensor([level.shape[2:] for level in features])
    level_lengths = batch * sizes.prod(dim=1)
    heights, widths = sizes[levels].unbind(dim=1)
    first_cells = (level_lengths.cumsum(0) - level_lengths)[levels] + rois[:, 0].long() * heights * widths
    scales = 1.0 / torch.tensor(strides, dtype=rois.dtype)[levels]
    left, top, right, bottom = (rois[:, 1:] * scales[:, None] - (0.5 if config.aligned else 0.0)).unbind(dim=1)
    vertical = _AxisSamples.of(top, bottom, heights, config)
    horizontal = _AxisSamples.of(left, right, widths, config)
    windows = _windows_of_bins(vertical, horizontal, first_cells, widths, config.size)
    sums = F.embedding_bag(
        windows.cells, cells, windows.starts, mode="sum", per_sample_weights=windows.weights.to(dtype)
    )
    bins = sums.view(len(rois), config.size, config.size, channels)[windows.order.argsort()]
    return bins.to(features[0].dtype).permute(0, 3, 1, 2)


class _AxisSamples(NamedTuple):
    """The sampling points of regions along one axis. Positions are in cells of the region's level."""

    start: Float[Tensor, " n"]
    bin_length: Float[Tensor, " n"]
    num_samples: Float[Tensor, " n"]
    """The number of samples in a bin."""
    last_cell: Float[Tensor, " n"]
    """The index of the last cell of the level."""

    @classmethod
    def of(
        cls, start: Float[Tensor, " n"], end: Float[Tensor, " n"], cells: Int64[Tensor, " n"], config: RoIAlignConfig
    ) -> "_AxisSamples":
        """Divide regions from ``start`` to ``end`` into bins; ``cells`` is the number of cells of each level."""
        length = end - start if config.aligned else (end - start).clamp(min=1)
        bin_length = length / config.size
        count = bin_length.ceil()
        if config.sampling_ratio:
            count = torch.full_like(count, config.sampling_ratio)
        return cls(start, bin_length, count, (cells - 1).to(start.dtype))

    def of_regions(self, rows: Int64[Tensor, " m"]) -> "_AxisSamples":
        """Return the samples of the regions with these indices."""
        return _AxisSamples(self.start[rows], self.bin_length[rows], self.num_samples[rows], self.last_cell[rows])

    def window_sizes(self, size: int) -> Int64[Tensor, " n"]:
        """Return the number of cells along this axis that the widest-reaching of each region's ``size`` bins reads."""
        extremes = torch.stack([torch.zeros_like(self.num_samples), self.num_samples - 1], dim=1)
        first, last = self._clamp(self._positions(extremes, size)).floor().unbind(dim=2)
        sizes = 2 + (last - first).amax(dim=1).long().clamp(min=0)
        # Large windows are rare. Rounding them up to multiples of 4 keeps the number of different sizes small.
        return torch.where(sizes > 6, (sizes + 3) // 4 * 4, sizes)

    def bins(
        self, size: int, window: int
    ) -> tuple[Int64[Tensor, "n {size} {window}"], Float[Tensor, "n {size} {window}"]]:
        """Return ``window`` cells for each of the ``size`` bins of a region, and their weights in the bin.

        The weights are 0 for cells that the bin does not read.
        """
        count = self.num_samples[:, None, None]
        samples = torch.arange(max(1, int(count.max()))).to(count.dtype).expand(len(count), -1)
        positions = self._positions(samples, size)
        # As in torchvision, samples more than a cell outside the level are 0, and the others are moved to its border.
        is_read = (samples[:, None] < count) & (positions >= -1) & (positions <= self.last_cell[:, None, None] + 1)
        positions = self._clamp(positions)
        cells = positions[:, :, :1].floor() + torch.arange(window)
        weights = (1 - (positions[:, :, :, None] - cells[:, :, None]).abs()).clamp(min=0) * is_read[:, :, :, None]
        return self._clamp(cells).long(), weights.sum(dim=2) / count.clamp(min=1)

    def _positions(self, samples: Float[Tensor, "n k"], size: int) -> Float[Tensor, "n {size} k"]:
        """Return the positions of the samples with these numbers in each of the ``size`` bins.

        The order of the operations is that of torchvision, so that positions are rounded in the same way.
        """
        within = (samples + 0.5) * self.bin_length[:, None] / self.num_samples[:, None].clamp(min=1)
        bins = self.start[:, None] + torch.arange(size) * self.bin_length[:, None]
        return bins[:, :, None] + within[:, None]

    def _clamp(self, positions: Float[Tensor, "n s k"]) -> Float[Tensor, "n s k"]:
        return torch.minimum(positions.clamp(min=0), self.last_cell[:, None, None])


class _Windows(NamedTuple):
    """The cells that all bins read, one bin after another."""

    cells: Int64[Tensor, " c"]
    weights: Float[Tensor, " c"]
    starts: Int64[Tensor, " b"]
    """The index of the first cell of each bin."""
    order: Int64[Tensor, " n"]
    """The region that each block of ``size * size`` bins belongs to."""


def _windows_of_bins(
    vertical: _AxisSamples,
    horizontal: _AxisSamples,
    first_cells: Int64[Tensor, " n"],
    widths: Int64[Tensor, " n"],
    size: int,
) -> _Windows:
    """Combine the windows along both axes; ``size`` is the number of bins per side.

    ``first_cells`` is the index of the first cell of each region's level and image, ``widths`` the width of its level.
    """
    cells, weights, lengths, order = [], [], [], []
    # Regions with windows of the same size are computed together. One size for all would have to be that of the
    # largest windows, those of long regions, which have many more cells than most.
    window_sizes = torch.stack([vertical.window_sizes(size), horizontal.window_sizes(size)])
    groups, group_of_region = window_sizes.unique(dim=1, return_inverse=True)
    for group, (rows, columns) in enumerate(groups.T.tolist()):
        members = (group_of_region == group).nonzero()[:, 0]
        y, y_weights = vertical.of_regions(members).bins(size, rows)
        x, x_weights = horizontal.of_regions(members).bins(size, columns)
        y = first_cells[members, None, None] + y * widths[members, None, None]
        cells.append((y[:, :, None, :, None] + x[:, None, :, None, :]).flatten())
        weights.append((y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]).flatten())
        lengths.append(torch.full((len(members) * size**2,), rows * columns))
        order.append(members)
    ends = torch.cat(lengths).cumsum(0)
    return _Windows(torch.cat(cells), torch.cat(weights), ends - torch.cat(lengths), torch.cat(order))
