"""Benchmark of our models against torchvision's, run alternately on the same images."""

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import device_option, integer_option

if TYPE_CHECKING:
    import torch

MODELS = ("faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet", "fcos", "deeplabv3")


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
    epilog="Example: vertebra benchmark --size 480x640 --rounds 3",
)
@click.option("--model", type=click.Choice(MODELS), default=MODELS[0], help="The model to time.")
@click.option("--size", type=parse_size, default="800x1216", metavar="HxW", help="Size of the images in pixels.")
@integer_option("--batch", 1, "Images per step.")
@integer_option("--rounds", 5, "Timed rounds per model.")
@device_option
def command(model: str, size: tuple[int, int], batch: int, rounds: int, device: str) -> None:
    """Time a training step and inference of our model and torchvision's, alternately (A B A B).

    The models are detectors with a ResNet-50-FPN, and DeepLabv3 with a ResNet-50 at output stride 8. Shows the median
    seconds of each and the median ratio, ours divided by theirs.
    """
    import torch

    from vertebra.structures import pick_device
    from vertebra.tools.benchmark_pairs import PAIRS

    torch.manual_seed(0)
    chosen_device = pick_device(device)
    height, width = size
    pixels = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(batch)]
    pair = PAIRS[model](pixels, chosen_device)

    def train(network: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> None:
        network.train()
        network.zero_grad(set_to_none=True)
        loss().backward()

    def infer(network: torch.nn.Module, inference: Callable) -> None:
        network.eval()
        with torch.no_grad():
            inference()

    threads = torch.get_num_threads()
    click.echo(f"{model}, {chosen_device}, torch {torch.__version__}, {threads} threads, {batch} x {height}x{width}")
    for name, ours, theirs in (
        ("training step", lambda: train(pair.ours, pair.our_loss), lambda: train(pair.theirs, pair.their_loss)),
        ("inference", lambda: infer(pair.ours, pair.our_inference), lambda: infer(pair.theirs, pair.their_inference)),
    ):
        our_seconds, their_seconds = alternate(ours, theirs, rounds, chosen_device)
        ratio = statistics.median(a / b for a, b in zip(our_seconds, their_seconds, strict=True))
        click.echo(
            f"{name:14} ours {statistics.median(our_seconds):.3f} s, torchvision "
            f"{statistics.median(their_seconds):.3f} s, ratio {ratio:.2f}"
        )


def alternate(
    first: Callable[[], None], second: Callable[[], None], rounds: int, device: "torch.device"
) -> tuple[list[float], list[float]]:
    """Time two functions alternately; return the seconds of each round for both, after one warm-up round."""
    import torch

    seconds: tuple[list[float], list[float]] = ([], [])
    for round_index in range(rounds + 1):
        for function, record in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_index > 0:
                record.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    raise SystemExit(run_command(command))
