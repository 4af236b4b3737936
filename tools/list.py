"""List what there is to choose from."""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from vertebra.tools.cli import run_tool


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/list.py backbones|necks|heads|configs [PATTERN]``."""
    parser = argparse.ArgumentParser(
        prog="list",
        description="List backbones, necks, heads or configs by name.",
        epilog='example: python tools/list.py backbones "resnext*"',
    )
    parser.add_argument("kind", choices=("backbones", "necks", "heads", "configs"))
    parser.add_argument("pattern", nargs="?", default="*", help="a shell pattern; quote it")
    options = parser.parse_args(arguments)
    table = _backbones(options.pattern) if options.kind == "backbones" else _names(options.kind, options.pattern)
    Console().print(table)
    return 0


def _backbones(pattern: str) -> Table:
    from vertebra.backbones import describe_backbone, list_backbones

    table = Table("name", "parameters (M)", "GFLOPs at 224", "levels: channels / stride")
    for name in list_backbones(pattern):
        facts = describe_backbone(name)
        levels = "  ".join(f"{level}: {info.channels} / {info.stride}" for level, info in facts.feature_info.items())
        table.add_row(name, f"{facts.parameters / 1e6:.1f}", f"{facts.gflops:.1f}", levels)
    return table


def _names(kind: str, pattern: str) -> Table:
    if kind == "configs":
        from vertebra.configs import list_configs

        rows = list_configs(pattern)
    else:
        from vertebra.heads import heads
        from vertebra.necks import necks

        registry = {"necks": necks, "heads": heads}[kind]
        rows = {name: _first_line(registry[name].build) for name in registry.names(pattern)}
    table = Table("name", "what")
    for name, what in rows.items():
        table.add_row(name, what)
    return table


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
