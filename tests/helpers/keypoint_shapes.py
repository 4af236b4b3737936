"""The generated shapes as a data set with keypoints: the middle of three sides of each object's box."""

import json
from pathlib import Path

from vertebra.data import CocoConfig, CocoKeypointsConfig
from vertebra.engine import ExperimentConfig
from vertebra.heads import BoxBranchConfig, KeypointBranchConfig

from .tiny import tiny_config

NAMES = ("left_side", "top", "right_side")


def add_keypoints(shapes: Path, folder: Path, split: str) -> CocoConfig:
    """Write the annotations of a split with keypoints into a folder; return the config of the data set."""
    content = json.loads((shapes / "annotations" / f"instances_{split}.json").read_text())
    for category in content["categories"]:
        category |= {"keypoints": list(NAMES), "skeleton": [[1, 2], [2, 3]]}
    for number, annotation in enumerate(content["annotations"]):
        left, top, width, height = annotation["bbox"]
        points = [left, top + height / 2, 2, left + width / 2, top, 1 + number % 2, left + width, top + height / 2, 2]
        annotation |= {"keypoints": points, "num_keypoints": 3}
    path = folder / f"keypoints_{split}.json"
    path.write_text(json.dumps(content))
    return CocoConfig(images=shapes / split, annotations=path, keypoints=CocoKeypointsConfig())


def tiny_keypoint_config(shapes: Path, folder: Path, **changes) -> ExperimentConfig:
    """Return a small Keypoint R-CNN of the shapes, with ``changes`` as :meth:`Config.replace` takes them."""
    config = tiny_config(shapes)
    head = config.model.head.replace(
        keypoint=KeypointBranchConfig(names=NAMES, convolutions=(8, 8)),
        box=BoxBranchConfig(fc=(16,), samples=16, score_threshold=0.0, max_detections=10),
    )
    splits = {
        name: split.replace(dataset=add_keypoints(shapes, folder, name))
        for name, split in (("train", config.train), ("val", config.val))
    }
    return config.replace(model=config.model.replace(head=head), **splits).replace(**changes)
