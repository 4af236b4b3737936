"""Time our Faster R-CNN against torchvision's, in turn, on the same images."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from vertebra.tools.cli import run_tool, whole_number


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/benchmark.py [--size 800x1216] [--batch 1] [--rounds 5]``."""
    parser = argparse.ArgumentParser(
        prog="benchmark",
        description="Median seconds of a training step and of inference: ours and torchvision's Faster R-CNN R50-FPN "
        "in turn (A B A B), and their ratio. Both have the same trunk, frozen normalisation and 80 classes.",
        epilog="example: python tools/benchmark.py --size 480x640 --rounds 3",
    )
    parser.add_argument(
        "--size", type=_size, default=(800, 1216), metavar="HxW", help="image size in pixels (default 800x1216)"
    )
    parser.add_argument("--batch", type=whole_number(1), default=1, help="images a step (default 1)")
    parser.add_argument("--rounds", type=whole_number(1), default=5, help="timed rounds of each (default 5)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    height, width = options.size

    import torch

    from vertebra.engine import pick_device

    device = pick_device(options.device)
    ours, theirs = _models(height, width, device)
    our_inputs, their_inputs = _inputs(options.batch, height, width, device)

    def train(model: torch.nn.Module, inputs: tuple) -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        torch.stack(list(model(*inputs).values())).sum().backward()

    def infer_ours() -> None:
        ours.eval().predict(our_inputs[0])

    def infer_theirs() -> None:
        with torch.no_grad():
            theirs.eval()(their_inputs[0])

    print(f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads, {options.batch} x {height}x{width}")
    for name, first, second in (
        ("training step", lambda: train(ours, our_inputs), lambda: train(theirs, their_inputs)),
        ("inference", infer_ours, infer_theirs),
    ):
        our_seconds, their_seconds = alternate(first, second, options.rounds, device)
        ratio = statistics.median(a / b for a, b in zip(our_seconds, their_seconds, strict=True))
        print(
            f"{name:14} ours {statistics.median(our_seconds):.3f} s, torchvision "
            f"{statistics.median(their_seconds):.3f} s, ratio {ratio:.2f}"
        )
    return 0


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return whole_number(1)(height), whole_number(1)(width)


def _models(height: int, width: int, device):
    """Ours, at its default conventions, and torchvision's detector, which is to resize nothing."""
    import torch
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.misc import FrozenBatchNorm2d

    import vertebra
    from vertebra.necks import FPN

    torch.manual_seed(0)
    backbone = vertebra.create_backbone("resnet50", norm="frozen", freeze_at=2)
    neck = FPN(backbone.feature_info)
    ours = vertebra.Model(backbone, neck, vertebra.RCNNHead(neck.feature_info, num_classes=80))
    trunk = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    theirs = FasterRCNN(trunk, num_classes=81, min_size=min(height, width), max_size=max(height, width))
    theirs.backbone.get_submodule("body").load_state_dict(backbone.state_dict())
    return ours.to(device), theirs.to(device)


def _inputs(batch: int, height: int, width: int, device):
    """The same images and objects, as each wants them."""
    import torch

    from vertebra.structures import Images, Instances

    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator) for _ in range(batch)]
    corners = torch.rand(batch, 10, 2, generator=generator) * torch.tensor([width * 0.7, height * 0.7])
    sides = 20 + torch.rand(batch, 10, 2, generator=generator) * torch.tensor([width * 0.25, height * 0.25])
    boxes = torch.cat([corners, corners + sides], dim=2)
    labels = torch.arange(10) * 7
    images = Images.from_list(pixels).to(device)
    ours = (images, [Instances(image, labels).to(device) for image in boxes])
    targets = [{"boxes": image.to(device), "labels": (labels + 1).to(device)} for image in boxes]
    return ours, ([image.to(device) / 255 for image in pixels], targets)


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
