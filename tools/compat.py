"""Try timm's models as backbones under every head, and record which pass and why the others do not."""

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from vertebra.tools.cli import run_tool

IMAGE_SIZES = ((64, 96), (70, 66))  # height and width in pixels of the two images of the batch
NUM_CLASSES = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``tools/compat.py [PATTERN ...] --results FILE [--table FILE]`` and return the exit code."""
    options = _parse(arguments)

    import timm

    import vertebra.backbones
    import vertebra.heads
    import vertebra.models
    import vertebra.necks  # noqa: F401  # imported once, since every model's process is forked from this one

    records = _read_records(options.results)
    wanted = {name for pattern in options.patterns for name in timm.list_models(pattern)}
    deadline = time.monotonic() + 60 * options.minutes
    for family, name in _alternate_families(wanted - records.keys(), options.parameters):
        if time.monotonic() > deadline:
            break
        record = {"model": name, "family": family, **_try_in_process(name, options.limit)}
        records[name] = record
        with options.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(_format_record(record), flush=True)
    if options.table is not None:
        from vertebra.tools.compat_page import write_page

        write_page(options.table, list(records.values()), sorted(wanted - records.keys()))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compat",
        description="Build timm's models as backbones and train each for two steps with every head. A head passes if "
        "the loss falls both times. The smallest model of every family comes first, then the next of every family, so "
        "that a time limit covers all families.",
        epilog="example: python tools/compat.py --minutes 60 --results compat.jsonl --table docs/compatibility.md",
    )
    parser.add_argument("patterns", nargs="*", default=["*"], help="shell patterns of names to try (default: all)")
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        metavar="FILE",
        help="a JSON line for each model; models that are in it are not tried again",
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the results as a Markdown page to FILE")
    parser.add_argument(
        "--minutes",
        type=float,
        default=60.0,
        help="start no model after so many minutes; 0 only writes the table (default 60)",
    )
    parser.add_argument("--limit", type=float, default=120.0, help="time limit for one model in seconds (default 120)")
    parser.add_argument(
        "--parameters", type=float, default=100.0, help="skip models with more parameters, in millions (default 100)"
    )
    return parser.parse_args(arguments)


def _read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records of earlier runs by model."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["model"]: record for record in map(json.loads, lines)}


def _format_record(record: dict[str, Any]) -> str:
    heads = "  ".join(f"{head}: {result}" for head, result in record.get("heads", {}).items())
    return f"{record['model']}: {heads or record['reason']}"


def _alternate_families(wanted: set[str], max_parameters: float) -> Iterator[tuple[str, str]]:
    """Yield family and name: the smallest wanted model of every family, then the next of every family.

    Models of more than ``max_parameters`` million parameters are left out.
    """
    import timm

    families = {}
    for family in timm.list_modules():
        sizes = {name: _count_parameters(name) for name in timm.list_models(module=family) if name in wanted}
        small = {name: size for name, size in sizes.items() if size is None or size <= max_parameters}
        families[family] = sorted(small, key=lambda name: (small[name] is None, small[name], name))
    for names in zip_longest(*families.values()):
        yield from ((family, name) for family, name in zip(families, names, strict=True) if name is not None)


def _try_in_process(name: str, limit: float) -> dict[str, Any]:
    """Return the record of one model, tried in a child process that may hang or crash.

    It is killed after ``limit`` seconds.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_record, args=(name, sender))
    started = time.monotonic()
    child.start()
    sender.close()
    try:
        record = receiver.recv() if receiver.poll(limit) else {"reason": f"not done in {limit:.0f} s"}
    except EOFError:
        child.join()
        record = {"reason": f"the process died with exit code {child.exitcode}"}
    child.kill()
    child.join()
    return record | {"seconds": round(time.monotonic() - started, 1)}


def _send_record(name: str, sender: Any) -> None:
    try:
        sender.send(try_model(name))
    except Exception as error:
        sender.send({"reason": _reason(error)})


def try_model(name: str) -> dict[str, Any]:
    """Return the record of one model: its levels, and for each head ``yes`` or the reason why not."""
    import torch

    torch.set_num_threads(1)
    backbone, options = _create_backbone(name)
    from vertebra.heads import ClassificationConfig
    from vertebra.necks import NECKS, PassthroughConfig, default_neck

    millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    neck = default_neck(backbone.feature_info).replace(channels=64)
    pyramid, levels = (NECKS.build(config, backbone.feature_info) for config in (neck, PassthroughConfig()))
    heads = {
        "rcnn": _try_head(backbone, pyramid, _small_rcnn()),
        "deeplab": _try_head(backbone, levels, _small_deeplab(backbone.feature_info)),
        "classification": _try_head(backbone, levels, ClassificationConfig()),
    }
    return {
        "parameters": round(millions, 1),
        "levels": {level: [info.channels, info.stride] for level, info in backbone.feature_info.items()},
        "options": options,
        "neck": neck.name,
        "heads": heads,
    }


def _count_parameters(name: str) -> float | None:
    """Return the number of parameters in millions; None for a model that cannot be built on the meta device."""
    import timm
    import torch

    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters()) / 1e6
    except Exception:  # some models compute with their weights while they are built
        return None


def _create_backbone(name: str):
    """Build the backbone, and return it with the options that it needed: a patch size or an image size, if any."""
    import timm

    from vertebra.backbones import create_backbone
    from vertebra.structures import UsageError

    published = timm.get_pretrained_cfg(name, allow_unregistered=True)
    size = published.input_size[-1] if published is not None else 224
    choices: Sequence[dict[str, Any]] = ({}, {"patch_size": 16}, {"image_size": size})
    first_error = None
    for options in choices:
        try:
            return create_backbone(f"timm/{name}", **options), options
        except UsageError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _small_rcnn():
    """Return a small Mask R-CNN that trains on every anchor and proposal, so that sampling does not change the loss."""
    from vertebra.heads import BoxBranchConfig, MaskBranchConfig, RCNNConfig, RPNConfig
    from vertebra.ops import RoIAlignConfig

    unlimited = (10_000, 10_000)
    return RCNNConfig(
        rpn=RPNConfig(pre_nms=unlimited, post_nms=unlimited, nms_threshold=1.0, samples=10_000),
        box=BoxBranchConfig(fc=(32,), samples=4096),
        mask=MaskBranchConfig(pool=RoIAlignConfig(size=7), convolutions=(16,)),
    )


def _small_deeplab(feature_info):
    """Return a small DeepLab on the deepest level of stride 16, or else of the stride nearest to it."""
    from vertebra.heads import DeepLabConfig

    strides = {level: info.stride for level, info in feature_info.items()}
    wanted = 16 if 16 in strides.values() else min(strides.values(), key=lambda stride: abs(stride - 16))
    level = [level for level, stride in strides.items() if stride == wanted][-1]
    return DeepLabConfig(level=level, rates=(6, 12, 18), channels=32)


def _try_head(backbone, neck, config) -> str:
    """Return ``yes`` if the loss falls in both steps at one of four learning rates, otherwise what went wrong."""
    import copy

    from vertebra.heads import HEADS
    from vertebra.models import Model

    try:
        head = HEADS.build(config, backbone.feature_info | neck.feature_info, NUM_CLASSES)
        model = Model(backbone, neck, head)
        start = copy.deepcopy(model.state_dict())
        for rate in (1e-3, 1e-4, 1e-5, 1e-6):
            model.load_state_dict(start)
            losses = _train_two_steps(model, head.task, rate)
            if losses[0] > losses[1] > losses[2]:
                return "yes"
    except Exception as error:
        return _reason(error)
    return "the loss does not fall: " + ", ".join(f"{loss:.4f}" for loss in losses)


def _reason(error: Exception) -> str:
    """Return an error as one line; Vertebra's errors need no class name before their text."""
    return getattr(error, "what", "") or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _train_two_steps(model, task: str, rate: float) -> list[float]:
    """Return the loss of the same two images before, between and after two training steps."""
    import torch

    from vertebra.structures import Images, Instances

    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in IMAGE_SIZES]
    images = Images.from_list(pixels, model.size_divisor)
    boxes = torch.tensor([[4.0, 4.0, 40.0, 44.0], [30.0, 10.0, 60.0, 60.0]])
    masks = [torch.zeros(2, *size, dtype=torch.bool) for size in IMAGE_SIZES]
    for mask in masks:
        mask[0, 4:44, 4:40] = mask[1, 10:60, 30:60] = True
    targets = {
        "detection": [
            Instances(boxes, torch.tensor([0, 2]), masks[0]),
            Instances(boxes[:1], torch.tensor([1]), masks[1][:1]),
        ],
        "semantic": [mask.any(dim=0).long() for mask in masks],
        "classification": [torch.tensor(0), torch.tensor(2)],
    }[task]
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=rate)
    losses = []
    model.train()
    for _ in range(3):
        torch.manual_seed(0)  # samples the same proposals and drops the same units in every step
        loss = torch.stack(list(model(images, targets).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
