"""List the names that there are to choose from."""

from collections import Counter
from collections.abc import Mapping, Sequence

import click

from vertebra.tools.cli import CONTEXT, run_command


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

    SUBJECT is one of these words. PATTERN is a shell pattern; quote it. One that begins with timm/ lists timm's
    backbones.
    """
    if subject == "backbones":
        _show_backbones(pattern)
    else:
        _show_names(subject, pattern)


def _show_backbones(pattern: str) -> None:
    """Show a row as soon as it is known, since some networks take seconds to measure.

    If only one backbone matches, all its pretrained weights are named.
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
            except UsageError as refusal:
                table.add_row(name, "", "", refusal.what, weights)
                continue
            levels = (f"{level}:{info.channels}/{info.stride}" for level, info in facts.feature_info.items())
            table.add_row(name, f"{facts.parameters / 1e6:.1f}", f"{facts.gflops:.1f}", "  ".join(levels), weights)
            live.refresh()


def _count_by_library(sources: Sequence[str]) -> str:
    """Return how many of the weights each library has, as text."""
    libraries = Counter(source.partition("/")[0] for source in sources)
    return ", ".join(f"{library} {count}" for library, count in libraries.items())


def _show_names(subject: str, pattern: str) -> None:
    """Show a table of names with a line about each."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "description")
    for name, description in _describe_names(subject, pattern).items():
        table.add_row(name, description)
    Console().print(table)


def _describe_names(subject: str, pattern: str) -> Mapping[str, str]:
    """Return the matching names of necks, heads, configs or models, each with a line about it."""
    if subject in ("configs", "models"):
        from vertebra.configs import list_configs, list_models

        configs = list_configs(pattern)
        return configs if subject == "configs" else {name: configs[name] for name in list_models(pattern)}
    from vertebra.heads import HEADS
    from vertebra.necks import NECKS

    registry = NECKS if subject == "necks" else HEADS
    return {name: _first_line(registry[name].build) for name in registry.names(pattern)}


def _first_line(documented: object) -> str:
    """Return the first line of a docstring."""
    return (documented.__doc__ or "").strip().partition("\n")[0]


if __name__ == "__main__":
    raise SystemExit(run_command(command))
