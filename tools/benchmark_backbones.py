"""Time our backbones against torchvision's and timm's, in turn, with the same weights and images."""

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
    """A network in two libraries, with the same weights."""

    ours: "nn.Module"
    theirs: "nn.Module"
    library: str


@click.command(
    "benchmark-backbones",
    context_settings=CONTEXT,
    short_help="Time backbones against torchvision's and timm's.",
    epilog='Example: vertebra benchmark-backbones "resnet*" "seresnext50*" --size 320',
)
@click.argument("patterns", nargs=-1)
@integer_option("--size", 224, "Length of an image's sides in pixels.", least=32)
@integer_option("--batch", 4, "Images in a batch.")
@integer_option("--rounds", 7, "Timed rounds of each network.")
@device_option
def command(patterns: tuple[str, ...], size: int, batch: int, rounds: int, device: str) -> None:
    """Time backbones, ours and torchvision's (or timm's, where torchvision has none) in turn (A B A B).

    Shows the median milliseconds of a forward pass in evaluation, and of forward and backward in training, and their
    ratio. PATTERNS are shell patterns of names; without one, seven backbones of different design are timed.
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
    table = Table("name", "beside", "forward ms", "theirs", "ratio", "with backward ms", "theirs", "ratio")
    names = [name for pattern in patterns or DEFAULT_PATTERNS for name in list_backbones(pattern) if name in RESNETS]
    for name in names:
        twins = _build_twins(name, chosen_device)
        if twins is not None:
            table.add_row(name, twins.library, *_time(twins, pixels, rounds))
    Console(width=110).print(table)


def _build_twins(name: str, device: "torch.device") -> Twins | None:
    """Build a backbone in our library and in torchvision or timm; return None where neither has it."""
    import timm
    import torch
    from torchvision.models import get_model, list_models

    import vertebra

    by_torchvision = name in list_models()
    if not by_torchvision and not timm.is_model(name):
        return None
    torch.manual_seed(0)
    if by_torchvision:
        classifier = get_model(name, weights=None)
        theirs = _cut_into_levels(classifier)
    else:
        classifier = timm.create_model(name)
        theirs = timm.models.FeatureListNet(classifier, out_indices=(1, 2, 3, 4))
    ours = vertebra.create_backbone(name)
    weights = {key: value for key, value in classifier.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(weights)
    return Twins(ours.to(device), theirs.to(device), "torchvision" if by_torchvision else "timm")


def _cut_into_levels(classifier: "nn.Module") -> "nn.Module":
    """Return a torchvision classifier as a pyramid, in the way that torchvision's detectors use it."""
    from torchvision.models._utils import IntermediateLayerGetter

    return IntermediateLayerGetter(classifier, {f"layer{number}": str(number) for number in range(1, 5)})


def _time(twins: Twins, pixels: "torch.Tensor", rounds: int) -> list[str]:
    """Return milliseconds and ratios as cells of the table."""
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
