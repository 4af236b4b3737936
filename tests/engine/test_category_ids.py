"""Validation data whose files number the classes otherwise than those of training: a run scores itself rightly."""

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


def learn(config: ExperimentConfig, steps: int = 20) -> ExperimentConfig:
    """Return the experiment with enough steps to find something."""
    schedule = ScheduleConfig(steps=steps, warmup_steps=2, decay="none")
    return config.replace(
        recipe={"schedule": schedule, "optimizer": AdamWConfig(lr=3e-3), "batch_size": 4},
        run={"checkpoint_every": steps},
    )


def renumber(source: Path, target: Path, reverse: bool) -> Path:
    """Write a COCO file with other category ids, and its categories in the same or the reverse order."""
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
    """Train both, and compare their own scores with each other, with ``vertebra eval`` and with their results files."""
    scores = []
    for name, config in (("same", same), ("other", other)):
        run = folder / name
        train(config, run)
        scores.append(read_scores(run / "eval.json"))
        assert eval_scores([str(run), "--device", "cpu"], folder) == scores[-1]
        assert eval_scores([str(run), "--results", str(run / "results.json")], folder) == scores[-1]
    assert scores[0] == scores[1]
    first = next(iter(scores[0].values()))
    assert next(iter(first.values())) > 0.01  # something was found, so that ids matter


def test_a_runs_own_scores_do_not_depend_on_the_ids_of_the_validation_file(shapes, tmp_path):
    """Law: with ``class_names`` given, a file with other ids in another order gives the scores of the file itself."""
    source = shapes / "annotations" / "instances_train.json"
    same = CocoConfig(images=shapes / "train", annotations=source, class_names=CLASS_NAMES)
    other = same.replace(annotations=renumber(source, tmp_path / "other.json", reverse=True))
    config = learn(tiny_config(shapes)).replace(train={"dataset": same}, val={"dataset": same})
    check_same_scores(config, config.replace(val={"dataset": other}), tmp_path)


def test_a_runs_own_mean_iou_does_not_depend_on_the_ids_of_the_validation_file(shapes, tmp_path):
    """Law: semantic maps of a file with other ids have the scores of the file itself."""
    source = shapes / "annotations" / "instances_train.json"
    same = CocoSemanticConfig(images=shapes / "train", annotations=source)
    other = same.replace(annotations=renumber(source, tmp_path / "other.json", reverse=False))
    model = {"backbone": BACKBONE, "neck": PassthroughConfig(), "head": FCNConfig(level="c4")}
    train_split = {"dataset": same, "transform": ScaledCropConfig(size=(64, 64), scales=(1.0, 1.0))}
    config = learn(tiny_config(shapes)).replace(train=train_split, val={"dataset": same}, model=model)
    check_same_scores(config, config.replace(val={"dataset": other}), tmp_path)


def write_voc_copy(source: Path, target: Path) -> Path:
    """Write a VOC root of the same images whose list of classes is in another order."""
    shutil.copytree(source, target)
    names = (target / "class_names.txt").read_text().split()
    order = [name for name in names if name == "background"] + [n for n in reversed(names) if n != "background"]
    (target / "class_names.txt").write_text("\n".join(order) + "\n")
    return target


def test_a_runs_own_scores_do_not_depend_on_the_order_of_a_voc_folders_classes(shapes, tmp_path):
    """Law: VOC's AP on a root whose list of classes is reversed is that on the root itself."""
    root = shapes.parent / "voc"
    same = VocConfig(root=root, splits=("train",), class_names=CLASS_NAMES)
    other = same.replace(root=write_voc_copy(root, tmp_path / "voc"))
    config = learn(tiny_config(shapes)).replace(train={"dataset": same}, val={"dataset": same})
    check_same_scores(config, config.replace(val={"dataset": other}), tmp_path)
