"""Describe a trained model: its classes, scores, training data and initial weights."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import like_option, model_argument

if TYPE_CHECKING:
    from vertebra.backbones import WeightsOrigin
    from vertebra.inference import Checkpoint, TrainedModel
    from vertebra.structures import Classes


@click.command(
    "describe",
    context_settings=CONTEXT,
    short_help="Describe a trained model.",
    epilog="""\b
    Examples:
      vertebra describe runs/quickstart
      vertebra describe torchvision/maskrcnn_resnet50_fpn_v2""",
)
@model_argument
@like_option
def command(model: str, like: str | None) -> None:
    """Describe a trained model: its classes, scores, training data and initial weights.

    MODEL is a run folder or a checkpoint, whose checksums are verified; a model file; or a published model (see
    vertebra list models). The weights are not loaded, except those of a file with --like, to count its classes.
    """
    from vertebra.inference import RunModel, open_model

    trained = open_model(model, like)
    facts = _facts(trained.checkpoint) if isinstance(trained, RunModel) else _facts_of_file(trained)
    for name, fact in facts:
        click.echo(f"{name:9} {fact}")


def _facts_of_file(trained: "TrainedModel") -> Iterator[tuple[str, str]]:
    """Yield the facts about a model that is not the checkpoint of a run as (name, text)."""
    yield "name", trained.source
    yield from _model_lines(trained.inference.model.model_dump(), trained.classes)
    if trained.inference.preprocessing is not None:
        values = trained.inference.preprocessing.model_dump()
        yield "images", ", ".join(f"{field} {value}" for field, value in values.items() if field != "name")
    yield from _weights_lines(trained.origin, "from", "")


def _model_lines(model: Mapping[str, Any], classes: "Mapping[str, Classes]") -> Iterator[tuple[str, str]]:
    yield "model", " + ".join(model[part]["name"] for part in ("backbone", "neck", "head"))
    for task, described in classes.items():
        yield "classes", f"{len(described.names)} of {task}: {_shorten(described.names)}"


def _weights_lines(origin: "WeightsOrigin | None", verb: str, whose: str) -> Iterator[tuple[str, str]]:
    if origin is not None:
        yield "weights", f"{verb} {origin.source}"
        yield "license", f"{whose}{origin.license}"
        yield "url", origin.url


def _facts(checkpoint: "Checkpoint") -> Iterator[tuple[str, str]]:
    """Yield the facts about a checkpoint as (name, text)."""
    config, origin = checkpoint.config, checkpoint.origin
    steps, model = config["recipe"]["schedule"]["steps"], config["model"]
    yield "name", f"{config['name']}, step {checkpoint.step} of {steps}, saved {checkpoint.saved_at}"
    yield from _model_lines(model, checkpoint.classes)
    yield from _score_lines(checkpoint.scores)
    for split in ("train", "val"):
        digests = {"images": checkpoint.image_id_digests, "annotations": checkpoint.annotation_digests}
        parts = [f"{name} {of_splits[split][:12]}" for name, of_splits in digests.items() if of_splits.get(split)]
        yield split, ", ".join([_describe_source(config[split]["dataset"]), *parts])
    if origin is None:
        yield "weights", "initialized at random"
    yield from _weights_lines(origin, "initialized from", "of the initial weights: ")
    if checkpoint.user_modules:
        yield "code", f"custom parts are defined in {', '.join(checkpoint.user_modules.values())}"
    yield "made with", ", ".join(f"{package} {number}" for package, number in checkpoint.versions.items())


def _score_lines(scores: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yield a line for each of the scores of a checkpoint, without the values that are null."""
    if scores is None:
        yield "scores", "not evaluated at this step"
        return
    for name, numbers in scores.items():
        if isinstance(numbers, Mapping) and name not in ("per_class", "per_keypoint"):
            values = [f"{metric} {value:.3f}" for metric, value in numbers.items() if value is not None]
            yield "scores", f"{name}: {', '.join(values)}"


def _describe_source(dataset: Mapping[str, Any]) -> str:
    """Return the registered name of a data set, followed by the paths in its config."""
    paths = (dataset.get(key) for key in ("annotations", "root"))
    return " ".join([dataset["name"], *[path for path in paths if path]])


def _shorten(names: Sequence[str], count: int = 10) -> str:
    """Return the first ``count`` names, separated by commas, and an ellipsis if there are more."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


if __name__ == "__main__":
    raise SystemExit(run_command(command))
