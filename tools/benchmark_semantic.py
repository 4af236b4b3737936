"""Evaluation of class maps beside torchvision's reference script, for ``vertebra benchmark-evaluation``."""

import statistics
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vertebra.evaluation import evaluate_semantic, to_semantic_results
from vertebra.ops import label_map
from vertebra.structures import SemanticLogits
from vertebra.tools.benchmark import alternate

SIZE, STRIDE = (520, 696), 8
"""(height, width) of the images, and how many times smaller their logits are."""

Grids = Float[Tensor, "n k _ _"]
Truths = UInt8[Tensor, "n h w"]


def compare_semantic(images: int, classes: int, rounds: int) -> str:
    """Time both evaluations of the same logits in one thread; return the medians and the difference of the mean IoU."""
    torch.set_num_threads(1)
    grids, truths = _generate(images, classes)
    mean_ious = {}

    def ours() -> None:
        mean_ious["ours"] = _our_mean_iou(grids, truths)

    def theirs() -> None:
        mean_ious["theirs"] = _their_mean_iou(grids, truths)

    seconds = alternate([ours, theirs], rounds, torch.device("cpu"))
    our_time, their_time = (1000 * statistics.median(series) / images for series in seconds)
    ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
    return (
        f"semantic, {images} images of {SIZE[0]} x {SIZE[1]} pixels, {classes} classes, torch {torch.__version__}\n"
        f"vertebra {our_time:.1f} ms, torchvision's reference {their_time:.1f} ms per image, ratio {ratio:.2f}\n"
        f"difference of the mean IoU {abs(mean_ious['ours'] - mean_ious['theirs']):.1e}"
    )


def _generate(images: int, classes: int) -> tuple[Grids, Truths]:
    """Return logits and true class maps of the images, with a few ignored pixels; most pixels agree."""
    generator = torch.Generator().manual_seed(0)
    coarse = 3 * torch.randn(images, classes, 9, 12, generator=generator)
    maps = [F.interpolate(logits[None], SIZE, mode="bicubic")[0].argmax(dim=0) for logits in coarse]
    truths = torch.stack(maps).to(torch.uint8)
    truths[torch.rand(truths.shape, generator=generator) < 0.03] = 255
    grids = F.interpolate(coarse, (SIZE[0] // STRIDE, SIZE[1] // STRIDE), mode="bicubic")
    return grids + 0.3 * torch.randn(grids.shape, generator=generator), truths


def _our_mean_iou(grids: Grids, truths: Truths) -> Any:
    names, ids = [f"class {label}" for label in range(grids.shape[1])], range(grids.shape[1])
    rows: list[dict[str, Any]] = []
    for image_id, grid in enumerate(grids):
        prediction = SemanticLogits.from_grid(grid, SIZE, SIZE)
        rows += to_semantic_results(label_map(prediction, SIZE), image_id, ids)
    true_maps = {image_id: true_map.numpy() for image_id, true_map in enumerate(truths)}
    return evaluate_semantic(true_maps, rows, names, ids).summary["mIoU"]


def _their_mean_iou(grids: Grids, truths: Truths) -> float:
    """Return the mean IoU by the steps of torchvision's reference script (``references/segmentation``)."""
    classes = grids.shape[1]
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for grid, true_map in zip(grids, truths, strict=True):
        logits = F.interpolate(grid[None], SIZE, mode="bilinear", align_corners=False)
        counts += _count_pairs(true_map.long().flatten(), logits.argmax(1).flatten(), classes)
    hits = counts.diagonal().double()
    return float((hits / (counts.sum(1) + counts.sum(0) - hits)).mean())


def _count_pairs(true: Int64[Tensor, " p"], predicted: Int64[Tensor, " p"], classes: int) -> Int64[Tensor, "k k"]:
    known = (true >= 0) & (true < classes)
    return torch.bincount(classes * true[known] + predicted[known], minlength=classes**2).reshape(classes, classes)
