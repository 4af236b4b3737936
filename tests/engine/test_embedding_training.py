"""Embeddings end to end: training, resuming, evaluation on unseen classes, pairs, prediction, several processes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.configs import load_config
from vertebra.data import CenterCropConfig, LoaderConfig, OutlinesConfig, build_dataset, eval_loader
from vertebra.data.shapes import draw_outline_image
from vertebra.engine import AdamWConfig, ExperimentConfig, ScheduleConfig, SGDConfig, experiment_config, train
from vertebra.engine.tasks import require_classes
from vertebra.evaluation import evaluate_embeddings
from vertebra.heads import ArcFaceConfig, ClassificationConfig, MultiHeadConfig
from vertebra.heads.pooling import pool_levels
from vertebra.inference import Predictor, checkpoint_paths, load_model, open_checkpoint
from vertebra.structures import Classes, UsageError
from vertebra.tools.cli import main

from ..helpers.runs import equal_tensors, eval_scores, newest_weights, read_metrics, read_scores
from ..helpers.tiny import tiny_classifier
from .test_several_processes import assert_same_steps, launch

HEAD = ArcFaceConfig(channels=16)
TRAINED = OutlinesConfig(split="train", num_classes=4, count=8, size=32)
UNSEEN = OutlinesConfig(split="val", classes_from=4, num_classes=3, count=9, size=32)

UNCHANGED = CenterCropConfig(resize=32, size=32)


def tiny_embedder(**changes) -> ExperimentConfig:
    """Return a small experiment that trains on four outlines and is evaluated on three others."""
    base = tiny_classifier(model={"head": HEAD}, train={"dataset": TRAINED}, val={"dataset": UNSEEN})
    return base.replace(**changes)


PAIRS = """2 1
Outline_0 1 2
Outline_0 1 Outline_1 2
Outline_1 1 2
Outline_1 1 Outline_2 2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a finished run of four steps."""
    output = tmp_path_factory.mktemp("embedder") / "run"
    train(tiny_embedder(), output)
    return output


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Return a folder in LFW's layout: two images of each of three classes, and pairs in two folds."""
    root = tmp_path_factory.mktemp("lfw") / "people"
    for index in range(6):
        name = f"Outline_{index % 3}"
        (root / name).mkdir(parents=True, exist_ok=True)
        pixels = draw_outline_image(UNSEEN, index)
        Image.fromarray(pixels).save(root / name / f"{name}_{index // 3 + 1:04d}.png")
    (root.parent / "pairs.txt").write_text(PAIRS)
    return root


def test_run_is_evaluated_on_unseen_classes(run):
    """By hand: recall@1 counted over the results file, on classes that the checkpoint does not have."""
    scores, rows = read_scores(run / "eval.json"), json.loads((run / "results.json").read_text())
    vectors, labels = np.array([row["embedding"] for row in rows]), np.array([row["image_id"] % 3 for row in rows])
    similarities = vectors @ vectors.T - 3 * np.eye(9)
    assert vectors.shape == (9, 16) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert scores["retrieval"]["recall@1"] == np.mean(labels[similarities.argmax(axis=1)] == labels)
    assert list(scores["per_class"]["retrieval"]) == ["outline 4", "outline 5", "outline 6"]
    assert open_checkpoint(run).classes["classification"].names == tuple(f"outline {number}" for number in range(4))
    assert (run / "predictions.png").exists()
    assert {"loss_class", "target_angle"} <= read_metrics(run)[0].keys()


def test_eval_command_and_results_file_give_the_scores_of_the_run(run, tmp_path):
    """docs/faults.md row 136. Law: scoring the run, or its results file with the run or its config, gives the same
    digits."""
    expected, results = read_scores(run / "eval.json"), ["--results", str(run / "results.json")]
    for arguments in ([str(run)], [str(run), *results], ["--data", str(run / "config.json"), *results]):
        assert eval_scores(arguments, tmp_path) == expected


def test_resume_is_bit_exact(run, tmp_path):
    """Law: a run that lost everything after step 2 ends with the same weights, log and scores."""
    broken = shutil.copytree(run, tmp_path / "run", symlinks=True)
    shutil.rmtree(checkpoint_paths(broken / "checkpoints")[-1])
    (broken / "eval.json").unlink()
    train(experiment_config(open_checkpoint(broken)), broken, resume=True)
    assert equal_tensors(newest_weights(broken), newest_weights(run))
    assert read_metrics(broken) == read_metrics(run)
    assert (broken / "eval.json").read_text() == (run / "eval.json").read_text()


@pytest.mark.parametrize("norm", ["none", pytest.param("sync", marks=pytest.mark.slow)])
def test_losses_do_not_depend_on_the_world_size(norm, tmp_path):
    """Law: losses, gradient norms and weights of two processes are those of one up to rounding."""
    backbone = {"norm": "frozen" if norm == "none" else "sync"}
    config = tiny_embedder(
        model={"backbone": backbone, "head": HEAD.replace(norm=norm)},
        recipe={"batch_size": 4, "optimizer": SGDConfig(lr=0.01)},
    )
    train(config, tmp_path / "alone")
    launch(2, tmp_path, config)
    assert_same_steps(tmp_path / "run", tmp_path / "alone")
    assert read_scores(tmp_path / "run" / "eval.json").keys() == read_scores(tmp_path / "alone" / "eval.json").keys()


def test_predict_writes_vectors_with_names(run, people, tmp_path, capsys):
    """By hand: ``vectors.npz`` has the vectors of the results file as float32, with the names of the images."""
    assert main(["predict", str(run), str(people), "--output", str(tmp_path), "--device", "cpu"]) == 0
    arrays, rows = np.load(tmp_path / "vectors.npz"), json.loads((tmp_path / "results.json").read_text())
    names = [image["file_name"] for image in json.loads((tmp_path / "images.json").read_text())]
    assert arrays["names"].tolist() == names and names[0] == "Outline_0/Outline_0_0001.png"
    assert arrays["vectors"].dtype == np.float32
    np.testing.assert_array_equal(arrays["vectors"], np.float32([row["embedding"] for row in rows]))
    assert (tmp_path / names[5]).with_suffix(".png").exists()
    assert "Outline_0/Outline_0_0001.png: 16 values: " in capsys.readouterr().out
    embedding = Predictor(run, device="cpu")(people / names[0])
    np.testing.assert_allclose(embedding.vector.numpy(), arrays["vectors"][0], atol=1e-6)


def test_pairs_are_scored_with_the_validation_data(run, people, tmp_path):
    """By hand: two folds of two pairs, decided with the threshold of the other fold; also from a results file."""
    data = ["name=image_folder", f"root={people}", f"pairs={people.parent / 'pairs.txt'}"]
    arguments = [str(run), *(word for field in data for word in ("--set", f"val.dataset.{field}"))]
    scores = eval_scores(arguments, tmp_path)
    assert list(scores) == ["retrieval", "verification", "per_class", "images"]
    predictor = Predictor(run, device="cpu")
    files = [f"Outline_{label}/Outline_{label}_000{number}.png" for label, number in ((0, 1), (0, 2), (1, 1), (1, 2))]
    a1, a2, b1, b2 = (predictor(people / file).vector.numpy() for file in (*files,))
    c2 = predictor(people / "Outline_2" / "Outline_2_0002.png").vector.numpy()
    folds = [(a1 @ a2, a1 @ b2), (b1 @ b2, b1 @ c2)]
    accuracies = []
    for (same, other), (same_before, other_before) in (folds, folds[::-1]):
        good = same_before > other_before
        threshold = (same_before + other_before) / 2 if good else np.inf
        accuracies.append((int(same >= threshold) + int(other < threshold)) / 2)
    assert scores["verification"]["accuracy"] == pytest.approx(np.mean(accuracies))


def test_bad_pairs_file_ends_a_run_before_the_first_step(people, tmp_path, capsys):
    """docs/faults.md row 155. By hand: exit code 3 in one line, and no checkpoint."""
    (tmp_path / "pairs.txt").write_text(PAIRS.replace("Outline_1 1 2\n", "Outline_1 1 7\n"))
    data = {"name": "image_folder", "root": str(people), "pairs": str(tmp_path / "pairs.txt")}
    (tmp_path / "config.json").write_text(tiny_embedder(val={"dataset": data}).model_dump_json())
    command = ["train", str(tmp_path / "config.json"), "--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main(command) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "pairs.txt: image_id=Outline_1/Outline_1_0007: line 4 names an image that is not in the data set" in line
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_other_validation_classes_are_for_embeddings_only(tmp_path):
    """docs/faults.md row 22. By hand: a classifier is refused with the difference."""
    config = tiny_embedder(model={"head": ClassificationConfig()})
    with pytest.raises(UsageError, match=r"train and val have different classes; only in train: .*'outline 0'"):
        train(config, tmp_path / "run")
    several = MultiHeadConfig(heads={"face": ArcFaceConfig(), "name": ClassificationConfig()})
    first, second = ({"classification": Classes((name,), (0,))} for name in ("cat", "dog"))
    with pytest.raises(UsageError, match="the model and the data have different classes"):
        require_classes(several, first, second, ("the model", "the data"))
    require_classes(ArcFaceConfig(), first, second)


def test_losses_on_unseen_classes_are_refused(tmp_path):
    """By hand: UsageError before the first step; validation losses are computed if val has the classes of train."""
    with pytest.raises(UsageError, match="val has other classes than train, so validation losses cannot be computed"):
        train(tiny_embedder(evaluation={"losses": True}), tmp_path / "refused")
    known = TRAINED.replace(split="val")
    train(tiny_embedder(val={"dataset": known}, evaluation={"losses": True}), tmp_path / "run")
    assert read_metrics(tmp_path / "run")[-1]["loss_class"] > 0


def test_start_from_copies_the_centers_of_known_classes(run, tmp_path):
    """Law: with a learning rate near zero, the centers of classes that both runs have stay those of the first run."""
    recipe = {"optimizer": AdamWConfig(lr=1e-12, weight_decay=0.0)}
    data = {"dataset": TRAINED.replace(classes_from=2)}  # two old classes and two new ones
    train(tiny_embedder(model={"start_from": str(run)}, train=data, recipe=recipe), tmp_path / "run")
    before, after = (newest_weights(folder)["head.centers.weight"] for folder in (run, tmp_path / "run"))
    torch.testing.assert_close(after[:2], before[2:], atol=1e-9, rtol=0)
    assert (after[2:] - before[:2]).abs().max() > 1e-3


def test_eight_images_are_learned(tmp_path):
    """Learning: after 20 steps the nearest neighbor of each of 8 images is the other image of its class."""
    data = {"dataset": TRAINED, "transform": UNCHANGED}
    schedule = ScheduleConfig(steps=20, warmup_steps=3, decay="cosine")
    recipe = {"batch_size": 8, "optimizer": AdamWConfig(lr=3e-3), "schedule": schedule}
    model = {"weights": "vertebra/shapes_resnet10t", "head": {"scale": 16.0, "angular_margin": 0.2}}
    run = {"checkpoint_every": 20, "log_every": 20}
    before = tiny_embedder(model=model, train=data, val=data, recipe=recipe, run=run)
    assert train(before, tmp_path / "run")["retrieval"]["recall@1"] == 1.0


def recall_of_features(run: Path, config: ExperimentConfig) -> float:
    """Return recall@1 of the pooled features of a run with any head, on the validation data of a config."""
    model, dataset = load_model(run, "cpu"), build_dataset(config.val.dataset)
    rows = []
    batches = eval_loader(dataset, config.val.transform, LoaderConfig(), batch_size=100, divisor=model.size_divisor)
    for batch in batches:
        with torch.no_grad():
            features = pool_levels(model.features(batch.images), batch.images, {"c4": 16})
        rows += [
            {"image_id": image_id, "embedding": vector}
            for image_id, vector in zip(batch.image_ids, features.tolist(), strict=True)
        ]
    recall = evaluate_embeddings(dataset.ground_truth(), rows, dataset.class_names)["retrieval"].summary["recall@1"]
    assert recall is not None
    return recall


@pytest.mark.slow
def test_embeddings_find_unseen_classes_better_than_a_classifiers_features(tmp_path):
    """Learning: recall@1 is higher than that of a classifier's pooled features, with the same backbone, images and
    steps. The docstring of the config has the figures."""
    config = load_config("arcface_r10t_outlines")
    recall = train(config, tmp_path / "arcface")["retrieval"]["recall@1"]
    known = {"dataset": {"classes_from": 0, "num_classes": config.train.dataset.num_classes}}
    train(config.replace(model={"head": ClassificationConfig()}, val=known), tmp_path / "classifier")
    features = recall_of_features(tmp_path / "classifier", config)
    assert 0.4 < features < recall - 0.02 < 0.9
