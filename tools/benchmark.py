"""Time our models against torchvision's, in turn, on the same images."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from vertebra.tools.cli import parse_integer, run_tool

MODELS = ("faster_rcnn", "mask_rcnn", "deeplabv3")


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/benchmark.py [--model faster_rcnn] [--size 800x1216] [--batch 1] [--rounds 5]``."""
    options = _parse(arguments)
    height, width = options.size

    import torch

    from vertebra.engine import pick_device
    from vertebra.tools.benchmark_pairs import PAIRS

    torch.manual_seed(0)
    device = pick_device(options.device)
    pixels = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(options.batch)]
    pair = PAIRS[options.model](pixels, device)

    def train(model: torch.nn.Module, losses: Callable) -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        torch.stack(list(losses().values())).sum().backward()

    def infer(model: torch.nn.Module, inference: Callable) -> None:
        model.eval()
        with torch.no_grad():
            inference()

    print(
        f"{options.model}, {device}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{options.batch} x {height}x{width}"
    )
    for name, first, second in (
        ("training step", lambda: train(pair.ours, pair.our_losses), lambda: train(pair.theirs, pair.their_losses)),
        ("inference", lambda: infer(pair.ours, pair.our_inference), lambda: infer(pair.theirs, pair.their_inference)),
    ):
        our_seconds, their_seconds = alternate(first, second, options.rounds, device)
        ratio = statistics.median(a / b for a, b in zip(our_seconds, their_seconds, strict=True))
        print(
            f"{name:14} ours {statistics.median(our_seconds):.3f} s, torchvision "
            f"{statistics.median(their_seconds):.3f} s, ratio {ratio:.2f}"
        )
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmark",
        description="Median seconds of a training step and of inference, ours and torchvision's in turn (A B A B), and "
        "their ratio: Faster or Mask R-CNN R50-FPN, or DeepLabv3 R50 at output stride 8.",
        epilog="example: python tools/benchmark.py --size 480x640 --rounds 3",
    )
    parser.add_argument("--model", choices=MODELS, default=MODELS[0], help="which pair (default faster_rcnn)")
    parser.add_argument(
        "--size", type=_size, default=(800, 1216), metavar="HxW", help="image size in pixels (default 800x1216)"
    )
    parser.add_argument("--batch", type=parse_integer(1), default=1, help="images a step (default 1)")
    parser.add_argument("--rounds", type=parse_integer(1), default=5, help="timed rounds of each (default 5)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args(arguments)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return parse_integer(1)(height), parse_integer(1)(width)


def alternate(first: Callable[[], None], second: Callable[[], None], rounds: int, device):
    """Seconds of each, run in turn after a warm-up of both."""
    import torch

    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for run, record in zip((first, second), seconds, strict=True):
            began = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                record.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
