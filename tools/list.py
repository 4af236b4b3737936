"""List the available backbones, necks, heads, configs and models."""

from collections import Counter
from collections.abc import Mapping, Sequence

import click

from vertebra.tools.cli import CONTEXT, run_command

IMAGE_LICENSES = "The images that weights were trained on have licenses of their own."


@click.command(
    "list",
    context_settings=CONTEXT,
    short_help="List backbones, necks, heads, configs or models.",
    epilog="""\b
    Examples:
      vertebra list backbones "resnext*"
      vertebra list backbones "timm/convnext*\"""",
)
@click.argument("subject", metavar="SUBJECT", type=click.Choice(("backbones", "necks", "heads", "configs", "models")))
@click.argument("pattern", default="*")
def command(subject: str, pattern: str) -> None:
    """List backbones, necks, heads, configs or models by name.

    SUBJECT is one of these words. PATTERN is a shell pattern, in quotes; a pattern that begins with timm/ lists timm's
    models as backbones.
    """
    if subject == "backbones":
        _show_backbones(pattern)
    elif subject == "models":
        _show_models(pattern)
    else:
        _show_names(subject, pattern)


def _show_backbones(pattern: str) -> None:
    """Print a table of backbones, row by row, since measuring a large network takes seconds.

    If only one backbone matches, the names of all its pretrained weights are shown.
    """
    from rich.live import Live
    from rich.table import Column, Table

    from vertebra.backbones import describe_backbone, list_backbones, list_weights
    from vertebra.structures import UsageError

    names = list_backbones(pattern)
    table = Table(Column("name", no_wrap=True), "M weights", "GFLOPs at 224", "levels: channels/stride", "pretrained")
    with Live(table, auto_refresh=False) as live:
        for name in names:
            sources = list_weights(name)
            weights = "\n".join(sources) if len(names) == 1 else _count_by_library(sources)
            try:
                facts = describe_backbone(name)
            except UsageError as error:
                table.add_row(name, "", "", error.what, weights)
                continue
            levels = (f"{level}:{info.channels}/{info.stride}" for level, info in facts.feature_info.items())
            table.add_row(name, f"{facts.parameters / 1e6:.1f}", f"{facts.gflops:.1f}", "  ".join(levels), weights)
            live.refresh()


def _show_models(pattern: str) -> None:
    """Print a table of the published models with their weights, and one of the architectures of shipped configs."""
    from rich.console import Console
    from rich.table import Column, Table

    from vertebra.configs import list_configs
    from vertebra.models.zoo import cached_path, find_published, list_published

    table = Table(
        Column("published model", no_wrap=True), "weights", "M weights", "published scores", "license", "file"
    )
    for name in list_published(pattern):
        published, _ = find_published(name)
        millions = "" if published.parameters is None else f"{published.parameters / 1e6:.1f}"
        for tag, weights in published.weights.items():
            scores = ", ".join(f"{metric} {value:.1f}" for metric, value in weights.scores.items())
            file = "in the cache" if cached_path(weights).exists() else "to download"
            table.add_row(name, tag, millions, scores, weights.license.partition(";")[0], file)
        if not published.weights:
            table.add_row(name, "", millions, "", "", "none published")
    console = Console()
    if table.row_count:
        console.print(table)
    configs = Table("config", "description")
    for name, description in list_configs(pattern).items():
        configs.add_row(name, description)
    if configs.row_count:
        console.print(configs)


def _count_by_library(sources: Sequence[str]) -> str:
    """Return the number of weights per library as text, such as ``torchvision 2, timm 5``."""
    libraries = Counter(source.partition("/")[0] for source in sources)
    return ", ".join(f"{library} {count}" for library, count in libraries.items())


def _show_names(subject: str, pattern: str) -> None:
    """Print a table of names and descriptions."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "description")
    for name, description in _describe_names(subject, pattern).items():
        table.add_row(name, description)
    Console().print(table)


def _describe_names(subject: str, pattern: str) -> Mapping[str, str]:
    """Return a one-line description of each matching neck, head or config by name."""
    if subject == "configs":
        from vertebra.configs import list_configs

        return list_configs(pattern)
    from vertebra.heads import HEADS
    from vertebra.necks import NECKS

    registry = NECKS if subject == "necks" else HEADS
    return {name: _first_line(registry[name].build) for name in registry.names(pattern)}


def _first_line(documented: object) -> str:
    """Return the first line of a docstring."""
    return (documented.__doc__ or "").strip().partition("\n")[0]


if __name__ == "__main__":
    raise SystemExit(run_command(command))
