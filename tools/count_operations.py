"""The number of operations of a training step, each of which would be launched on a GPU."""

import click

from vertebra.tools.benchmark import parse_size
from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import integer_option


@click.command(
    "count-operations",
    context_settings=CONTEXT,
    short_help="Count the operations of a training step.",
    epilog="Example: vertebra count-operations --model mask_rcnn --batch 8",
)
@click.option("--model", default="mask_rcnn", metavar="NAME", help="A detector of vertebra benchmark.")
@click.option("--size", type=parse_size, default="800x1216", metavar="HxW", help="Size of the images in pixels.")
@integer_option("--batch", 8, "Images per step.")
@integer_option("--top", 20, "Operations to list.")
def command(model: str, size: tuple[int, int], batch: int, top: int) -> None:
    """Count the operations that a training step of a detector, forward and backward, would launch on a GPU.

    The step runs on tensors without values, so it takes seconds for a model of any size, and needs no GPU. Views are
    not counted.
    """
    from rich.console import Console
    from rich.table import Table

    from vertebra.structures import UsageError, suggest
    from vertebra.tools.benchmark_pairs import DETECTORS
    from vertebra.tools.operation_counts import count_operations

    if model not in DETECTORS:
        raise UsageError(f"there is no detector named {model!r}", suggest(model, DETECTORS))
    forward, backward = count_operations(model, size, batch)
    table = Table("operation", "forward", "backward", title=f"{model}, {batch} x {size[0]}x{size[1]}")
    for name, _ in (forward + backward).most_common(top):
        table.add_row(name, str(forward[name]), str(backward[name]))
    table.add_row("all", str(forward.total()), str(backward.total()))
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(run_command(command))
