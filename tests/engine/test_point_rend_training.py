"""PointRend for masks and semantic maps, end to end: training, evaluation, resuming, and two processes."""

from pathlib import Path

import pytest

from vertebra.data import ScaledCropConfig
from vertebra.engine import ExperimentConfig, SGDConfig, evaluate_run, train
from vertebra.heads import PointRefinementConfig, PointRendBranchConfig

from ..heads.test_multi_head import multi_head_config
from ..helpers.runs import equal_tensors, newest_weights, read_metrics, read_scores
from .test_several_processes import assert_same_steps, launch

MASKS = PointRendBranchConfig(channels=8, fc=(16,), point_head={"channels": (8,), "subdivisions": 2})
MAPS = PointRefinementConfig(channels=(8,), points=64, subdivision_points=128)


def experiment(shapes: Path, **changes) -> ExperimentConfig:
    """Return a tiny experiment whose norms and padding do not depend on the images of one rank."""
    config = multi_head_config(shapes)
    boxes, semantic = config.model.head.heads.values()
    heads = {
        "boxes": boxes.replace(mask=None, point_rend=MASKS, branch_boxes="refined"),
        "semantic": semantic.replace(norm="group", channels=32, refinement=MAPS),
    }
    model = {
        "backbone": {"norm": "frozen"},
        "neck": {"channels": 32, "norm": "group"},
        "head": config.model.head.replace(heads=heads),
    }
    train_split = {"transform": ScaledCropConfig(size=(64, 64), scales=(1.0, 1.0))}
    return config.replace(model=model, train=train_split).replace(**changes)


@pytest.fixture(scope="module")
def finished(shapes, tmp_path_factory) -> Path:
    """Return a finished run of four steps."""
    folder = tmp_path_factory.mktemp("point_rend") / "run"
    train(experiment(shapes), folder)
    return folder


def test_point_rend_run_is_evaluated(finished):
    """Law: the scores of the run are those of its checkpoint evaluated again; all losses of PointRend are logged."""
    losses = {"loss_boxes_mask", "loss_boxes_mask_points", "loss_semantic_points"}
    assert losses <= read_metrics(finished)[0].keys()
    scores, again = read_scores(finished / "eval.json"), evaluate_run(finished, device="cpu")
    for name in ("boxes/segm", "boxes/boundary", "semantic/semantic"):
        assert again[name] == pytest.approx(scores[name], nan_ok=True)


def test_point_rend_resumes_exactly(finished, shapes, tmp_path):
    """Law: a run resumed after two of four steps ends bit-identical to an unbroken run, although points are random."""
    train(experiment(shapes), tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    newest.rename(tmp_path / "removed")
    train(experiment(shapes), tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(finished))
    assert [line for line in read_metrics(tmp_path / "run") if line["group"] == "train"] == [
        line for line in read_metrics(finished) if line["group"] == "train"
    ]


@pytest.mark.slow
def test_point_rend_does_not_depend_on_the_world_size(shapes, tmp_path):
    """Law: the points of an image are the same on any rank, and losses are normalized over all ranks."""
    # AdamW would scale up what rounding leaves of gradients that are zero.
    config = experiment(shapes, recipe={"batch_size": 4, "optimizer": SGDConfig(lr=0.01)})
    train(config, tmp_path / "alone")
    launch(2, tmp_path, config)
    assert_same_steps(tmp_path / "run", tmp_path / "alone")
