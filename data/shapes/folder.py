"""The generated data set on disk: written whole or not at all, and written once."""

import json
import tempfile
from pathlib import Path
from typing import Any

from ...structures import UsageError
from .coco_writer import CocoWriter
from .scene import SPLITS, SceneConfig, draw_scene
from .voc_writer import VocWriter

STAMP = "shapes.json"

DRAWING = 1
"""Counted up when the same parameters come to give other pictures, so that none drawn before are taken for them."""


def parameters(train: int, val: int, seed: int, config: SceneConfig) -> dict[str, Any]:
    """All that the files depend on."""
    return {"drawing": DRAWING, "train": train, "val": val, "seed": seed, **config.model_dump()}


def write_shapes(root: Path, train: int, val: int, seed: int = 0, config: SceneConfig = SceneConfig()) -> bool:
    """Write ``coco/`` and ``voc/`` below a new folder, the same pictures in both; False where they already were there.

    The folder appears when it is complete, so that a run which is killed leaves none behind that looks finished.
    UsageError where it holds anything else.
    """
    wanted = parameters(train, val, seed, config)
    if _is_written(root, wanted):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        folder = Path(scratch) / root.name
        for split, count in zip(SPLITS, (train, val), strict=True):
            writers = CocoWriter(folder / "coco", split), VocWriter(folder / "voc", split)
            for index in range(count):
                scene = draw_scene(config, seed, split, index)
                for writer in writers:
                    writer.add(scene)
            for writer in writers:
                writer.finish()
        (folder / STAMP).write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        return _publish(folder, root, wanted)


def _publish(folder: Path, root: Path, wanted: dict[str, Any]) -> bool:
    """Rename the finished folder; where another process was quicker, its copy is as good."""
    try:
        folder.rename(root)
    except OSError:
        if _is_written(root, wanted):
            return False
        raise
    return True


def _is_written(root: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder holds exactly this; False for none or an empty one."""
    try:
        found = json.loads((root / STAMP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = None
    ...
