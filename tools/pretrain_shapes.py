"""Teach a small backbone to tell the generated shapes apart; its weights are what `quickstart` starts from."""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from vertebra.tools.cli import run_tool

CROP, LEVELS = 48, ("c2", "c3", "c4")


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/pretrain_shapes.py OUT.safetensors [--steps N]``."""
    parser = argparse.ArgumentParser(
        prog="pretrain_shapes",
        description="Train resnet10t (c2..c4) to classify crops of generated scenes that no config draws (seed 1), "
        "and write its weights as float16.",
        epilog="example: python tools/pretrain_shapes.py backbones/pretrained/shapes_resnet10t.safetensors",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="batches of 64 crops (default 2000)")
    options = parser.parse_args(arguments)

    import torch
    from safetensors.torch import save_file
    from torch.utils.data import DataLoader, IterableDataset

    import vertebra
    from vertebra.data.shapes import CLASS_NAMES
    from vertebra.engine import ScheduleConfig
    from vertebra.engine.optimization import set_learning_rate

    class Crops(IterableDataset):
        def __iter__(self):
            return _crops()

    torch.manual_seed(0)
    backbone = vertebra.create_backbone("resnet10t", levels=LEVELS)
    width = sum(info.channels for info in backbone.feature_info.values())
    classifier = torch.nn.Linear(width, len(CLASS_NAMES))
    optimizer = torch.optim.AdamW([*backbone.parameters(), *classifier.parameters()], weight_decay=0.05)
    schedule = ScheduleConfig(steps=options.steps, decay="cosine", warmup_steps=100)
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    correct = 0.0
    batches = DataLoader(Crops(), batch_size=64, num_workers=1, prefetch_factor=8)
    for step, (pixels, labels) in enumerate(itertools.islice(batches, options.steps)):
        set_learning_rate(optimizer, 3e-3 * schedule.factor(step))
        features = backbone((pixels - mean) / std)
        logits = classifier(torch.cat([level.mean(dim=(2, 3)) for level in features.values()], dim=1))
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        correct += (logits.argmax(dim=1) == labels).float().mean().item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{options.steps}  accuracy {correct / 100:.3f}", flush=True)
            correct = 0.0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value for name, value in backbone.state_dict().items() if value.is_floating_point()}
    save_file({name: value.half().contiguous() for name, value in tensors.items()}, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _crops() -> Iterator[tuple]:
    """A square around each object of scene after scene, moved, scaled and turned at random."""
    import cv2
    import numpy as np
    import torch

    from vertebra.data.shapes import SceneConfig, draw_scene

    generator = np.random.default_rng(0)
    for index in itertools.count():
        scene = draw_scene(SceneConfig(size=128), 1, "train", index)
        for thing in scene.objects:
            if thing.crowd:
                continue
            left, top, right, bottom = thing.box
            side = max(right - left, bottom - top) * generator.uniform(1.0, 1.7)
            x, y = (
                (low + high) / 2 + generator.uniform(-0.1, 0.1) * side for low, high in ((left, right), (top, bottom))
            )
            scale = CROP / side
            move = np.array([[scale, 0, CROP / 2 - scale * x], [0, scale, CROP / 2 - scale * y]])
            crop = cv2.warpAffine(
                scene.image, move, (CROP, CROP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
            crop = np.rot90(crop, int(generator.integers(4)))
            crop = crop[:, ::-1] if generator.integers(2) else crop
            pixels = torch.from_numpy(crop.transpose(2, 0, 1).astype(np.float32))
            yield pixels, thing.label


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
