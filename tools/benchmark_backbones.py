"""Benchmark of our backbones against torchvision's and timm's, run alternately with the same weights and images."""

import statistics
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import click

from vertebra.tools.benchmark import alternate
from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import device_option, integer_option, optimize_option

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vertebra.backbones import Backbone
    from vertebra.inference import OptimizedPrecision

DEFAULT_PATTERNS = (
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "resnet50d",
    "seresnet50",
    "ecaresnet50d",
    "wide_resnet50_2",
)


class Peers(NamedTuple):
    """A network in this library and in others, with the same weights."""

    ours: "nn.Module"
    theirs: "dict[str, nn.Module]"
    """The network by library: ``torchvision``, ``timm`` or both."""
    optimized: "nn.Module | None"
    """Our network, optimized for inference; None unless requested."""


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
@optimize_option
@device_option
def command(
    patterns: tuple[str, ...],
    size: int,
    batch: int,
    rounds: int,
    optimize: "OptimizedPrecision | None",
    device: str,
) -> None:
    """Time our backbones and those of torchvision and timm, alternately (A B A B).

    Shows the median milliseconds of a forward pass in evaluation mode, and of forward and backward in training mode,
    and the ratio, ours divided by theirs, for the faster of torchvision and timm. With --optimize, also the forward
    pass of our optimized backbone. PATTERNS are shell patterns of backbone names; without any, seven backbones of
    different designs are timed.
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
    columns = ("ms", "theirs", "ratio")
    works = ["forward", *(["optimized"] if optimize else []), "with backward"]
    table = Table("name", "against", *(f"{work} {column}" for work in works for column in columns))
    names = [name for pattern in patterns or DEFAULT_PATTERNS for name in list_backbones(pattern) if name in RESNETS]
    for name in names:
        peers = _build_peers(name, chosen_device, optimize)
        if peers is not None:
            table.add_row(name, *_time(peers, pixels, rounds))
    Console(width=140).print(table)


def _build_peers(name: str, device: "torch.device", optimize: "OptimizedPrecision | None") -> Peers | None:
    """Build a backbone in our library, torchvision and timm; return None if neither of the two others has it."""
    import timm
    import torch
    from torchvision.models import get_model, list_models

    import vertebra

    torch.manual_seed(0)
    theirs: dict[str, nn.Module] = {}
    weights = {}
    if timm.is_model(name):
        classifier = timm.create_model(name)
        weights = classifier.state_dict()
        theirs["timm"] = timm.models.FeatureListNet(classifier, out_indices=(1, 2, 3, 4)).to(device)
    if name in list_models():
        classifier = get_model(name, weights=None)
        if weights:
            classifier.load_state_dict(weights)
        weights = classifier.state_dict()
        theirs["torchvision"] = _cut_into_levels(classifier).to(device)
    if not theirs:
        return None
    ours = vertebra.create_backbone(name)
    ours.load_state_dict({key: value for key, value in weights.items() if not key.startswith("fc.")})
    ours.to(device)
    return Peers(ours, theirs, None if optimize is None else _optimize(ours, optimize))


def _optimize(backbone: "Backbone", precision: "OptimizedPrecision") -> "nn.Module":
    """Return an optimized copy of a backbone, as a function of normalized pixels."""
    import torch
    from torch import nn

    from vertebra.heads import ClassificationHead
    from vertebra.inference import optimize_for_inference
    from vertebra.models import Model
    from vertebra.necks import Passthrough

    head = ClassificationHead(backbone.feature_info, 10)
    model = Model(backbone, Passthrough(backbone.feature_info), head)
    optimized = optimize_for_inference(model, precision, check=False, say=lambda line: None)

    class Features(nn.Module):
        def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            with optimized.autocast():
                return optimized.backbone(pixels)

    return Features()


def _cut_into_levels(classifier: "nn.Module") -> "nn.Module":
    """Return a torchvision classifier as a module that returns feature maps, as torchvision's detectors use it."""
    from torchvision.models._utils import IntermediateLayerGetter

    return IntermediateLayerGetter(classifier, {f"layer{number}": str(number) for number in range(1, 5)})


def _time(peers: Peers, pixels: "torch.Tensor", rounds: int) -> list[str]:
    """Return the name of the faster library, and the median milliseconds and ratios, as the cells of a table row."""
    import torch

    def forward(network: torch.nn.Module) -> None:
        with torch.no_grad():
            network.eval()(pixels)

    def forward_and_backward(network: torch.nn.Module) -> None:
        network.train().zero_grad(set_to_none=True)
        levels = network(pixels)
        levels = list(levels.values()) if isinstance(levels, dict) else levels
        torch.stack([level.mean() for level in levels]).sum().backward()

    works = [(forward, peers.ours), (forward_and_backward, peers.ours)]
    if peers.optimized is not None:
        works.insert(1, (forward, peers.optimized))
    cells, fastest = [], ""
    for work, ours in works:
        functions = [partial(work, network) for network in (ours, *peers.theirs.values())]
        our_seconds, *their_seconds = alternate(functions, rounds, pixels.device, "wall")
        best = min(range(len(their_seconds)), key=lambda index: statistics.median(their_seconds[index]))
        fastest = fastest or list(peers.theirs)[best]
        pairs = zip(our_seconds, their_seconds[best], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        medians = (statistics.median(our_seconds), statistics.median(their_seconds[best]))
        cells += [*(f"{1000 * median:.0f}" for median in medians), f"{ratio:.2f}"]
    return [fastest, *cells]


if __name__ == "__main__":
    raise SystemExit(run_command(command))
