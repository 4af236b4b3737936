"""Benchmark of our models against torchvision's, run alternately on the same images."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import device_option, integer_option, optimize_option

if TYPE_CHECKING:
    import torch

    from vertebra.inference import OptimizedPrecision
    from vertebra.models import Model
    from vertebra.tools.benchmark_pairs import Pair

MODELS = ("faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet", "fcos", "deeplabv3")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Case(NamedTuple):
    """A batch of images to measure."""

    size: tuple[int, int]
    """(height, width) in pixels."""
    batch: int
    objects: int
    """Objects per image in training."""


SWEEP_SIZES, SWEEP_BATCHES, SWEEP_OBJECTS = ((256, 256), (480, 640), (800, 1216), (1333, 800)), (1, 2, 8), (0, 10, 100)
SWEEP = (
    Case((256, 256), 1, 0),
    Case((256, 256), 8, 100),
    Case((320, 480), 2, 10),
    Case((480, 640), 1, 100),
    Case((800, 1216), 1, 10),
)
"""The cases of a sweep without ``--full``, which cover the extremes at little cost."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line, see their help."""

    model: str
    size: tuple[int, int]
    batch: int
    objects: int
    rounds: int
    device: str
    clock: str
    optimize: "OptimizedPrecision | None"
    inference_only: bool
    sweep: bool
    full: bool

    def cases(self) -> list[Case]:
        """Return the cases to measure."""
        if not self.sweep:
            return [Case(self.size, self.batch, self.objects)]
        every = itertools.product(SWEEP_SIZES, SWEEP_BATCHES, SWEEP_OBJECTS)
        return list(itertools.starmap(Case, every)) if self.full else list(SWEEP)


class Row(NamedTuple):
    """The measurement of a case: the median seconds, and the median of the rounds' ratios."""

    case: Case
    work: str
    ours: float
    theirs: float
    ratio: float


def parse_size(text: str) -> tuple[int, int]:
    """Parse a size such as ``800x1216`` into (height, width) in pixels; raise BadParameter if it is not one."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise click.BadParameter(f"{text!r} is not a size such as 800x1216 (height x width)")
    return int(height), int(width)


@click.command(
    "benchmark",
    context_settings=CONTEXT,
    short_help="Time a model against torchvision's.",
    epilog="""\b
    Examples:
      vertebra benchmark --size 480x640 --rounds 3
      vertebra benchmark --optimize bf16
      vertebra benchmark --sweep --model mask_rcnn --rounds 1 --clock cpu""",
)
@click.option("--model", type=click.Choice(MODELS), default=MODELS[0], help="The model to time.")
@click.option("--size", type=parse_size, default="800x1216", metavar="HxW", help="Size of the images in pixels.")
@integer_option("--batch", 1, "Images per step.")
@integer_option("--objects", 10, "Objects per image in training.", least=0)
@integer_option("--rounds", 5, "Timed rounds per model.")
@click.option("--clock", type=click.Choice(tuple(CLOCKS)), default="wall", help="Measure elapsed or CPU time.")
@optimize_option
@click.option("--inference-only", is_flag=True, help="Leave out the training step.")
@click.option("--sweep", is_flag=True, help="Measure several sizes, batches and numbers of objects, worst ratio first.")
@click.option("--full", is_flag=True, help="With --sweep: all 36 combinations instead of five.")
@device_option
def command(**values: Any) -> None:
    """Time a training step and inference of our model and torchvision's, alternately (A B A B).

    The models are detectors with a ResNet-50-FPN, and DeepLabv3 with a ResNet-50 at output stride 8, with random
    weights. Shows the median seconds of each and the median ratio, ours divided by theirs. With --optimize, inference
    of our optimized model is measured too, beside torchvision's in float32.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from vertebra.structures import pick_device

    options = Options(**values)
    if options.full and not options.sweep:
        raise click.UsageError("--full needs --sweep")
    device, threads = pick_device(options.device), torch.get_num_threads()
    click.echo(f"{options.model}, {device}, torch {torch.__version__}, {threads} threads, {options.clock} time")
    rows: list[Row] = []
    for row in measure(options, device):
        case = f"{row.case.batch} x {row.case.size[0]}x{row.case.size[1]}, {row.case.objects} objects"
        click.echo(
            f"{case}: {row.work:22} ours {row.ours:.3f} s, torchvision {row.theirs:.3f} s, ratio {row.ratio:.2f}"
        )
        rows.append(row)
    if options.sweep:
        table = Table("ratio", "work", "size", "batch", "objects", "ours, s", "torchvision, s")
        for row in sorted(rows, key=lambda row: -row.ratio):
            (height, width), batch, objects = row.case
            numbers = (f"{height}x{width}", f"{batch}", f"{objects}", f"{row.ours:.3f}", f"{row.theirs:.3f}")
            table.add_row(f"{row.ratio:.2f}", row.work, *numbers)
        Console(width=110).print(table)


def measure(options: Options, device: "torch.device") -> Iterator[Row]:
    """Yield the measurements of all cases: training, inference and, if requested, inference of the optimized model."""
    import torch

    from vertebra.inference import optimize_for_inference
    from vertebra.tools.benchmark_pairs import PAIRS

    optimized: Model | None = None
    for case in options.cases():
        torch.manual_seed(0)
        pixels = [torch.randint(0, 256, (3, *case.size), dtype=torch.uint8) for _ in range(case.batch)]
        pair = PAIRS[options.model](pixels, device, case.objects)
        if options.optimize is not None and optimized is None:
            # Unchecked: with random weights many detections have nearly equal scores, so that predictions may differ.
            optimized = optimize_for_inference(pair.ours, options.optimize, check=False, say=click.echo)
        for work, functions in works_of(pair, optimized).items():
            if options.inference_only and work == "training step":
                continue
            ours, theirs = alternate(functions, options.rounds, device, options.clock)
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            yield Row(case, work, statistics.median(ours), statistics.median(theirs), ratio)


def works_of(pair: "Pair", optimized: "Model | None") -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Return the functions to time by the name of their work: one that runs our model, and one torchvision's."""
    import torch

    def train(network: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> None:
        network.train()
        network.zero_grad(set_to_none=True)
        loss().backward()

    def infer(network: torch.nn.Module, inference: Callable[[], Any]) -> None:
        network.eval()
        with torch.no_grad():
            inference()

    def infer_ours(model: "Model") -> None:
        infer(model, partial(pair.our_inference, model))

    infer_theirs = partial(infer, pair.theirs, pair.their_inference)
    works: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "training step": (partial(train, pair.ours, pair.our_loss), partial(train, pair.theirs, pair.their_loss)),
        "inference": (partial(infer_ours, pair.ours), infer_theirs),
    }
    if optimized is not None:
        works["optimized inference"] = partial(infer_ours, optimized), infer_theirs
    return works


def alternate(
    functions: Sequence[Callable[[], None]], rounds: int, device: "torch.device", clock: str = "wall"
) -> list[list[float]]:
    """Time functions alternately after one warm-up round; return a list for each, with the seconds of each round."""
    import torch

    seconds: list[list[float]] = [[] for _ in functions]
    for round_index in range(rounds + 1):
        for function, record in zip(functions, seconds, strict=True):
            started = CLOCKS[clock]()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_index > 0:
                record.append(CLOCKS[clock]() - started)
    return seconds


if __name__ == "__main__":
    raise SystemExit(run_command(command))
