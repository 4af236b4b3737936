"""Time our backbones against torchvision's and timm's own, in turn, with the same weights and images."""

import argparse
import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from vertebra.tools.benchmark import alternate
from vertebra.tools.cli import parse_integer, run_tool

FEW = ("resnet18", "resnet50", "resnext50_32x4d", "resnet50d", "seresnet50", "ecaresnet50d", "wide_resnet50_2")


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/benchmark_backbones.py [PATTERN ...] [--size 224] [--batch 4] [--rounds 7]``."""
    parser = argparse.ArgumentParser(
        prog="benchmark-backbones",
        description="Median milliseconds of a forward pass in evaluation, and of forward and backward in training: "
        "ours and torchvision's (or timm's, where torchvision has none) in turn (A B A B), and their ratio.",
        epilog='example: python tools/benchmark_backbones.py "resnet*" "seresnext50*" --size 320',
    )
    parser.add_argument("patterns", nargs="*", default=FEW, help="which rows, as shell patterns (default: seven kinds)")
    parser.add_argument("--size", type=parse_integer(32), default=224, help="pixels of each side (default 224)")
    parser.add_argument("--batch", type=parse_integer(1), default=4, help="images (default 4)")
    parser.add_argument("--rounds", type=parse_integer(1), default=7, help="timed rounds of each (default 7)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)

    import torch

    from vertebra.backbones import RESNETS, list_backbones
    from vertebra.engine import pick_device

    device = pick_device(options.device)
    pixels = torch.randn(options.batch, 3, options.size, options.size, device=device)
    print(f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads, {tuple(pixels.shape)}")
    table = Table("name", "beside", "forward ms", "theirs", "ratio", "with backward ms", "theirs", "ratio")
    names = [name for pattern in options.patterns for name in list_backbones(pattern) if name in RESNETS]
    for name in names:
        twins = _twins(name, device)
        if twins is not None:
            table.add_row(name, twins[2], *_time(*twins[:2], pixels, options.rounds))
    Console(width=110).print(table)
    return 0


def _twins(name: str, device):
    """Ours and the peer's with the same weights, and whose it is; None where neither library has it."""
    import timm
    import torch
    from torchvision.models import get_model, list_models

    import vertebra

    by_torchvision = name in list_models()
    if not by_torchvision and not timm.is_model(name):
        return None
    torch.manual_seed(0)
    whole = get_model(name, weights=None) if by_torchvision else timm.create_model(name)
    theirs = timm.models.FeatureListNet(whole, out_indices=(1, 2, 3, 4)) if not by_torchvision else _levels_of(whole)
    ours = vertebra.create_backbone(name)
    ours.load_state_dict({key: value for key, value in whole.state_dict().items() if not key.startswith("fc.")})
    return ours.to(device), theirs.to(device), "torchvision" if by_torchvision else "timm"


def _levels_of(whole):
    """torchvision's own way to a pyramid, as its detectors use it."""
    from torchvision.models._utils import IntermediateLayerGetter

    return IntermediateLayerGetter(whole, {f"layer{number}": str(number) for number in range(1, 5)})


def _time(ours, theirs, pixels, rounds: int) -> list[str]:
    """Milliseconds and ratios as cells of the table."""
    import torch

    def forward(network) -> None:
        with torch.no_grad():
            network.eval()(pixels)

    def with_backward(network) -> None:
        network.train().zero_grad(set_to_none=True)
        levels = network(pixels)
        levels = list(levels.values()) if isinstance(levels, dict) else levels
        torch.stack([level.mean() for level in levels]).sum().backward()

    cells = []
    for run in (forward, with_backward):
        seconds = alternate(lambda run=run: run(ours), lambda run=run: run(theirs), rounds, pixels.device)
        ratio = statistics.median(mine / other for mine, other in zip(*seconds, strict=True))
        cells += [*(f"{1000 * statistics.median(series):.0f}" for series in seconds), f"{ratio:.2f}"]
    return cells


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
