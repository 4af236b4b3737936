"""Masks and semantic maps end to end on the command line: trained, evaluated and drawn, on the generated data set."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vertebra.data import CocoConfig, ResizeConfig, ScaledCropConfig, VocConfig, VocSegmentationConfig
from vertebra.engine import ExperimentConfig, SplitConfig
from vertebra.heads import AuxiliaryConfig, DeepLabConfig, LowLevelConfig, MaskBranchConfig
from vertebra.inference import Predictor
from vertebra.models import ModelConfig
from vertebra.necks import PassthroughConfig
from vertebra.tools.cli import main

from ..helpers.runs import eval_scores, read_scores
from ..helpers.tiny import BACKBONE, tiny_config


def mask_rcnn(shapes: Path) -> ExperimentConfig:
    """Return the tiny detector with a mask branch."""

    def split(name: str) -> SplitConfig:
        annotations = shapes / "annotations" / f"instances_{name}.json"
        return SplitConfig(
            dataset=CocoConfig(images=shapes / name, annotations=annotations, masks=True),
            transform=ScaledCropConfig(size=(80, 80)) if name == "train" else ResizeConfig(short_sides=(64,)),
        )

    config = tiny_config(shapes, train=split("train"), val=split("val"))
    head = config.model.head.replace(mask=MaskBranchConfig(convolutions=(8,)))
    return config.replace(model=config.model.replace(head=head))


def deeplab(shapes: Path) -> ExperimentConfig:
    """Return a tiny DeepLabv3+ on the same images as a folder in VOC's layout."""

    def split(name: str) -> SplitConfig:
        return SplitConfig(
            dataset=VocSegmentationConfig(root=shapes.parent / "voc", splits=(name,), background=True),
            transform=ScaledCropConfig(size=(48, 64), short_side=64)
            if name == "train"
            else ResizeConfig(short_sides=(64,)),
        )

    head = DeepLabConfig(
        level="c4", channels=16, low_level=LowLevelConfig(channels=8), auxiliary=AuxiliaryConfig(level="c3")
    )
    model = ModelConfig(backbone=BACKBONE, neck=PassthroughConfig(), head=head)
    return tiny_config(shapes, model=model, train=split("train"), val=split("val"))


def voc_boxes(shapes: Path) -> ExperimentConfig:
    """Return the tiny detector on the XML files of the same images."""

    def split(name: str) -> SplitConfig:
        dataset = VocConfig(root=shapes.parent / "voc", splits=(name,), metrics=("voc07", "coco"))
        return SplitConfig(dataset=dataset, transform=ResizeConfig(short_sides=(64,)))

    return tiny_config(shapes, train=split("train"), val=split("val"))


KINDS = {
    "masks": (mask_rcnn, {"bbox": "AP", "segm": "AP", "boundary": "AP"}),
    "maps": (deeplab, {"semantic": "mIoU"}),
    "voc": (voc_boxes, {"voc07": "AP50", "bbox": "AP"}),
}


@pytest.fixture(scope="module", params=KINDS)
def run(request, shapes, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Return a finished run of each experiment, and the metrics that it is scored by."""
    make, scored = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "config.json").write_text(make(shapes).model_dump_json())
    assert main(["train", str(folder / "config.json"), "--output", str(folder / "run"), "--device", "cpu"]) == 0
    return folder / "run", scored


def test_run_has_every_score_of_its_task(run):
    """By hand: README's list of files, and numbers and classes for every metric."""
    folder, scored = run
    scores = json.loads((folder / "eval.json").read_text())
    assert list(scores) == [*scored, "per_class", *(["objects"] if "bbox" in scored else []), "step", "images"]
    assert (scores["step"], scores["images"]) == (4, 4)
    for kind, metric in scored.items():
        assert next(iter(scores[kind])) == metric
        assert 0 <= scores[kind][metric] <= 1
        assert len(scores["per_class"][kind]) in (8, 9)
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss"] > 0 for line in logged if "loss" in line)


def test_evaluation_and_prediction_agree_with_training(run, shapes, tmp_path, capsys):
    """Law: evaluating the checkpoint gives the same numbers; prediction gives a picture and results rows for every
    image."""
    folder, scored = run
    assert main(["eval", str(folder), "--json", str(tmp_path / "again.json"), "--device", "cpu"]) == 0
    first, again = (json.loads(path.read_text()) for path in (folder / "eval.json", tmp_path / "again.json"))
    assert {name: first[name] for name in scored} == {name: again[name] for name in scored}
    assert all(f"\n{name} " in "\n" + capsys.readouterr().out for name in list(scored)[:1])
    output = tmp_path / "found"
    assert main(["predict", str(folder), str(shapes / "val"), "--output", str(output), "--device", "cpu"]) == 0
    pictures = sorted(output.glob("*.png"))
    assert len(pictures) == 4
    assert cv2.imread(str(pictures[0])).std() > 5
    rows = json.loads((output / "results.json").read_text())
    assert {row["image_id"] for row in rows} <= {1, 2, 3, 4}
    if "semantic" in scored:
        with Image.open(output / "label_maps" / f"{pictures[0].name}.png") as palette_image:
            labels = np.array(palette_image)
        predicted = Predictor(folder, device="cpu")(shapes / "val" / pictures[0].name)
        np.testing.assert_array_equal(labels, predicted.numpy())
        assert all(set(row) == {"image_id", "category_id", "segmentation"} for row in rows)
    if "segm" in scored:
        assert rows and all(set(row) == {"image_id", "category_id", "bbox", "score", "segmentation"} for row in rows)


def test_results_file_gives_the_scores_of_the_run(run, tmp_path, monkeypatch):
    """docs/faults.md row 136. Law: to the last digit and for every class, with the validation data of the run or of
    its config, without a model."""
    folder, _ = run
    monkeypatch.setattr("vertebra.inference.checkpoint.build_model", None)
    results = ["--results", str(folder / "results.json")]
    for source in ([str(folder)], ["--data", str(folder / "config.json")]):
        assert eval_scores([*source, *results], tmp_path) == read_scores(folder / "eval.json")
