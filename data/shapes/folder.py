"""Writing of the folder of a generated data set, which is written once and atomically."""

import json
import tempfile
from pathlib import Path
from typing import Any

from ...structures import UsageError
from .coco_writer import CocoWriter
from .panoptic_writer import PanopticWriter
from .scene import SPLITS, SceneConfig, Split, draw_scene
from .voc_writer import VocWriter

STAMP = "shapes.json"

DRAWING_VERSION = 1
"""Increase it when the same parameters would give different images, so that folders of older images are not reused."""


def generation_parameters(train: int, val: int, seed: int, config: SceneConfig) -> dict[str, Any]:
    """Return all parameters that the files of a generated data set depend on."""
    scene = config.model_dump(exclude=set() if config.stuff else {"stuff"})  # so that earlier data sets stay valid
    return {"drawing": DRAWING_VERSION, "train": train, "val": val, "seed": seed, **scene}


def write_shapes(root: Path, train: int, val: int, seed: int = 0, config: SceneConfig = SceneConfig()) -> bool:
    """Write a data set of ``train`` and ``val`` images to a folder, in COCO's and in VOC's layout.

    The layouts are in ``coco/`` and ``voc/``. If scenes have stuff, COCO's panoptic files are added.

    Returns False if the folder already contains exactly this data set, and raises UsageError if it contains anything
    else. The folder is created by a rename when it is complete, so that a killed process leaves no partial folder.
    """
    root = root.absolute()
    wanted = generation_parameters(train, val, seed, config)
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
            # Another process may have written the same files in the meantime.
            if _is_written(root, wanted):
                return False
            raise
    return True


def _write_split(folder: Path, split: Split, count: int, seed: int, config: SceneConfig) -> None:
    coco = CocoWriter(folder / "coco", split)
    writers: list[CocoWriter | VocWriter | PanopticWriter] = [coco, VocWriter(folder / "voc", split)]
    if config.stuff:
        writers.append(PanopticWriter(folder / "coco", split, coco))
    for index in range(count):
        scene = draw_scene(config, seed, split, index)
        for writer in writers:
            writer.add(scene)
    for writer in writers:
        writer.finish()


def _is_written(root: Path, wanted: dict[str, Any]) -> bool:
    """Return whether the folder contains the data set of these parameters; False if it is empty or does not exist.

    Raises UsageError if it contains anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        present = json.loads((root / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError("this is not a folder of generated shapes", "choose a new folder", file=root) from None
    if present != wanted:
        raise UsageError(
            f"the folder holds other shapes, drawn with {present}; asked for {wanted}", "choose a new folder", file=root
        )
    return True
