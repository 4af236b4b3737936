"""Describe a trained model: its classes, scores, training data and initial weights."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import run_argument

if TYPE_CHECKING:
    from vertebra.inference import Checkpoint


@click.command(
    "describe",
    context_settings=CONTEXT,
    short_help="Describe a trained model.",
    epilog="Example: vertebra describe runs/quickstart",
)
@run_argument
def command(run: str) -> None:
    """Describe a trained model: its classes, scores, training data and initial weights.

    RUN is a run folder or a checkpoint. The checksums of its files are verified; no weights are loaded.
    """
    from vertebra.inference import open_checkpoint

    for name, fact in _facts(open_checkpoint(run)):
        click.echo(f"{name:9} {fact}")


def _facts(checkpoint: "Checkpoint") -> Iterator[tuple[str, str]]:
    """Yield the facts about a checkpoint as (name, text)."""
    config, origin = checkpoint.config, checkpoint.origin
    steps, model = config["recipe"]["schedule"]["steps"], config["model"]
    yield "name", f"{config['name']}, step {checkpoint.step} of {steps}, saved {checkpoint.saved_at}"
    yield "model", " + ".join(model[part]["name"] for part in ("backbone", "neck", "head"))
    for task, classes in checkpoint.classes.items():
        yield "classes", f"{len(classes.names)} of {task}: {_shorten(classes.names)}"
    yield from _score_lines(checkpoint.scores)
    for split in ("train", "val"):
        digests = {"images": checkpoint.image_id_digests, "annotations": checkpoint.annotation_digests}
        parts = [f"{name} {of_splits[split][:12]}" for name, of_splits in digests.items() if of_splits.get(split)]
        yield split, ", ".join([_describe_source(config[split]["dataset"]), *parts])
    if origin is None:
        yield "weights", "initialized at random"
    else:
        yield "weights", f"initialized from {origin.source}"
        yield "license", f"of the initial weights: {origin.license}"
        yield "url", origin.url
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
