"""Try timm's models under every head, and write down which pass and why the others do not."""

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from vertebra.tools.cli import run_tool

SIZES = ((64, 96), (70, 66))  # pixels; the two images of the batch
CLASSES = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/compat.py [PATTERN ...] --results FILE [--table FILE]``."""
    options = _parse(arguments)

    import timm

    import vertebra.backbones
    import vertebra.heads
    import vertebra.models
    import vertebra.necks  # noqa: F401  # once, here: every model's process inherits them

    known = _read(options.results)
    wanted = {name for pattern in options.patterns for name in timm.list_models(pattern)}
    end = time.monotonic() + 60 * options.minutes
    for family, name in _take_turns(wanted - known.keys(), options.parameters):
        if time.monotonic() > end:
            break
        record = {"model": name, "family": family, **_try_in_a_process(name, options.limit)}
        known[name] = record
        with options.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(_line(record), flush=True)
    if options.table is not None:
        from vertebra.tools.compat_page import write_page

        write_page(options.table, list(known.values()), sorted(wanted - known.keys()))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compat",
        description="Build timm's models as backbones and take two training steps with each head: forward, backward "
        "and a loss that falls both times. The families take turns, so that any time limit covers them all.",
        epilog="example: python tools/compat.py --minutes 60 --results compat.jsonl --table docs/compatibility.md",
    )
    parser.add_argument("patterns", nargs="*", default=["*"], help="names to try, as shell patterns (default all)")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="a line per model; it is continued")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the results as a page here")
    parser.add_argument(
        "--minutes",
        type=float,
        default=60.0,
        help="start no model after this long; 0 only writes the table (default 60)",
    )
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one model (default 120)")
    parser.add_argument("--parameters", type=float, default=100.0, help="try none with more, in millions (default 100)")
    return parser.parse_args(arguments)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """What earlier runs found, by model."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["model"]: record for record in map(json.loads, lines)}


def _line(record: dict[str, Any]) -> str:
    heads = "  ".join(f"{head}: {said}" for head, said in record.get("heads", {}).items())
    return f"{record['model']}: {heads or record['reason']}"


def _take_turns(wanted: set[str], most: float) -> Iterator[tuple[str, str]]:
    """Family and name: the smallest model of every family, then the next of every family; none above ``most``."""
    import timm

    families = {}
    for family in timm.list_modules():
        sizes = {name: _count_parameters(name) for name in timm.list_models(module=family) if name in wanted}
        fitting = {name: size for name, size in sizes.items() if size is None or size <= most}
        families[family] = sorted(fitting, key=lambda name: (fitting[name] is None, fitting[name], name))
    for turn in zip_longest(*families.values()):
        yield from ((family, name) for family, name in zip(families, turn, strict=True) if name is not None)


def _try_in_a_process(name: str, limit: float) -> dict[str, Any]:
    """One model in a process of its own: what hangs is ended, and what crashes takes nothing along."""
    processes = multiprocessing.get_context("fork")
    receiver, sender = processes.Pipe(duplex=False)
    child = processes.Process(target=_report, args=(name, sender))
    started = time.monotonic()
    child.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(limit) else {"reason": f"not done in {limit:.0f} s"}
    except EOFError:
        child.join()
        found = {"reason": f"the process died with exit code {child.exitcode}"}
    child.kill()
    child.join()
    return found | {"seconds": round(time.monotonic() - started, 1)}


def _report(name: str, sender: Any) -> None:
    try:
        sender.send(try_model(name))
    except Exception as error:
        sender.send({"reason": _reason(error)})


def try_model(name: str) -> dict[str, Any]:
    """What one model can: its levels, and per head ``yes`` or why not."""
    import torch

    torch.set_num_threads(1)
    backbone, options = _create(name)
    from vertebra.necks import NECKS, PassthroughConfig, default_neck

    millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    neck = default_neck(backbone.feature_info).replace(channels=64)
    pyramid, levels = (NECKS.build(kind, backbone.feature_info) for kind in (neck, PassthroughConfig()))
    heads = {
        "rcnn": _try_head(backbone, pyramid, _small_rcnn()),
        "deeplab": _try_head(backbone, levels, _small_deeplab(backbone.feature_info)),
        "classification": _try_head(backbone, levels, _classifier()),
    }
    return {
        "parameters": round(millions, 1),
        "levels": {level: [info.channels, info.stride] for level, info in backbone.feature_info.items()},
        "options": options,
        "neck": neck.name,
        "heads": heads,
    }


def _count_parameters(name: str) -> float | None:
    """In millions, without allocating them; None for a model that cannot be built so."""
    import timm
    import torch

    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters()) / 1e6
    except Exception:  # some models compute with their own values while they are built
        return None


def _create(name: str):
    """The backbone, and the options that it took to get it: a patch or an image size, where it needs one."""
    import timm

    from vertebra.backbones import create_backbone
    from vertebra.structures import UsageError

    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    size = known.input_size[-1] if known is not None else 224
    choices: Sequence[dict[str, Any]] = ({}, {"patch_size": 16}, {"image_size": size})
    refusal = None
    for options in choices:
        try:
            return create_backbone(f"timm/{name}", **options), options
        except UsageError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _small_rcnn():
    """Every anchor is a proposal and every proposal is learned from, so that chance does not move the loss."""
    from vertebra.heads import BoxBranchConfig, MaskBranchConfig, RCNNConfig, RPNConfig
    from vertebra.ops import RoIAlignConfig

    everything = (10_000, 10_000)
    return RCNNConfig(
        rpn=RPNConfig(pre_nms=everything, post_nms=everything, nms_threshold=1.0, samples=10_000),
        box=BoxBranchConfig(fc=(32,), samples=4096),
        mask=MaskBranchConfig(pool=RoIAlignConfig(size=7), convolutions=(16,)),
    )


def _small_deeplab(feature_info):
    """On the deepest level of stride 16, or the first of those beyond it."""
    from vertebra.heads import DeepLabConfig

    strides = {level: info.stride for level, info in feature_info.items()}
    wanted = 16 if 16 in strides.values() else min(strides.values(), key=lambda stride: abs(stride - 16))
    level = [level for level, stride in strides.items() if stride == wanted][-1]
    return DeepLabConfig(level=level, rates=(6, 12, 18), channels=32)


def _classifier():
    from vertebra.heads import ClassificationConfig

    return ClassificationConfig()


def _try_head(backbone, neck, config) -> str:
    """``yes``, or what went wrong. The learning rate is lowered before a loss that rises counts."""
    import copy

    from vertebra.heads import HEADS
    from vertebra.models import Model

    try:
        head = HEADS.build(config, backbone.feature_info | neck.feature_info, CLASSES)
        model = Model(backbone, neck, head)
        start = copy.deepcopy(model.state_dict())
        for rate in (1e-3, 1e-4, 1e-5, 1e-6):
            model.load_state_dict(start)
            losses = _two_steps(model, head.task, rate)
            if losses[0] > losses[1] > losses[2]:
                return "yes"
    except Exception as error:
        return _reason(error)
    return "the loss does not fall: " + ", ".join(f"{loss:.4f}" for loss in losses)


def _reason(error: Exception) -> str:
    """One line; an error of ours needs no name of a class before it."""
    return getattr(error, "what", "") or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _two_steps(model, task: str, rate: float) -> list[float]:
    """The loss of the same two images before, between and after two steps; NaN is no fall."""
    import torch

    from vertebra.structures import Images, Instances

    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]
    images = Images.from_list(pixels, model.size_divisor)
    boxes = torch.tensor([[4.0, 4.0, 40.0, 44.0], [30.0, 10.0, 60.0, 60.0]])
    masks = [torch.zeros(2, *size, dtype=torch.bool) for size in SIZES]
    for both in masks:
        both[0, 4:44, 4:40] = both[1, 10:60, 30:60] = True
    targets = {
        "detection": [
            Instances(boxes, torch.tensor([0, 2]), masks[0]),
            Instances(boxes[:1], torch.tensor([1]), masks[1][:1]),
        ],
        "semantic": [both.any(dim=0).long() for both in masks],
        "classification": [torch.tensor(0), torch.tensor(2)],
    }[task]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    model.train()
    for _ in range(3):
        torch.manual_seed(0)  # the same proposals are sampled and the same units dropped
        loss = torch.stack(list(model(images, targets).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
