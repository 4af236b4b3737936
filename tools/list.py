"""List what there is to choose from."""

import argparse
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from vertebra.structures import UsageError
from vertebra.tools.cli import run_tool


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/list.py backbones|necks|heads|configs [PATTERN]``."""
    parser = argparse.ArgumentParser(
        prog="list",
        description="List backbones, necks, heads or configs by name.",
        epilog='examples: python tools/list.py backbones "resnext*";  python tools/list.py backbones "timm/convnext*"',
    )
    parser.add_argument("kind", choices=("backbones", "necks", "heads", "configs"))
    parser.add_argument("pattern", nargs="?", default="*", help="a shell pattern; quote it. timm/... for timm's")
    options = parser.parse_args(arguments)
    if options.kind == "backbones":
        _show_backbones(options.pattern)
    else:
        Console().print(_names(options.kind, options.pattern))
    return 0


def _show_backbones(pattern: str) -> None:
    """A row as soon as it is known, since some networks take seconds to measure; the only one with all its weights."""
    from vertebra.backbones import describe_backbone, list_backbones, list_weights

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
    libraries = Counter(source.partition("/")[0] for source in sources)
    return ", ".join(f"{library} {count}" for library, count in libraries.items())


def _names(kind: str, pattern: str) -> Table:
    if kind == "configs":
        from vertebra.configs import list_configs

        rows = list_configs(pattern)
    else:
        from vertebra.heads import HEADS
        from vertebra.necks import NECKS

        registry = {"necks": NECKS, "heads": HEADS}[kind]
        rows = {name: _first_line(registry[name].build) for name in registry.names(pattern)}
    table = Table("name", "what")
    for name, what in rows.items():
        table.add_row(name, what)
    return table


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
