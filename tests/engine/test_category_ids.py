"""Validation files with other category ids or another order of classes than the training file."""

import json
import shutil
from pathlib import Path

from vertebra.data import CocoConfig, CocoSemanticConfig, ScaledCropConfig, VocConfig
from vertebra.data.shapes import CLASS_NAMES
from vertebra.engine import AdamWConfig, ExperimentConfig, ScheduleConfig, train
from vertebra.heads import FCNConfig
from vertebra.necks import PassthroughConfig

from ..helpers.runs import eval_scores, read_scores
from ..helpers.tiny import BACKBONE, tiny_config


def train_longer(config: ExperimentConfig, steps: int = 20) -> ExperimentConfig:
    """Return the experiment with enough steps to detect something."""
    schedule = ScheduleConfig(steps=steps, warmup_steps=2, decay="none")
    return config.replace(
        recipe={"schedule": schedule, "optimizer": AdamWConfig(lr=3e-3), "batch_size": 4},
        run={"checkpoint_every": steps},
    )


def renumber(source: Path, target: Path, reverse: bool) -> Path:
    """Write a COCO file with other category ids, and its categories in the same or in reverse order."""
    content = json.loads(source.read_text())
    factor = -7 if reverse else 7
    for category in content["categories"]:
        category["id"] = 1000 + factor * category["id"]
    for annotation in content["annotations"]:
        annotation["category_id"] = 1000 + factor * annotation["category_id"]
    content["categories"].sort(key=lambda category: category["id"])
    target.write_text(json.dumps(content))
    return target


def check_same_scores(same: ExperimentConfig, other: ExperimentConfig, folder: Path) -> None:
    """Train both experiments; compare the runs' scores with each other, with ``vertebra eval`` and with those of
    their results files."""
    scores = []
    for name, config in (("same", same), ("other", other)):
        run = folder / name
        train(config, run)
        scores.append(read_scores(run / "eval.json"))
        assert eval_scores([str(run), "--device", "cpu"], folder) == scores[-1]
        assert eval_scores([str(run), "--results", str(run / "results.json")], folder) == scores[-1]
    assert scores[0] == scores[1]
    first = next(iter(scores[0].values()))
    assert next(iter(first.values())) > 0.001  # control: something is detected, so that ids matter


def test_ap_does_not_depend_on_category_ids_of_the_validation_file(shapes, tmp_path):
    """Law: with ``class_names`` given, a file with other ids in another order gives the scores of the original file."""
    source = shapes / "annotations" / "instances_train.json"
    same = CocoConfig(images=shapes / "train", annotations=source, class_names=CLASS_NAMES)
    other = same.replace(annotations=renumber(source, tmp_path / "other.json", reverse=True))
    config = train_longer(tiny_config(shapes)).replace(train={"dataset": same}, val={"dataset": same})
    check_same_scores(config, config.replace(val={"dataset": other}), tmp_path)


def test_miou_does_not_depend_on_category_ids_of_the_validation_file(shapes, tmp_path):
    """Law: semantic maps from a file with other ids give the scores of the original file."""
    source = shapes / "annotations" / "instances_train.json"
    same = CocoSemanticConfig(images=shapes / "train", annotations=source)
    other = same.replace(annotations=renumber(source, tmp_path / "other.json", reverse=False))
    model = {"backbone": BACKBONE, "neck": PassthroughConfig(), "head": FCNConfig(level="c4")}
    train_split = {"dataset": same, "transform": ScaledCropConfig(size=(64, 64), scales=(1.0, 1.0))}
    config = train_longer(tiny_config(shapes)).replace(train=train_split, val={"dataset": same}, model=model)
    check_same_scores(config, config.replace(val={"dataset": other}), tmp_path)


def write_voc_copy(source: Path, target: Path) -> Path:
    """Copy a VOC folder, with its list of classes in another order."""
    shutil.copytree(source, target)
    names = (target / "class_names.txt").read_text().split()
    order = [name for name in names if name == "background"] + [n for n in reversed(names) if n != "background"]
    (target / "class_names.txt").write_text("\n".join(order) + "\n")
    return target


def test_voc_ap_does_not_depend_on_the_order_of_classes(shapes, tmp_path):
    """Law: a folder whose list of classes is reversed gives the VOC AP of the original folder."""
    root = shapes.parent / "voc"
    same = VocConfig(root=root, splits=("train",), class_names=CLASS_NAMES)
    other = same.replace(root=write_voc_copy(root, tmp_path / "voc"))
    config = train_longer(tiny_config(shapes)).replace(train={"dataset": same}, val={"dataset": same})
    check_same_scores(config, config.replace(val={"dataset": other}), tmp_path)
