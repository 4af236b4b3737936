"""Classifiers end to end: training, resuming, evaluation, prediction and export, on generated crops and on image
folders."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vertebra.backbones import create_backbone, load_backbone_weights
from vertebra.data import CenterCropConfig, ImageFolderConfig, LoaderConfig, RandomCropConfig, build_dataset
from vertebra.engine import AdamWConfig, ExperimentConfig, ScheduleConfig, SplitConfig, experiment_config, train
from vertebra.inference import Predictor, checkpoint_paths, load_model, open_checkpoint
from vertebra.models import InputConfig
from vertebra.tools.cli import main

from ..data.test_image_folder import write_folder
from ..helpers.runs import equal_tensors, eval_scores, newest_weights, read_metrics, read_scores
from ..helpers.tiny import tiny_classifier


def folder_config(root: Path) -> ExperimentConfig:
    """Return the tiny classifier's experiment on an image folder."""
    return tiny_classifier(
        train=SplitConfig(dataset=ImageFolderConfig(root=root), transform=RandomCropConfig(size=32)),
        val=SplitConfig(dataset=ImageFolderConfig(root=root), transform=CenterCropConfig(resize=36, size=32)),
        evaluation={"batch_size": 4},
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder") / "photos")


@pytest.fixture(scope="module", params=["crops", "folder"])
def run(request, photos, tmp_path_factory) -> Path:
    """Return a finished run: one on generated crops, one on an image folder."""
    output = tmp_path_factory.mktemp("classifier") / "run"
    train(tiny_classifier() if request.param == "crops" else folder_config(photos), output)
    return output


def test_run_folder_has_the_files_that_the_readme_lists(run):
    """By hand: README's list of files, and the schema of ``eval.json``."""
    for name in ("config.json", "metrics.jsonl", "eval.json", "results.json", "predictions.png", "data_report.json"):
        assert (run / name).stat().st_size > 0, name
    scores, names = json.loads((run / "eval.json").read_text()), open_checkpoint(run).classes["classification"].names
    assert list(scores) == ["classification", "per_class", "step", "images"]
    assert list(scores["classification"]) == ["top1", "top5"]
    assert list(scores["per_class"]["classification"]) == list(names)
    assert len(json.loads((run / "results.json").read_text())) == scores["images"]


def test_accuracy_equals_a_count_over_the_results_file(run):
    """By hand: the results file counted against the labels of the validation data."""
    results = json.loads((run / "results.json").read_text())
    dataset = build_dataset(experiment_config(open_checkpoint(run)).val.dataset)
    labels = {record.image_id: record.label for record in map(dataset.read, range(len(dataset)))}
    scores = json.loads((run / "eval.json").read_text())["classification"]
    assert scores["top1"] == sum(row["labels"][0] == labels[row["image_id"]] for row in results) / len(labels)
    assert scores["top5"] == sum(labels[row["image_id"]] in row["labels"] for row in results) / len(labels)


def test_results_file_gives_the_scores_of_the_run(run, tmp_path, monkeypatch):
    """docs/faults.md row 136. Law: to the last digit and for every class, with the validation data of the run or of
    its config, without a model."""
    monkeypatch.setattr("vertebra.inference.checkpoint.build_model", None)
    results = ["--results", str(run / "results.json")]
    for source in ([str(run)], ["--data", str(run / "config.json")]):
        assert eval_scores([*source, *results], tmp_path) == read_scores(run / "eval.json")


def test_predictor_equals_evaluation(run):
    """Law: a photo is preprocessed as the validation images are, whatever the training transform is."""
    predictor, dataset = Predictor(run), build_dataset(experiment_config(open_checkpoint(run)).val.dataset)
    rows = {row["image_id"]: row for row in json.loads((run / "results.json").read_text())}
    for record in map(dataset.read, range(len(dataset))):
        prediction, row = predictor(record.image), rows[record.image_id]
        assert prediction.labels.tolist() == row["labels"]
        assert prediction.scores.tolist() == pytest.approx(row["scores"], abs=1e-4)


def test_same_seed_gives_the_same_weights(run, tmp_path):
    """Law: the same weights and log, for any number of workers."""
    config = experiment_config(open_checkpoint(run)).replace(run={"loader": LoaderConfig(workers=2)})
    train(config, tmp_path / "run")
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(run))
    assert read_metrics(tmp_path / "run") == read_metrics(run)


def test_resume_is_bit_exact(run, tmp_path):
    """Law: a run that lost everything after step 2 ends with the same weights and log."""
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    shutil.rmtree(checkpoint_paths(broken / "checkpoints")[-1])
    (broken / "eval.json").unlink()
    assert open_checkpoint(broken).step == 2
    train(experiment_config(open_checkpoint(broken)), broken, resume=True)
    assert equal_tensors(newest_weights(broken), newest_weights(run))
    assert read_metrics(broken) == read_metrics(run)
    assert (broken / "eval.json").read_text() == (run / "eval.json").read_text()


def test_eval_command_equals_the_last_evaluation(run, tmp_path, capsys):
    """Law: evaluating again, with another batch size, changes no accuracy."""
    expected = json.loads((run / "eval.json").read_text())
    for size in (1, 3):
        arguments = ["eval", str(run), "--set", f"evaluation.batch_size={size}", "--json", str(tmp_path / "again.json")]
        assert main(arguments) == 0
        assert json.loads((tmp_path / "again.json").read_text()) == expected
    assert "top1" in capsys.readouterr().out
    assert main(["eval", str(run), "--set", "evaluation.batchsize=1"]) == 2


def test_predict_draws_every_image_and_writes_results(run, photos, tmp_path, capsys):
    """By hand: for each image of a folder a picture and a row of labels; the likeliest class is printed."""
    out = tmp_path / "found"
    assert main(["predict", str(run), str(photos), "--output", str(out), "--score", "0.99"]) == 0
    names = [image["file_name"] for image in json.loads((out / "images.json").read_text())]
    pictures = {name: f"{name}.png" if name.endswith(".bmp") else name for name in names}
    assert len(names) == 6 and all((out / picture).exists() for picture in pictures.values())
    results = json.loads((out / "results.json").read_text())
    assert [row["image_id"] for row in results] == [1, 2, 3, 4, 5, 6]
    first = Predictor(run).model.class_names["classification"][results[0]["labels"][0]]
    assert f"ant/1.png: {first} 0." in capsys.readouterr().out


def test_eight_crops_are_memorized(tmp_path):
    """Learning: the accuracy on 8 crops is 1 after 30 steps."""
    data = tiny_classifier().val.replace(dataset=tiny_classifier().val.dataset.replace(count=8))
    schedule = ScheduleConfig(steps=30, warmup_steps=3, decay="cosine")
    recipe = {"batch_size": 8, "optimizer": AdamWConfig(lr=3e-3), "schedule": schedule}
    config = tiny_classifier(train=data, val=data, recipe=recipe, run={"checkpoint_every": 30})
    scores = train(config, tmp_path / "run")
    assert scores["classification"] == {"top1": 1.0, "top5": 1.0}


@pytest.mark.parametrize("half", [False, True])
def test_exported_backbone_equals_the_runs(run, half, tmp_path, capsys):
    """Law: the exported file has the weights of the run's backbone, bit-equal or in half precision, and its input
    normalization."""
    out = tmp_path / "deep" / "backbone.safetensors"
    assert main(["export-backbone", str(run), str(out), *(["--half"] if half else [])]) == 0
    trained = load_model(run).backbone.state_dict()
    backbone = create_backbone("resnet10t", levels=("c2", "c3", "c4"))
    load_backbone_weights(backbone, out)
    for name, tensor in backbone.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, trained[name].half().float() if half else trained[name]), name
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.half if half else torch.float}
    for path in (out, checkpoint_paths(run / "checkpoints")[-1] / "model.safetensors"):
        with safe_open(path, "pt") as file:
            assert json.loads(file.metadata()["vertebra"])["input"] == InputConfig().model_dump(mode="json")
    assert "tensors" in capsys.readouterr().out


def test_run_starts_from_the_weights_of_another(run, tmp_path):
    """Law: with a learning rate near zero, a run that starts from a run's weights file ends with those weights."""
    source = checkpoint_paths(run / "checkpoints")[-1] / "model.safetensors"
    base = tiny_classifier()
    config = base.replace(
        model=base.model.replace(weights=str(source)), recipe={"optimizer": AdamWConfig(lr=1e-12, weight_decay=0.0)}
    )
    train(config, tmp_path / "run")
    before, after = newest_weights(run), newest_weights(tmp_path / "run")
    name = "backbone.layer2.0.conv1.weight"
    torch.testing.assert_close(after[name], before[name], atol=1e-9, rtol=0)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["input"] is not None
