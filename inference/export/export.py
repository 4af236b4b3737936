"""Export of a trained model to a file that is verified before it gets its name."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor

from ...backbones import Backbone
from ...heads import require_tensors
from ...models import Model
from ...ops import fixed_shapes, plain_nms
from ...structures import Classes, Config, ImagePreprocessing, UsageError
from ..checkpoint import InferenceConfig
from ..trained_model import TrainedModel, open_model
from .description import Description
from .exported_model import ExportedModel
from .features import features_model
from .graph import ExportGraph, is_finished
from .sessions import open_session
from .verify import Verification, verify_export
from .writers import WRITERS, Format, TracedGraph

PACKAGES = ("vertebra", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime")
"""The packages whose versions are stored in a file."""


class ExportConfig(Config):
    """The options of an export."""

    format: Format = "onnx"
    size: tuple[PositiveInt, PositiveInt] | None = None
    """(height, width) of the images. None: any."""
    batch: PositiveInt | None = None
    """The number of images. None: any."""
    resize: bool | None = None
    """Take photos, and preprocess them inside the graph, instead of preprocessed images and their sizes. None: if the
    size of the images is free and the preprocessing is known."""
    half: bool = False
    """Store the weights in float16, which halves the file; all arithmetic stays in float32."""
    check: bool = True
    """Refuse a file whose predictions differ from the model's by more than the bounds."""

    @model_validator(mode="after")
    def _check_format(self) -> "ExportConfig":
        if self.half and self.format != "onnx":
            raise ValueError(f"half needs the format onnx; got {self.format}")
        if self.format == "torchscript" and (self.size is None or self.batch is None):
            raise ValueError("a traced TorchScript graph has fixed shapes: give size and batch")
        return self


def export_model(
    source: Model | Backbone | str | os.PathLike[str],
    path: str | os.PathLike[str],
    config: ExportConfig = ExportConfig(),
    *,
    like: str | None = None,
    photos: Sequence[Any] = (),
    say: Callable[[str], None] = print,
) -> Verification:
    """Write a model to a file that other programs run, and return how far its predictions are from the model's.

    ``source`` is a model, a backbone, whose feature maps become the outputs, or anything that
    :func:`~vertebra.inference.open_model` finds (with ``like``). The file is written beside ``path``, run on ``photos``
    (without any, on generated images), and renamed to ``path`` only if it passes; otherwise it is deleted, and
    VerificationError is raised. A summary is passed to ``say``.
    """
    path = Path(path)
    trained = None if isinstance(source, Model | Backbone) else open_model(source, like)
    writer = WRITERS[config.format]
    if path.suffix != writer.suffix:
        fix = f"choose a name that ends in {writer.suffix}"
        raise UsageError(f"this is not a name of a file in the format {config.format}", fix, file=path)
    model = _model_of(source) if trained is None else trained.load()
    inference = _inference_of(model, trained)
    resize = _choose_resize(config, None if inference is None else inference.preprocessing)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        with _evaluating(model):
            traced = trace(model, config, resize)
            description = describe(traced, config, trained, inference)
            writer.write(traced, description, part)
            exported = ExportedModel(open_session(part), model.head, resize)
            verification = verify_export(model, exported, inference, photos)
        say(f"{config.format}, {part.stat().st_size / 1e6:.1f} MB: {verification.describe()}")
        if config.check:
            verification.require(path, description.half)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return verification


def trace(model: Model, config: ExportConfig, resize: ImagePreprocessing | None) -> TracedGraph:
    """Record the graph of a model in evaluation mode; its free sizes are symbols."""
    require_tensors(model.head)
    graph = ExportGraph(model, resize)
    inputs = _example(model, config, resize)
    dynamic = torch.export.Dim.DYNAMIC
    free = {} if config.batch is not None else {0: dynamic}
    shapes: list[Any] = [free if config.size is not None else {**free, 2: dynamic, 3: dynamic}]
    if resize is None:
        shapes.append(free)
    portable = plain_nms() if WRITERS[config.format].plain_nms else contextlib.nullcontext()
    with torch.no_grad(), fixed_shapes(), portable:
        return TracedGraph(graph, inputs, torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=True))


def _example(model: Model, config: ExportConfig, resize: ImagePreprocessing | None) -> tuple[Tensor, ...]:
    """Return inputs to trace a model with. Sizes are unequal, since equal ones would become one symbol."""
    divisor, channels = model.size_divisor, len(model.preprocess.config.mean)
    count = config.batch or 2
    height, width = config.size or (9 * divisor + 5, 11 * divisor + 3)
    images = torch.zeros(count, channels, height, width, dtype=torch.uint8)
    return (images,) if resize is not None else (images, torch.tensor([[height, width]] * count))


@contextlib.contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Put a model into evaluation mode without gradients inside the block, and restore its state afterwards."""
    training = model.training
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter in learned:
            parameter.requires_grad_(True)


def _model_of(source: Any) -> Model:
    """Return a model, or the model of a backbone."""
    return features_model(source) if isinstance(source, Backbone) else source


def _inference_of(model: Model, trained: TrainedModel | None) -> InferenceConfig | None:
    """Return the inference config of a model, without its starting weights; None for a model built from parts."""
    if trained is None:
        inference = None if model.config is None else InferenceConfig(model=model.config)
    else:
        inference = trained.inference
    if inference is None:
        return None
    return inference.replace(model=inference.model.replace(weights=None, start_from=None, start_from_like=None))


def _choose_resize(config: ExportConfig, preprocessing: ImagePreprocessing | None) -> ImagePreprocessing | None:
    """Return the preprocessing that becomes part of the graph."""
    if config.resize and preprocessing is None:
        fix = "give images that are preprocessed: --no-resize (resize=False in Python)"
        raise UsageError("the model's preprocessing is random, custom or unknown, so no graph can contain it", fix)
    wanted = config.size is None if config.resize is None else config.resize
    return preprocessing if wanted else None


def describe(
    traced: TracedGraph, config: ExportConfig, trained: TrainedModel | None, inference: InferenceConfig | None
) -> Description:
    """Return the description that is stored in the file."""
    model, outputs = traced.graph.model, tuple(traced.program.call_spec.out_spec.context)  # pyright: ignore
    if trained is not None:
        classes = dict(trained.classes)
    else:
        names_by_task = model.class_names.items()
        classes = {task: Classes(names, tuple(range(1, len(names) + 1))) for task, names in names_by_task}
    return Description(
        task=model.head.task,
        classes=classes,
        channels=len(model.preprocess.config.mean),
        resizes=traced.graph.resize is not None,
        size=config.size,
        batch=config.batch,
        size_divisor=model.size_divisor,
        least_side=max((int(bounds.lower) for bounds in traced.program.range_constraints.values()), default=1),
        half=config.half,
        outputs=outputs,
        tensors=tuple(name for name in outputs if not is_finished(name)),
        inference=None if inference is None else inference.model_dump(mode="json"),
        origin=None if trained is None else trained.origin,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    """Return the versions of the packages that matter for an exported file."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
