"""A page of samples as the model sees them: after the transform and the mix of a split, with their targets drawn."""

import html
import string
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from ...data import Batch, Dataset, LoaderConfig, build_dataset, eval_loader, train_loader
from ...data.types import Truth
from ...inference import ColoredMask, Picture, blend_masks, class_color, draw_boxes, draw_classes
from ...structures import Instances
from ..config import ExperimentConfig
from .page import encode_picture

IN_PROCESS = LoaderConfig(workers=0)


def render_samples(experiment: ExperimentConfig, split: str, count: int, augmented: bool) -> str:
    """Return an HTML page of the first ``count`` samples of the split ``train`` or ``val``, one file without network.

    ``augmented`` shows the samples of the first training steps: chosen, transformed and mixed as in a training of the
    experiment, bit for bit. Otherwise the images appear in their order, transformed as for evaluation.
    """
    config = experiment.train if split == "train" else experiment.val
    dataset = build_dataset(config.dataset, config.bad_data)
    recipe = experiment.recipe
    if augmented:
        batches = train_loader(
            dataset, config.transform, IN_PROCESS, batch_size=recipe.batch_size, divisor=1, seed=recipe.seed,
            start_step=0, end_step=max(recipe.schedule.steps, 1), sampling=config.sampling, mix=config.mix,
        )  # fmt: skip
    else:
        batches = eval_loader(dataset, experiment.val.transform, IN_PROCESS, batch_size=1, divisor=1)
    figures = [figure for batch in _until(batches, count) for figure in _render_batch(batch, dataset)]
    template = string.Template(Path(__file__).with_name("browse.html").read_text(encoding="utf-8"))
    seen = "the first samples of the training, as the model sees them" if augmented else "resized as for evaluation"
    return template.substitute(
        title=html.escape(f"{experiment.name}: {split}"),
        description=html.escape(f"{min(count, len(figures))} pictures from {len(dataset)} images: {seen}."),
        figures="\n".join(figures[:count]),
    )


def _until(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """Yield batches until they have ``count`` images."""
    number = 0
    for batch in batches:
        yield batch
        number += len(batch.image_ids)
        if number >= count:
            return


def _render_batch(batch: Batch, dataset: Dataset) -> list[str]:
    """Return the figure of every image of a batch, without its padding."""
    figures = []
    for index, target in enumerate(batch.targets):
        height, width = batch.images.size_list()[index]
        picture = batch.images.pixels[index, :, :height, :width].permute(1, 2, 0).contiguous().numpy()
        truths = target if isinstance(target, dict) else {dataset.task: target}
        for task, truth in truths.items():
            if truth is not None:
                picture = draw_truth(picture, truth, dataset.classes[task].names)
        text = f"image {batch.image_ids[index]}, {width} x {height} pixels{_describe(truths, dataset)}"
        caption = html.escape(text)
        figures.append(
            f'<figure><img alt="{caption}" src="{encode_picture(picture)}"><figcaption>{caption}</figcaption></figure>'
        )
    return figures


def _describe(truths: Mapping[str, Truth | None], dataset: Dataset) -> str:
    """Describe the targets of an image that are not drawn: the number of objects, and the class of the image."""
    parts = []
    for task, truth in truths.items():
        if isinstance(truth, Instances):
            parts.append(f"{len(truth.labels)} objects")
        elif truth is not None and truth.ndim == 0:
            parts.append(dataset.classes[task].names[int(truth)])
    return "".join(f", {part}" for part in parts)


def draw_truth(picture: Picture, truth: Truth, class_names: tuple[str, ...]) -> Picture:
    """Return a picture with the target of its image: boxes and masks of objects, or the classes of pixels."""
    if not isinstance(truth, Instances):
        return picture if truth.ndim == 0 else draw_classes(picture, truth.to(torch.uint8).numpy(), class_names)
    masks = truth.fields.get("masks")
    if masks is not None:
        pairs = zip(masks.numpy().astype(bool), truth.labels.tolist(), strict=True)
        picture = blend_masks(picture, (ColoredMask(mask, class_color(label)) for mask, label in pairs))
    return draw_boxes(picture, truth.boxes, truth.labels, class_names)
