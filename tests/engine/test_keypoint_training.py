"""Keypoint R-CNN end to end: training, evaluation, resume, several processes, prediction, and data that do not fit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vertebra import Predictor
from vertebra.data import ScaledCropConfig, build_dataset
from vertebra.engine import SGDConfig, evaluate_run, train
from vertebra.engine.tasks import DetectionTask, require_targets
from vertebra.evaluation import evaluate_coco
from vertebra.formats import read_ground_truth
from vertebra.heads import KeypointBranchConfig, RCNNConfig
from vertebra.inference import checkpoint_paths, class_color, draw_keypoints, open_checkpoint
from vertebra.structures import Detections, Skeleton, UsageError
from vertebra.tools.cli import main

from ..helpers.keypoint_shapes import NAMES, tiny_keypoint_config
from ..helpers.runs import equal_tensors, newest_weights, read_metrics, start_training
from ..helpers.tiny import tiny_config


@pytest.fixture(scope="module")
def finished(shapes, tmp_path_factory) -> Path:
    """Return the folder of a finished run; the folder above it has the annotations."""
    folder = tmp_path_factory.mktemp("keypoints")
    train(tiny_keypoint_config(shapes, folder), folder / "run")
    return folder / "run"


def test_run_scores_boxes_and_keypoints(finished):
    """Oracle: pycocotools on the results file of the run; the scores have a value for each keypoint."""
    scores = json.loads((finished / "eval.json").read_text())
    rows = json.loads((finished / "results.json").read_text())
    truth = read_ground_truth(finished.parent / "keypoints_val.json")
    expected = evaluate_coco(truth, rows, "pycocotools", "keypoints")
    assert scores["keypoints"] == expected.summary and scores["bbox"]["AP"] is not None
    assert scores["per_keypoint"]["keypoints"] == expected.per_keypoint and tuple(expected.per_keypoint) == NAMES
    assert all(len(row["keypoints"]) == 9 for row in rows)
    assert all("loss_keypoint" in line for line in read_metrics(finished) if "loss" in line)


def test_evaluation_command_scores_keypoints(finished, tmp_path, capsys):
    """Law: scoring the results file against the annotations gives the scores of the run."""
    truth, output = finished.parent / "keypoints_val.json", tmp_path / "numbers.json"
    files = ["--annotations", str(truth), "--results", str(finished / "results.json"), "--json", str(output)]
    assert main(["eval", *files, "--task", "keypoints"]) == 0
    printed, scores = capsys.readouterr().out, json.loads(output.read_text())
    assert scores["keypoints"] == json.loads((finished / "eval.json").read_text())["keypoints"]
    assert all(name in printed for name in NAMES)
    assert evaluate_run(finished)["keypoints"] == scores["keypoints"]


def test_checkpoint_knows_the_skeleton(finished):
    """By hand: it has the names, connections and offset of the data set, for predictions without the data set."""
    skeleton = open_checkpoint(finished).classes["detection"].skeleton
    assert skeleton == Skeleton(NAMES, edges=((0, 1), (1, 2)), flip_pairs=((0, 2),), offset=0.5)


def test_resume_is_bit_exact(finished, shapes, tmp_path):
    """Law: a run resumed from step 2 of 4 ends with the weights of the run that was not interrupted."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(checkpoint_paths(run / "checkpoints")[-1])
    train(tiny_keypoint_config(shapes, finished.parent), run, resume=True)
    assert open_checkpoint(run).step == 4
    assert equal_tensors(newest_weights(run), newest_weights(finished))
    assert read_metrics(run) == read_metrics(finished)


@pytest.mark.slow
def test_losses_do_not_depend_on_the_world_size(shapes, tmp_path):
    """Law: two processes have the losses and the weights of one, up to the order of sums."""
    config = tiny_keypoint_config(shapes, tmp_path, recipe={"batch_size": 4, "optimizer": SGDConfig(lr=0.01)})
    window = ScaledCropConfig(size=(64, 64), scales=(1.0, 1.0))  # so that padding does not depend on batch mates
    backbone, neck = config.model.backbone.replace(norm="frozen"), config.model.neck.replace(norm="group")
    config = config.replace(
        model=config.model.replace(backbone=backbone, neck=neck), train=config.train.replace(transform=window)
    )
    runs = [tmp_path / f"run_{count}" for count in (1, 2)]
    for count, run in enumerate(runs, start=1):
        process = start_training(config, run, processes=count)
        _, printed = process.communicate(timeout=300)
        assert process.returncode == 0, printed
    first, second = map(newest_weights, runs)
    assert all(torch.allclose(first[name], second[name], rtol=1e-3, atol=1e-5) for name in first)
    lines = [[line["loss_keypoint"] for line in read_metrics(run) if "loss_keypoint" in line] for run in runs]
    assert lines[0] == pytest.approx(lines[1], rel=1e-4) and len(lines[0]) == 4


def test_ground_truth_as_predictions_is_perfect(shapes, tmp_path):
    """Law: the keypoints of the data set, written as results, are those of the file, and score an AP of 1."""
    config = tiny_keypoint_config(shapes, tmp_path)
    dataset = build_dataset(config.val.dataset)
    task, rows = DetectionTask(dataset.classes["detection"]), []
    for index in range(len(dataset)):
        target = dataset.read(index).objects.to_instances()
        scores = torch.ones(len(target))
        found = Detections(target.boxes, target.labels, scores, keypoints=target.keypoints)
        rows += task.rows(found, dataset.image_ids[index])
    truth = [entry["keypoints"] for entry in dataset.ground_truth()["annotations"] if not entry["iscrowd"]]
    assert np.allclose([row["keypoints"] for row in rows], truth, atol=1e-4)
    scores = task.score(dataset, rows, config.evaluation)
    assert tuple(scores) == ("bbox", "keypoints")
    assert scores["keypoints"].summary["AP"] == pytest.approx(1)
    assert set(scores["keypoints"].per_keypoint.values()) == {1.0}


def test_predictor_returns_and_draws_keypoints(finished, shapes):
    """Law: keypoints are in pixels of the photo; the picture has the colors of the skeletons."""
    predictor = Predictor(finished, "cpu")
    photo = cv2.imread(str(next((shapes / "val").glob("*"))))
    large = cv2.resize(photo, None, fx=3, fy=3)
    found = predictor(large)
    assert found.keypoints.shape == (len(found), 3, 3) and len(found)
    centers = (found.boxes[:, None, :2] + found.boxes[:, None, 2:]) / 2
    sides = (found.boxes[:, None, 2:] - found.boxes[:, None, :2]).clamp(min=8)
    assert ((found.keypoints[..., :2] - centers).abs() <= 0.6 * sides + 8).all()
    classes = predictor.trained.classes["detection"]
    found = replace(found, keypoints=torch.cat([found.keypoints[..., :2], torch.ones(len(found), 3, 1)], dim=2))
    without, without_lines = replace(found, keypoints=None), replace(classes, skeleton=None)
    pictures = [DetectionTask(classes).draw(large, detections, 0.0) for detections in (found, without)]
    pictures.append(DetectionTask(without_lines).draw(large, found, 0.0))
    assert all((pictures[0] != other).any() for other in pictures[1:])


def test_truth_is_drawn_with_keypoints(shapes, tmp_path):
    """By hand: the picture of a record has a disk at every keypoint: white if visible, black if hidden."""
    config = tiny_keypoint_config(shapes, tmp_path)
    dataset = build_dataset(config.train.dataset)
    record = dataset.read(0)
    picture = DetectionTask(dataset.classes["detection"]).draw_truth(record)
    colors = {2: (255, 255, 255), 1: (0, 0, 0)}
    x, y, visibility = record.objects.keypoints.values[-1, 1].astype(int).tolist()
    row, column = min(y, len(picture) - 1), min(x, picture.shape[1] - 1)
    assert tuple(picture[row, column].tolist()) == colors[visibility]


def test_drawing_of_a_skeleton():
    """By hand: a line in the object's color between two connected keypoints; nothing for a keypoint not shown."""
    image = np.full((60, 60, 3), 90, np.uint8)
    points = np.array([[[10.5, 30.5], [50.5, 30.5], [30.5, 5.5]]])
    shown, hollow = np.array([[True, True, False]]), np.array([[False, True, False]])
    picture = draw_keypoints(image, points, ((0, 1), (1, 2)), shown, hollow)
    assert picture[30, 30].tolist() == pytest.approx(class_color(0), abs=30) and (image == 90).all()
    assert picture[30, 10].tolist() == [255] * 3 and picture[30, 50].tolist() == [0] * 3
    assert (picture[:20] == 90).all()


def test_data_without_keypoints_are_refused(shapes, tmp_path):
    """docs/faults.md row 151. By hand: exit code 2 with what to do; other keypoints are listed."""
    config = tiny_keypoint_config(shapes, tmp_path)
    dataset = build_dataset(config.train.dataset)
    require_targets(config.model.head, dataset)
    with pytest.raises(UsageError, match=r"head needs keypoints, but the data set provides none: set keypoints=\{\}"):
        require_targets(config.model.head, build_dataset(config.train.dataset.replace(keypoints=None)))
    other = RCNNConfig(keypoint=KeypointBranchConfig(names=NAMES[::-1]))
    message = "predicts the keypoints right_side, top, left_side, but the data set has left_side, top, right_side"
    with pytest.raises(UsageError, match=message):
        require_targets(other, dataset)


def test_sigma_of_an_unknown_keypoint_is_refused_before_the_first_step(finished, shapes, tmp_path):
    """Symptom: a finished training ended without scores. docs/faults.md row 151. By hand: exit code 2 with the nearest
    keypoint, for a training and for an evaluation, also with data that have no keypoints."""
    config = tiny_keypoint_config(shapes, tmp_path, evaluation={"keypoint_sigmas": {"top_side": 0.1}})
    message = r"evaluation\.keypoint_sigmas: there is no keypoint 'top_side': "
    with pytest.raises(UsageError, match=message + "did you mean"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.raises(UsageError, match=message + "did you mean"):
        evaluate_run(finished, config)
    boxes = tiny_config(shapes, evaluation={"keypoint_sigmas": {"top_side": 0.1}})
    with pytest.raises(UsageError, match=message + "leave it out: the data set provides no keypoints"):
        train(boxes, tmp_path / "boxes")
