"""Predictions are converted to results rows in a thread while the next batch is predicted."""

import threading

import pytest
import torch

from vertebra.data import Batch, build_dataset
from vertebra.engine import collect_results, evaluate
from vertebra.engine.tasks import pick_task
from vertebra.models import build_model
from vertebra.structures import DataError, Images

from ..helpers.tiny import tiny_classifier

CONFIG = tiny_classifier(run={"loader": {"workers": 0}}, evaluation={"batch_size": 1})


def classifier(monkeypatch, during_predict) -> tuple:
    """Return a task and a model of a tiny classifier that calls a function with the number of each prediction."""
    dataset = build_dataset(CONFIG.val.dataset)
    model = build_model(CONFIG.model, dataset.class_names)
    predict, calls = model.predict, iter(range(1000))

    def call(images: Images) -> list:
        during_predict(next(calls))
        return predict(images)

    monkeypatch.setattr(model, "predict", call)
    return pick_task(model.head, dataset.classes), model, dataset


def batches(count: int) -> list[Batch]:
    """Return batches of one black image each."""
    images = Images.from_list([torch.zeros(3, 32, 32, dtype=torch.uint8)])
    return [Batch(images, (None,), (number,), ((32, 32),)) for number in range(count)]


def test_rows_are_made_while_the_next_batch_is_predicted(monkeypatch):
    """Law: the rows of the first image wait for the beginning of the second prediction; all rows stay in order."""
    second = threading.Event()
    task, model, _ = classifier(monkeypatch, lambda number: second.set() if number == 1 else None)
    make_rows = task.rows

    def wait(prediction, image_id):
        assert second.wait(timeout=30), "the second image was not predicted before the rows of the first were made"
        return make_rows(prediction, image_id)

    monkeypatch.setattr(task, "rows", wait)
    assert [row["image_id"] for row in collect_results(task, model, batches(9))] == list(range(9))


def test_predictions_do_not_pile_up(monkeypatch):
    """Law: while rows are made slowly, at most four batches are ahead: two waiting, one in work, one predicted."""
    made, ahead = [], []
    task, model, _ = classifier(monkeypatch, lambda number: ahead.append(number - len(made)))
    make_rows = task.rows

    def slowly(prediction, image_id):
        threading.Event().wait(0.02)
        made.append(image_id)
        return make_rows(prediction, image_id)

    monkeypatch.setattr(task, "rows", slowly)
    assert len(collect_results(task, model, batches(12))) == 12
    assert 2 <= max(ahead) <= 3


def test_error_in_the_thread_ends_the_evaluation(monkeypatch):
    """Symptom: an error of a thread would be lost. By hand: the third image cannot be converted."""
    task, model, dataset = classifier(monkeypatch, lambda number: None)
    make_rows, broken = task.rows, dataset.image_ids[2]

    def fail(prediction, image_id):
        if image_id == broken:
            raise DataError("cannot be converted", "try again", case="bad-results", image_id=image_id)
        return make_rows(prediction, image_id)

    monkeypatch.setattr(task, "rows", fail)
    with pytest.raises(DataError, match="cannot be converted"):
        evaluate(task, model, dataset, CONFIG)
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]


def test_interruption_during_a_prediction_ends_the_thread(monkeypatch):
    """Law: Ctrl-C in the main thread is raised, and no thread remains."""

    def interrupt(number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    task, model, dataset = classifier(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(task, model, dataset, CONFIG)
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]
