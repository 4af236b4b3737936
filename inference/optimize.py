"""Optimization of a trained model for inference: folded norms, channels-last, half precision, compiled parts."""

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch

from ..models import Model
from ..structures import Images, UsageError
from .agreement import AgreementBounds, Outputs, compare_outputs, compute_outputs
from .compile_parts import compile_frozen, missing_compiler
from .fold_norms import fold_norms
from .numerics import bf16_units
from .winograd import replace_convolutions

OptimizedPrecision = Literal["fp32", "bf16", "auto"]
"""``bf16``: convolutions and matrix products in bfloat16 under torch's autocast; ``auto``: ``bf16`` if the device has
units for it, otherwise ``fp32``."""

BOUNDS = {
    "fp32": AgreementBounds(
        features=1e-3, scores=0.01, missing=0.01, boxes=0.05, masks=0.02, keypoints=0.1, pixels=0.01
    ),
    "bf16": AgreementBounds(features=0.1, scores=0.15, missing=0.1, boxes=0.5, masks=0.15, keypoints=1, pixels=0.05),
}
"""The differences from the plain model that are accepted, by precision (docs/performance.md has measured ones)."""

SAMPLE_SIZES = ((320, 448), (448, 320), (256, 384))
"""(height, width) of the generated images on which models are compared if none are given."""


def optimize_for_inference(
    model: Model,
    precision: OptimizedPrecision = "auto",
    *,
    images: Sequence[Images] | None = None,
    check: bool = True,
    in_place: bool = False,
    say: Callable[[str], None] = print,
) -> Model:
    """Return a copy of a trained model that predicts the same, up to rounding, in less time.

    Batch norms are folded into the layers before them, weights are stored channels-last, and the backbone, the neck and
    the dense parts of the head, except the branches of an R-CNN, are compiled for images of any size. Compiling takes
    about a minute; later processes find the code in the cache folder. In fp32 on a CPU, 3x3 convolutions with 128 to
    256 channels are computed by Winograd's method. The result is in evaluation mode; it cannot be trained, and its
    weights must not change.

    The predictions are compared with those of the plain model on ``images``, a few batches; None: on generated ones.
    The differences are passed to ``say`` as one line. Raises UsageError if they exceed ``BOUNDS``, unless ``check`` is
    False. ``in_place`` changes the given model, to save memory.
    """
    optimized = model if in_place else copy.deepcopy(model)
    optimized.eval().requires_grad_(False)
    batches = sample_images(model) if images is None else list(images)
    expected = compute_outputs(optimized, batches)
    chosen, reason = choose_precision(precision, model.device)
    count = sum(fold_norms(optimized, partial(compute_outputs, optimized, [batch])) for batch in batches)
    optimized.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimized.autocast_dtype = torch.bfloat16 if chosen == "bf16" else None
    uses_winograd = chosen == "fp32" and model.device.type == "cpu" and missing_compiler(model.device) is None
    faster = replace_convolutions(optimized) if uses_winograd else 0
    parts = compile_frozen(optimized, say)
    started = time.perf_counter()
    outputs = compute_outputs(optimized, batches)
    seconds = time.perf_counter() - started
    facts = [f"{chosen} ({reason})", f"{count} norms folded", "channels-last"]
    facts += [f"{faster} convolutions by Winograd's method"] if faster else []
    facts += [f"{', '.join(parts)} compiled in {seconds:.0f} s"] if parts else []
    say(f"optimized for inference: {'; '.join(facts)}")
    _report_agreement(expected, outputs, chosen, check, say)
    return optimized


def choose_precision(precision: OptimizedPrecision, device: torch.device) -> tuple[Literal["fp32", "bf16"], str]:
    """Return the precision to compute in, and the reason for it."""
    if precision != "auto":
        return precision, "as requested"
    units = bf16_units(device)
    return ("fp32", f"the {device.type} has no units for bf16") if units is None else ("bf16", f"{units}")


def sample_images(model: Model) -> list[Images]:
    """Return generated images for a model, one per batch: smooth random colors with random rectangles."""
    generator = torch.Generator().manual_seed(0)
    channels = len(model.preprocess.config.mean)
    batches = []
    for height, width in SAMPLE_SIZES:
        coarse = torch.rand(1, channels, 6, 8, generator=generator)
        picture = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        for _ in range(8):
            top, left = (int(torch.randint(0, side - 32, (), generator=generator)) for side in (height, width))
            rows, columns = (int(torch.randint(16, side // 2, (), generator=generator)) for side in (height, width))
            color = torch.rand(channels, 1, 1, generator=generator)
            picture[:, top : top + rows, left : left + columns] = color
        batches.append(Images.from_list([(picture * 255).to(torch.uint8)], model.size_divisor))
    return batches


def _report_agreement(
    expected: Sequence[Outputs],
    outputs: Sequence[Outputs],
    precision: Literal["fp32", "bf16"],
    check: bool,
    say: Callable[[str], None],
) -> None:
    """Report how far the outputs differ from those of the plain model; raise UsageError if that is too far."""
    agreement = compare_outputs(expected, outputs)
    say(f"largest differences from the plain model: {agreement.describe()}")
    if check and (faults := agreement.violations(BOUNDS[precision])):
        fix = "use precision='fp32' (--optimize fp32)" if precision == "bf16" else "use the plain model"
        raise UsageError(
            f"the optimized model's predictions differ too much from the plain model's: {', '.join(faults)}",
            f"{fix}, or accept the differences with check=False",
        )
