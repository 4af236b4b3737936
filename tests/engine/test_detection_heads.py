"""Detection heads in the engine: training, resuming, evaluation and prediction, by one process and by two."""

import pytest
from PIL import Image

from vertebra.data import ScaledCropConfig
from vertebra.engine import ExperimentConfig, ScheduleConfig, SGDConfig, evaluate_run, train
from vertebra.heads import (
    CASCADE,
    DenseSelectionConfig,
    FCOSConfig,
    HeadConfig,
    RetinaNetConfig,
    RPNConfig,
    YOLOXConfig,
)
from vertebra.inference import Predictor

from ..helpers.runs import equal_tensors, newest_weights, read_metrics
from ..helpers.tiny import tiny_config
from .test_several_processes import assert_same_steps, launch

SELECTION = DenseSelectionConfig(score_threshold=0.0, max_candidates=50, max_detections=20)
STAGE = {"fc": (32,), "samples": 32, "score_threshold": 0.0, "max_detections": 20}
HEADS = {
    "cascade": CASCADE.replace(
        rpn=RPNConfig(samples=32, pre_nms=(100, 100), post_nms=(50, 50)),
        box=STAGE,
        cascade=tuple(stage.replace(**STAGE) for stage in CASCADE.cascade),
    ),
    "retinanet": RetinaNetConfig(convolutions=1, norm="group", selection=SELECTION),
    "fcos": FCOSConfig(convolutions=1, selection=SELECTION),
    "yolox": YOLOXConfig(convolutions=1, norm="group", l1_from=0.5, selection=SELECTION),
}


def experiment(shapes, head: HeadConfig, **changes) -> ExperimentConfig:
    """Return a tiny experiment whose norms and padding do not depend on the images of one rank."""
    transform = ScaledCropConfig(size=(64, 64), scales=(1.0, 1.0))
    model = {"backbone": {"norm": "frozen"}, "neck": {"channels": 32, "norm": "group"}, "head": head}
    return tiny_config(shapes, model=model, train={"transform": transform}, **changes)


@pytest.fixture(scope="module", params=HEADS)
def head(request) -> HeadConfig:
    return HEADS[request.param]


@pytest.fixture(scope="module")
def finished(head, shapes, tmp_path_factory):
    """Return a finished run of four steps."""
    folder = tmp_path_factory.mktemp(head.name) / "run"
    train(experiment(shapes, head), folder)
    return folder


def test_detector_is_evaluated_and_predicts(finished, shapes):
    """Law: the scores of the run are those of its checkpoint evaluated again, and a photo gets at most 20 boxes."""
    scores = [line for line in read_metrics(finished) if line["group"] == "val"]
    again = evaluate_run(finished, device="cpu")
    assert again["bbox"]["AP"] == pytest.approx(scores[-1]["AP"], nan_ok=True)
    predictor = Predictor(finished, device="cpu")
    detections = predictor(Image.open(sorted((shapes / "val").glob("*.*"))[0]))
    assert 0 < len(detections) <= 20 and detections.boxes.isfinite().all()


def test_detector_resumes_exactly(head, finished, shapes, tmp_path):
    """Law: two steps and the resumed rest end with the bits of four steps, buffers too."""
    config = experiment(shapes, head)
    half = config.replace(recipe={"schedule": ScheduleConfig(steps=4, warmup_steps=2)})
    train(half, tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    newest.rename(tmp_path / "removed")
    train(config, tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(finished))


def test_losses_of_a_detector_do_not_depend_on_the_world_size(head, shapes, tmp_path):
    """Law: losses, gradient norms and weights of two processes are those of one up to rounding."""
    # AdamW would scale up what rounding leaves of gradients that are zero.
    config = experiment(shapes, head, recipe={"batch_size": 4, "optimizer": SGDConfig(lr=0.01)})
    train(config, tmp_path / "alone")
    launch(2, tmp_path, config)
    assert_same_steps(tmp_path / "run", tmp_path / "alone")
