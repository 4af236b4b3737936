"""Label maps from logits: against resizing the logits of all classes at once, and by hand."""

import pytest
import torch
import torch.nn.functional as F

from vertebra.ops import class_logits, full_size_logits, label_map, pad_maps, resize_maps
from vertebra.structures import IGNORE, LogitWindow, SemanticLogits

from ..helpers.memory import peak_bytes


def label_map_of_all_classes(
    grid: torch.Tensor, padded: tuple[int, int], size: tuple[int, int], final: tuple[int, int]
):
    """Return the map from the logits of all classes at once: resized to the padded image, cropped, and resized
    again."""
    logits = F.interpolate(grid[None], padded, mode="bilinear", align_corners=False)[:, :, : size[0], : size[1]]
    if size == final:
        return logits[0]
    return F.interpolate(logits, final, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("classes", [1, 2, 3, 8, 9, 11, 19, 21])
@pytest.mark.parametrize("final", [(61, 90), (33, 40), (122, 181)])
def test_label_map_in_chunks_of_classes_equals_all_at_once(classes, final):
    """Oracle: torch, to the last bit: resize all logits twice, then argmax."""
    grid = torch.randn(classes, 16, 24, generator=torch.Generator().manual_seed(classes))
    prediction = SemanticLogits.from_grid(grid, (64, 96), (61, 90))
    labels = label_map(prediction, final)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), label_map_of_all_classes(grid, (64, 96), (61, 90), final).argmax(dim=0))
    assert torch.equal(full_size_logits(prediction), label_map_of_all_classes(grid, (64, 96), (61, 90), (61, 90)))


@pytest.mark.parametrize("classes", [3, 8, 11, 19, 20])
@pytest.mark.parametrize(("grid", "stride"), [((16, 24), 4), ((33, 50), 8), ((7, 9), 8)])
def test_resized_logits_in_chunks_of_classes_equal_all_at_once(classes, grid, stride):
    """Oracle: torch's resizing of all classes at once, for a batch of two images, bit for bit."""
    grids = torch.randn(2, classes, *grid, generator=torch.Generator().manual_seed(0))
    height, width = grid[0] * stride, grid[1] * stride
    expected = F.interpolate(grids, (height, width), mode="bilinear", align_corners=False)[1, :, : height - 3]
    prediction = SemanticLogits.from_grid(grids[1], (height, width), (height - 3, width))
    for start in range(0, classes, 8):
        assert torch.equal(class_logits(prediction, start, start + 8), expected[start : start + 8])


def test_full_size_logits_are_not_resized():
    """By hand: logits of the image's size."""
    logits = torch.randn(4, 5, 6)
    prediction = SemanticLogits.from_pixels(logits)
    assert torch.equal(full_size_logits(prediction), logits)
    assert torch.equal(label_map(prediction, (5, 6)).long(), logits.argmax(dim=0))
    assert resize_maps(logits[None], (5, 6)).data_ptr() == logits.data_ptr()


def test_windows_are_averaged_where_they_overlap():
    """By hand: two windows of constant logits with two columns in common; both classes of each."""
    corners = {(0, 0): 2.0, (0, 2): 4.0}
    windows = tuple(
        LogitWindow(torch.full((2, 4, 4), value), (4, 4), (4, 4), corner) for corner, value in corners.items()
    )
    logits = full_size_logits(SemanticLogits(windows, (4, 6), (4, 6)))
    assert logits[:, 0].tolist() == [[2, 2, 3, 3, 4, 4]] * 2


def test_label_map_memory_does_not_grow_with_classes():
    """Law: the peak of memory does not grow with the number of classes."""
    peaks = []
    for classes in (16, 160):
        prediction = SemanticLogits.from_grid(torch.zeros(classes, 4, 4), (256, 256), (250, 250))
        peaks.append(peak_bytes(lambda prediction=prediction: label_map(prediction, (300, 300))))
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 24 * 4 * 300 * 300  # of 160 full-size maps of floats


def test_first_of_equal_logits_wins():
    """Law of argmax, also across the chunks in which classes are resized."""
    assert label_map(SemanticLogits.from_pixels(torch.ones(20, 3, 3)), (3, 3)).eq(0).all()
    logits = torch.zeros(20, 3, 3)
    logits[[9, 17]] = 1.0
    assert label_map(SemanticLogits.from_pixels(logits), (6, 6)).eq(9).all()


def test_logits_without_classes_are_refused():
    """By hand: ValueError."""
    with pytest.raises(ValueError, match="at least one class"):
        label_map(SemanticLogits.from_pixels(torch.zeros(0, 3, 3)), (3, 3))


def test_padding_is_ignored():
    """By hand: two maps of different sizes in one tensor."""
    maps = [torch.zeros(2, 3, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64)]
    expected = torch.tensor([[[0, 0, 0, IGNORE]] * 2, [[1, IGNORE, IGNORE, IGNORE], [IGNORE] * 4]])
    assert torch.equal(pad_maps(maps, (2, 4)), expected)
