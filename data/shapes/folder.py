"""The generated data set on disk: written whole or not at all, and written once."""

import json
import tempfile
from pathlib import Path
from typing import Any

from ...structures import UsageError
from .coco_writer import CocoWriter
from .scene import SPLITS, SceneConfig, Split, draw_scene
from .voc_writer import VocWriter

STAMP = "shapes.json"

DRAWING = 1
"""Counted up when the same parameters come to give other pictures, so that none drawn before are taken for them."""


def parameters(train: int, val: int, seed: int, config: SceneConfig) -> dict[str, Any]:
    """All that the files depend on."""
    return {"drawing": DRAWING, "train": train, "val": val, "seed": seed, **config.model_dump()}


def write_shapes(root: Path, train: int, val: int, seed: int = 0, config: SceneConfig = SceneConfig()) -> bool:
    """Write a new folder with the same pictures in ``coco/`` and ``voc/``; False where it already has just these.

    It appears when it is complete, so that a killed run leaves none that looks finished. UsageError where the folder
    holds anything else.
    """
    root = root.absolute()
    wanted = parameters(train, val, seed, config)
    if _is_written(root, wanted):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        folder = Path(scratch) / root.name
        for split, count in zip(SPLITS, (train, val), strict=True):
            _write_split(folder, split, count, seed, config)
        (folder / STAMP).write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        try:
            folder.rename(root)
        except OSError:
            # Another process may have been quicker; what it drew is the same.
            if _is_written(root, wanted):
                return False
            raise
    return True


def _write_split(folder: Path, split: Split, count: int, seed: int, config: SceneConfig) -> None:
    writers = CocoWriter(folder / "coco", split), VocWriter(folder / "voc", split)
    for index in range(count):
        scene = draw_scene(config, seed, split, index)
        for writer in writers:
            writer.add(scene)
    for writer in writers:
        writer.finish()


def _is_written(root: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder holds exactly these shapes; False where it is empty or not there."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError("this is not a folder of generated shapes", "choose a new one", file=root) from None
    if found != wanted:
        raise UsageError(
            f"other shapes are here: drawn with {found}, asked for {wanted}", "choose a new folder", file=root
        )
    return True
