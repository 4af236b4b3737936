"""Benchmark of our backbones against torchvision's and timm's, run alternately with the same weights and images."""

import statistics
from typing import TYPE_CHECKING, NamedTuple

import click

from vertebra.tools.benchmark import alternate
from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import device_option, integer_option

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT_PATTERNS = (
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "resnet50d",
    "seresnet50",
    "ecaresnet50d",
    "wide_resnet50_2",
)


class Twins(NamedTuple):
    """A network in this library and in another, with the same weights."""

    ours: "nn.Module"
    theirs: "nn.Module"
    library: str
    """The other library: ``torchvision`` or ``timm``."""


@click.command(
    "benchmark-backbones",
    context_settings=CONTEXT,
    short_help="Time backbones against torchvision's and timm's.",
    epilog='Example: vertebra benchmark-backbones "resnet*" "seresnext50*" --size 320',
)
@click.argument("patterns", nargs=-1)
@integer_option("--size", 224, "Height and width of the images in pixels.", least=32)
@integer_option("--batch", 4, "Images per batch.")
@integer_option("--rounds", 7, "Timed rounds per network.")
@device_option
def command(patterns: tuple[str, ...], size: int, batch: int, rounds: int, device: str) -> None:
    """Time our backbones and torchvision's (or timm's, if torchvision has none), alternately (A B A B).

    Shows the median milliseconds of a forward pass in evaluation mode, and of forward and backward in training mode,
    and the ratio, ours divided by theirs. PATTERNS are shell patterns of backbone names; without any, seven backbones
    of different designs are timed.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from vertebra.backbones import RESNETS, list_backbones
    from vertebra.structures import pick_device

    chosen_device = pick_device(device)
    pixels = torch.randn(batch, 3, size, size, device=chosen_device)
    threads = torch.get_num_threads()
    click.echo(f"{chosen_device}, torch {torch.__version__}, {threads} threads, {tuple(pixels.shape)}")
    table = Table("name", "against", "forward ms", "theirs", "ratio", "with backward ms", "theirs", "ratio")
    names = [name for pattern in patterns or DEFAULT_PATTERNS for name in list_backbones(pattern) if name in RESNETS]
    for name in names:
        twins = _build_twins(name, chosen_device)
        if twins is not None:
            table.add_row(name, twins.library, *_time(twins, pixels, rounds))
    Console(width=110).print(table)


def _build_twins(name: str, device: "torch.device") -> Twins | None:
    """Build a backbone in our library and in torchvision or timm; return None if neither of the two has it."""
    import timm
    import torch
    from torchvision.models import get_model, list_models

    import vertebra

    in_torchvision = name in list_models()
    if not in_torchvision and not timm.is_model(name):
        return None
    torch.manual_seed(0)
    if in_torchvision:
        classifier = get_model(name, weights=None)
        theirs = _cut_into_levels(classifier)
    else:
        classifier = timm.create_model(name)
        theirs = timm.models.FeatureListNet(classifier, out_indices=(1, 2, 3, 4))
    ours = vertebra.create_backbone(name)
    weights = {key: value for key, value in classifier.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(weights)
    return Twins(ours.to(device), theirs.to(device), "torchvision" if in_torchvision else "timm")


def _cut_into_levels(classifier: "nn.Module") -> "nn.Module":
    """Return a torchvision classifier as a module that returns feature maps, as torchvision's detectors use it."""
    from torchvision.models._utils import IntermediateLayerGetter

    return IntermediateLayerGetter(classifier, {f"layer{number}": str(number) for number in range(1, 5)})


def _time(twins: Twins, pixels: "torch.Tensor", rounds: int) -> list[str]:
    """Return the median milliseconds and ratios as the cells of a table row."""
    import torch

    def forward(network: torch.nn.Module) -> None:
        with torch.no_grad():
            network.eval()(pixels)

    def forward_and_backward(network: torch.nn.Module) -> None:
        network.train().zero_grad(set_to_none=True)
        levels = network(pixels)
        levels = list(levels.values()) if isinstance(levels, dict) else levels
        torch.stack([level.mean() for level in levels]).sum().backward()

    cells = []
    for work in (forward, forward_and_backward):
        seconds = alternate(
            lambda work=work: work(twins.ours), lambda work=work: work(twins.theirs), rounds, pixels.device
        )
        ratio = statistics.median(ours / theirs for ours, theirs in zip(*seconds, strict=True))
        cells += [*(f"{1000 * statistics.median(series):.0f}" for series in seconds), f"{ratio:.2f}"]
    return cells


if __name__ == "__main__":
    raise SystemExit(run_command(command))
