"""Say what a trained model is: its classes and scores, what it learned from, and on what terms it began."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vertebra.tools.cli import run_tool


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/describe.py RUN_OR_CHECKPOINT``."""
    parser = argparse.ArgumentParser(
        prog="describe",
        description="Say what a trained model is. Its files are checked for damage; no weights are loaded.",
        epilog="example: python tools/describe.py runs/quickstart",
    )
    parser.add_argument("run", help="a run folder or a checkpoint")
    options = parser.parse_args(arguments)

    from vertebra.engine import open_checkpoint

    for name, fact in _facts(open_checkpoint(options.run)):
        print(f"{name:9} {fact}")
    return 0


def _facts(checkpoint) -> Iterator[tuple[str, str]]:
    config, origin = checkpoint.config, checkpoint.origin
    yield (
        "name",
        f"{config.name}, step {checkpoint.step} of {config.recipe.schedule.steps}, saved {checkpoint.saved_at}",
    )
    parts = (config.model.backbone.name, config.model.neck.name, config.model.head.name)
    yield "model", " + ".join(parts)
    for task, classes in checkpoint.classes.items():
        yield "classes", f"{len(classes.names)} of {task}: {_first(classes.names)}"
    yield from _scores(checkpoint.scores)
    for split in ("train", "val"):
        sums = [f"{what} {known[split][:12]}" for what, known in _sums(checkpoint) if known.get(split)]
        yield split, ", ".join([_where(getattr(config, split).dataset), *sums])
    if origin is None:
        yield "weights", "began at random"
    else:
        yield "weights", f"began with {origin.source}"
        yield "license", f"of those: {origin.license}"
        yield "url", origin.url
    yield "made with", ", ".join(f"{package} {number}" for package, number in checkpoint.versions.items())


def _scores(scores: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """The numbers of each kind of score, those that are null left out."""
    if scores is None:
        yield "scores", "not evaluated at this step"
        return
    for kind, numbers in scores.items():
        if isinstance(numbers, Mapping) and kind != "per_class":
            known = [f"{name} {value:.3f}" for name, value in numbers.items() if value is not None]
            yield "scores", f"{kind}: {', '.join(known)}"


def _sums(checkpoint) -> list[tuple[str, Mapping[str, str]]]:
    return [("images", checkpoint.image_id_digests), ("annotations", checkpoint.annotation_digests)]


def _where(dataset) -> str:
    """The kind of data, and the first path in its config."""
    paths = (dataset.model_dump(mode="json").get(key) for key in ("annotations", "root"))
    return " ".join([dataset.name, *[path for path in paths if path]])


def _first(names: Sequence[str], count: int = 10) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
