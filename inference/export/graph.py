"""The graph that is exported: uint8 images in, named tensors out, with everything between them."""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from ...heads import (
    Head,
    KeypointBranch,
    MaskBranch,
    MultiHead,
    PanopticFPNHead,
    PointRendBranch,
    RCNNHead,
    require_tensors,
)
from ...heads.semantic import SemanticHead
from ...models import Model
from ...ops import clip_boxes, decode_keypoints, heatmap_scores, paste_grids, resize_maps
from ...structures import ImagePreprocessing, Images
from .resize import preprocess_in_graph

FINISHED = ("masks", "keypoints", "classes")
"""The last part of the names of outputs that the head does not need to assemble its predictions."""


def is_finished(name: str) -> bool:
    """Return whether the head does not need an output to assemble its predictions."""
    return name.split(".")[-1] in FINISHED


class ExportGraph(nn.Module):
    """A model as a function of tensors, from uint8 images to the tensors of its predictions.

    Without ``resize``, the images are preprocessed ones, padded at the bottom and right, and ``sizes`` are their
    (height, width). With it they are photos of one size, which the graph preprocesses; boxes, masks and class maps are
    then in pixels of the photos. All other outputs are those of ``Head.predict_tensors``.
    """

    def __init__(self, model: Model, resize: ImagePreprocessing | None = None) -> None:
        super().__init__()
        self.model, self.resize = model, resize

    def forward(self, images: UInt8[Tensor, "b c h w"], sizes: Int64[Tensor, "b 2"] | None = None) -> dict[str, Tensor]:
        """Compute the outputs by name."""
        photo_sizes = _sizes_of(images) if sizes is None else sizes
        pixels = images if self.resize is None else preprocess_in_graph(images, self.resize)
        resized_sizes = photo_sizes if self.resize is None else _sizes_of(pixels)
        padded = Images(pad_to_multiple(pixels, self.model.size_divisor), resized_sizes)
        head = self.model.head
        tensors = require_tensors(head).predict_tensors(self.model.features(padded), padded)
        if self.resize is not None:
            tensors = {
                name: _rescale(tensor, resized_sizes, photo_sizes) if name.split(".")[-1] == "boxes" else tensor
                for name, tensor in tensors.items()
            }
        return tensors | dict(finished_outputs(head, tensors, images, pixels, padded))


def pad_to_multiple(pixels: UInt8[Tensor, "b c _ _"], divisor: int) -> UInt8[Tensor, "b c h w"]:
    """Pad images with zeros at the bottom and right to a multiple of ``divisor``."""
    height, width = pixels.shape[-2:]
    rows, columns = ((side + divisor - 1) // divisor * divisor for side in (height, width))
    return F.pad(pixels, (0, columns - width, 0, rows - height))


def _sizes_of(images: Tensor) -> Int64[Tensor, "b 2"]:
    """Return the (height, width) of a batch for each of its images."""
    count, _, height, width = images.shape
    sides = (torch.full((count,), side, dtype=torch.int64, device=images.device) for side in (height, width))
    return torch.stack(list(sides), dim=1)


def _rescale(
    boxes: Float[Tensor, "b n 4"], sizes: Int64[Tensor, "b 2"], photo_sizes: Int64[Tensor, "b 2"]
) -> Float[Tensor, "b n 4"]:
    """Convert boxes from pixels of the resized images to pixels of the photos."""
    scales = (photo_sizes.double() / sizes).float().flip(1).repeat(1, 2)
    return clip_boxes(boxes * scales[:, None], photo_sizes)


def finished_outputs(
    head: Head, tensors: Mapping[str, Tensor], images: Tensor, pixels: Tensor, padded: Images, prefix: str = ""
) -> Iterator[tuple[str, Tensor]]:
    """Yield the outputs that users without this package would otherwise have to compute, with their names."""
    if isinstance(head, MultiHead):
        for name, part in head.named_heads():
            yield from finished_outputs(part, tensors, images, pixels, padded, f"{prefix}{name}.")
    if isinstance(head, PanopticFPNHead):
        yield from finished_outputs(head.instances, tensors, images, pixels, padded, prefix)
        yield from finished_outputs(head.semantic, tensors, images, pixels, padded, prefix)
    if isinstance(head, RCNNHead):
        size = (images.shape[-2], images.shape[-1])
        boxes = tensors[f"{prefix}boxes"]
        for name, branch in head.region_branches():
            values = tensors[prefix + name]
            if isinstance(branch, MaskBranch | PointRendBranch):
                yield f"{prefix}masks", paste_grids(values, boxes, size, branch.config.paste)
            if isinstance(branch, KeypointBranch):
                yield f"{prefix}keypoints", locate_keypoints(branch, values, boxes)
    if isinstance(head, SemanticHead):
        align = head.config.align_corners
        logits = resize_maps(tensors[f"{prefix}logits"], padded.padded_size, align)
        logits = logits[:, :, : pixels.shape[-2], : pixels.shape[-1]]
        if pixels is not images:
            logits = resize_maps(logits, (images.shape[-2], images.shape[-1]))
        yield f"{prefix}classes", logits.argmax(dim=1).to(torch.uint8)


def locate_keypoints(
    branch: KeypointBranch, heatmaps: Float[Tensor, "b n k s s"], boxes: Float[Tensor, "b n 4"]
) -> Float[Tensor, "b n k 3"]:
    """Return (x, y, score) of each keypoint, located by the rule ``quarter``, whose shapes do not depend on values."""
    flat = heatmaps.flatten(0, 1)
    points, maxima = decode_keypoints(flat, boxes.flatten(0, 1), "quarter")
    scores = maxima if branch.config.score == "logit" else heatmap_scores(flat, maxima)
    return torch.cat([points, scores[..., None]], dim=2).unflatten(0, boxes.shape[:2])
