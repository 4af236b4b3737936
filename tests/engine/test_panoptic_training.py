"""Panoptic FPN end to end: training, resuming, evaluation and prediction, by one process and by two."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from vertebra.configs import create_model, load_config
from vertebra.data import CocoPanopticConfig, ResizeConfig, ScaledCropConfig, build_dataset
from vertebra.data.shapes import CLASS_NAMES, STUFF_NAMES, SceneConfig, write_shapes
from vertebra.engine import ExperimentConfig, SGDConfig, SplitConfig, pick_task, require_targets, train
from vertebra.formats import read_json
from vertebra.heads import MaskBranchConfig, PanopticFPNConfig, SemanticFPNConfig
from vertebra.inference import Predictor, load_model
from vertebra.models import build_model, transfer_weights
from vertebra.structures import PanopticMergeConfig, UsageError
from vertebra.tools.cli import main

from ..helpers.runs import equal_tensors, eval_scores, newest_weights
from ..helpers.tiny import tiny_config
from .test_several_processes import assert_same_steps, launch

SCORES = ["panoptic/panoptic", "detection/bbox", "detection/segm", "detection/boundary", "semantic/semantic"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Return a folder of generated scenes with stuff, in COCO's layout."""
    root = tmp_path_factory.mktemp("scenes") / "shapes"
    write_shapes(root, train=8, val=4, config=SceneConfig(size=80, stuff=True))
    return root / "coco"


def experiment(scenes: Path, **changes) -> ExperimentConfig:
    """Return a tiny experiment whose norms and padding do not depend on the images of one rank."""

    def split(name: str) -> SplitConfig:
        files = CocoPanopticConfig(images=scenes / name, annotations=scenes / "annotations" / f"panoptic_{name}.json")
        crop = ScaledCropConfig(size=(64, 64), scales=(1.0, 1.0))
        return SplitConfig(dataset=files, transform=crop if name == "train" else ResizeConfig(short_sides=(64,)))

    config = tiny_config(scenes, train=split("train"), val=split("val"))
    head = PanopticFPNConfig(
        instances=config.model.head.replace(mask=MaskBranchConfig(convolutions=(8,)), box={"max_detections": 20}),
        semantic=SemanticFPNConfig(channels=32, levels=("p2", "p3", "p4")),
        merge=PanopticMergeConfig(score_threshold=0.1, stuff_area=64),
    )
    parts = {"backbone": {"norm": "frozen"}, "neck": {"channels": 32, "norm": "group"}, "head": head}
    return config.replace(model=parts).replace(**changes)


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory) -> Path:
    """Return a finished run of four steps."""
    folder = tmp_path_factory.mktemp("panoptic")
    (folder / "config.json").write_text(experiment(scenes).model_dump_json())
    assert main(["train", str(folder / "config.json"), "--output", str(folder / "run"), "--device", "cpu"]) == 0
    return folder / "run"


def test_scores_of_the_run_of_eval_and_of_the_results_files_agree(finished, tmp_path):
    """docs/faults.md row 136. Law: to the last digit, for the segments and for both parts. By hand: the losses, and a
    row for each image."""
    scores = read_json(finished / "eval.json")
    assert list(scores) == [*SCORES, "per_class", "objects", "step", "images"]
    assert list(scores["panoptic/panoptic"])[:4] == ["PQ", "SQ", "RQ", "PQ_things"]
    assert list(scores["per_class"]["panoptic/panoptic"]) == [*CLASS_NAMES, *STUFF_NAMES]
    assert list(scores["per_class"]["semantic/semantic"]) == [*STUFF_NAMES, "things"]
    again = eval_scores([str(finished), "--device", "cpu"], tmp_path)
    assert {name: again[name] for name in SCORES} == {name: scores[name] for name in SCORES}
    for part in ("panoptic", "detection", "semantic"):
        results = eval_scores([str(finished), "--results", str(finished / f"results_{part}.json")], tmp_path)
        expected = {name: scores[name] for name in SCORES if name.startswith(part)}
        assert {f"{part}/{name}": value for name, value in results.items() if f"{part}/{name}" in SCORES} == expected
    steps = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert all(step[f"loss_{name}"] >= 0 for step in steps[:4] for name in ("rpn_box", "class", "mask", "semantic"))
    assert [row["image_id"] for row in read_json(finished / "results_panoptic.json")] == list(range(1000001, 1000005))


def test_files_in_the_panoptic_format_are_those_of_the_results(finished, scenes):
    """Law: read as a data set, ``panoptic.json`` and its PNG files have the segments of the results file."""
    written, rows = read_json(finished / "panoptic.json"), read_json(finished / "results_panoptic.json")
    for image in written["images"]:
        image["file_name"] = f"{image['id']:07d}.png"
    (finished / "again.json").write_text(json.dumps(written))
    config = CocoPanopticConfig(
        images=scenes / "val", annotations=finished / "again.json", segments=finished / "panoptic"
    )
    data = build_dataset(config)
    task = pick_task(load_model(finished).head, data.classes).parts["panoptic"].task
    truth = data.ground_truth()
    again = [row for image_id in truth for row in task.rows(truth[image_id], image_id)]
    for row in rows:
        for segment in row["segments_info"]:
            segment.pop("score", None)
    assert again == rows and sum(len(row["segments_info"]) for row in rows) > 4
    assert {category["isthing"] for category in written["categories"]} == {0, 1}


def test_predict_draws_and_writes_all_parts(finished, scenes, tmp_path, capsys):
    """By hand: a picture of three panels for each image; with ``--annotations`` the ids of the panoptic file, so that
    the results can be scored."""
    output, truth = tmp_path / "found", scenes / "annotations" / "panoptic_val.json"
    arguments = ["predict", str(finished), str(scenes / "val"), "--output", str(output), "--device", "cpu"]
    assert main([*arguments, "--annotations", str(truth)]) == 0
    printed = capsys.readouterr().out
    assert "results_panoptic.json, results_detection.json, results_semantic.json, panoptic.json are in" in printed
    assert "panoptic: " in printed and " things on " in printed
    assert read_json(output / "results_panoptic.json") == read_json(finished / "results_panoptic.json")
    assert len(list((output / "panoptic").glob("*.png"))) == 4
    photo = sorted((scenes / "val").glob("*.png"))[0]
    picture, original = cv2.imread(str(output / photo.name)), cv2.imread(str(photo))
    assert picture.shape[1] >= 3 * original.shape[1]
    predictor = Predictor(finished, device="cpu")
    prediction = predictor(np.zeros((60, 90, 3), np.uint8))
    assert list(prediction) == ["panoptic", "detection", "semantic"]
    assert tuple(prediction["panoptic"].ids.shape) == tuple(prediction["semantic"].shape) == (60, 90)


def test_panoptic_run_resumes_exactly(finished, scenes, tmp_path):
    """Law: a run that lost its last checkpoint and repeats the last steps ends with bit-identical weights."""
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    newest.rename(tmp_path / "removed")
    train(experiment(scenes), tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(finished))


@pytest.mark.slow
def test_panoptic_losses_do_not_depend_on_the_world_size(scenes, tmp_path):
    """Law: losses, gradient norms and weights of two processes are those of one up to rounding."""
    # AdamW would scale up what rounding leaves of gradients that are zero.
    recipe = {"batch_size": 4, "optimizer": SGDConfig(lr=0.01)}
    config = experiment(scenes, recipe=recipe, val={"dataset": {"subset": 2}})
    train(config, tmp_path / "alone")
    launch(2, tmp_path, config)
    assert_same_steps(tmp_path / "run", tmp_path / "alone")


def test_class_rows_are_copied_by_name(finished, scenes):
    """Law: in a model with other classes, the rows of the things and of the stuff with the same names are copied, and
    so is the semantic class of all things."""
    source = load_model(finished, device="cpu")
    config = experiment(scenes).model
    names = {"detection": ("heart", "pentagon"), "semantic": ("grain", "water", "things")}
    names["panoptic"] = ("heart", "pentagon", "grain", "water")
    model = build_model(config, names)
    line = transfer_weights(model, source)
    assert "detection: heart mapped by name; pentagon initialized" in line and "water initialized" in line
    mine, theirs = model.head.semantic.logits.weight, source.head.semantic.logits.weight
    assert (mine[0] == theirs[3]).all() and (mine[2] == theirs[4]).all() and (mine[1] != theirs[1]).any()
    mine, theirs = model.head.instances.mask.logits.weight, source.head.instances.mask.logits.weight
    assert (mine[0] == theirs[7]).all()


def test_data_without_what_the_head_learns_from_is_refused(scenes, shapes):
    """docs/faults.md row 148. By hand: UsageError with the tasks of head and data, for each combination."""
    panoptic = build_dataset(experiment(scenes).val.dataset)
    boxes = build_dataset(tiny_config(shapes).val.dataset)
    head = experiment(scenes).model.head
    require_targets(head, panoptic)
    with pytest.raises(UsageError, match="the head is for panoptic, but the data set is for detection"):
        require_targets(head, boxes)
    with pytest.raises(UsageError, match="the head is for detection, but the data set is for panoptic"):
        require_targets(tiny_config(shapes).model.head, panoptic)


def test_model_of_a_config_has_the_classes_of_every_task():
    """By hand: the model of a shipped config, and the error if the class names are not given by task."""
    model = create_model("panoptic_fpn_r10t_shapes")
    assert {task: len(names) for task, names in model.class_names.items()} == {
        "panoptic": 12, "detection": 8, "semantic": 5,
    }  # fmt: skip
    with pytest.raises(ValueError, match="give the class names as a dict by task"):
        build_model(load_config("panoptic_fpn_r10t_shapes").model, ["a", "b", "c"])


@pytest.mark.slow
def test_two_images_are_learned(scenes, tmp_path):
    """Learning: 100 steps on two images of objects on textures reach a PQ of at least 0.7 on them."""
    base = load_config("panoptic_fpn_r10t_shapes")
    files = CocoPanopticConfig(
        images=scenes / "train", annotations=scenes / "annotations" / "panoptic_train.json", subset=2
    )
    split = {"dataset": files, "transform": ResizeConfig(short_sides=(96,))}
    recipe = {"batch_size": 2, "schedule": {"steps": 100, "warmup_steps": 20}}
    loader = {"loader": {"workers": 0}, "expected_ranges": {}}
    scores = train(base.replace(train=split, val=split, recipe=recipe, run=loader), tmp_path / "run")
    assert scores["panoptic/panoptic"]["PQ"] >= 0.7
