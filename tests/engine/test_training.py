"""Training end to end: runs are reproducible, resume exactly, and are stopped by errors."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time

import pytest
import torch

from vertebra.data import LoaderConfig, build_dataset, eval_loader
from vertebra.engine import (
    ScheduleConfig,
    SGDConfig,
    TrainingState,
    evaluate,
    pick_task,
    save_checkpoint,
    train,
    train_step,
)
from vertebra.evaluation import Scores
from vertebra.inference import checkpoint_paths, load_model, open_checkpoint
from vertebra.models import build_model
from vertebra.structures import CheckpointError, NonFiniteError, UsageError, WorkerError

from ..helpers.runs import equal_tensors, newest_weights, read_metrics, start_training, wait_for_steps
from ..helpers.tiny import tiny_classifier, tiny_config


@pytest.fixture(scope="module")
def unbroken(shapes, tmp_path_factory):
    """Return a finished, uninterrupted run."""
    output = tmp_path_factory.mktemp("unbroken") / "run"
    train(tiny_config(shapes), output)
    return output


def test_run_folder_has_the_files_that_the_readme_lists(unbroken):
    """By hand: README's list of files."""
    for name in ("config.json", "metrics.jsonl", "eval.json", "results.json", "predictions.png", "data_report.json"):
        assert (unbroken / name).stat().st_size > 0, name
    scores = json.loads((unbroken / "eval.json").read_text())
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    assert list(scores["bbox"]) == names
    assert scores["step"] == 4
    assert any((unbroken / "tensorboard").iterdir())


@pytest.mark.parametrize("workers", [0, 2])
def test_same_seed_gives_the_same_weights(shapes, unbroken, tmp_path, workers):
    """docs/faults.md row 121. Law: the same seed gives the same weights and log, for any number of workers."""
    train(tiny_config(shapes, run={"loader": LoaderConfig(workers=workers)}), tmp_path / "run")
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(unbroken))
    assert read_metrics(tmp_path / "run") == read_metrics(unbroken)


def test_another_seed_gives_other_weights(shapes, unbroken, tmp_path):
    """Law: the control of the test above."""
    train(tiny_config(shapes, recipe={"seed": 1}), tmp_path / "run")
    assert not equal_tensors(newest_weights(tmp_path / "run"), newest_weights(unbroken))


@pytest.mark.parametrize("workers", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_resume_after_sigkill_is_bit_exact(shapes, tmp_path, workers):
    """Law: after SIGKILL, resumed in a new process, weights and log are those of an uninterrupted run."""
    schedule = ScheduleConfig(steps=40, warmup_steps=2)
    config = tiny_config(
        shapes, recipe={"schedule": schedule}, run={"checkpoint_every": 3, "loader": LoaderConfig(workers=workers)}
    )
    train(config, tmp_path / "unbroken")
    broken = tmp_path / "broken"
    process = start_training(config, broken)
    while len(checkpoint_paths(broken / "checkpoints")) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    reached = open_checkpoint(broken).step
    assert 3 <= reached < 40
    train(config, broken, resume=True)
    assert equal_tensors(newest_weights(broken), newest_weights(tmp_path / "unbroken"))
    assert read_metrics(broken) == read_metrics(tmp_path / "unbroken")


def test_resuming_a_finished_run_changes_nothing(shapes, unbroken):
    """docs/faults.md row 112. Law: no step is added."""
    before = (unbroken / "metrics.jsonl").read_text()
    train(tiny_config(shapes), unbroken, resume=True)
    assert (unbroken / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("workers", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_sigterm_ends_a_run_with_a_checkpoint(shapes, tmp_path, workers):
    """docs/faults.md row 109. By hand: exit code 143 and a checkpoint of the step that the run reached.

    Like a scheduler's, the signal goes to the workers too.
    """
    schedule, loader = ScheduleConfig(steps=10_000), LoaderConfig(workers=workers)
    config = tiny_config(shapes, recipe={"schedule": schedule}, run={"checkpoint_every": 10_000, "loader": loader})
    process = start_training(config, tmp_path / "run")
    wait_for_steps(process, tmp_path / "run")
    os.killpg(process.pid, signal.SIGTERM)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped by SIGTERM after step" in output
    assert open_checkpoint(tmp_path / "run").step >= 1


def test_dead_worker_during_a_step_stops_the_run(tmp_path, monkeypatch):
    """docs/faults.md row 117. By hand: exit code 6, here in the middle of the optimizer step."""
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda optimizer: kill_a_worker())
    with pytest.raises(WorkerError, match="killed by signal"):
        train(
            tiny_classifier(recipe={"schedule": ScheduleConfig(steps=100)}, run={"loader": LoaderConfig(workers=1)}),
            tmp_path / "run",
        )


def test_dead_worker_during_an_evaluation_stops_it(tmp_path, monkeypatch):
    """docs/faults.md row 117. By hand: exit code 6."""
    config = tiny_classifier(run={"loader": LoaderConfig(workers=1)})
    dataset = build_dataset(config.val.dataset)
    model = build_model(config.model, dataset.class_names)
    monkeypatch.setattr(model, "predict", lambda images: kill_a_worker())
    with pytest.raises(WorkerError, match="killed by signal"):
        evaluate(pick_task(model.head, dataset.classes), model, dataset, config)


def kill_a_worker() -> None:
    """Kill a data-loading worker, and wait to be interrupted."""
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(20)
    raise AssertionError("nobody noticed")


def test_non_finite_loss_stops_the_run(shapes, tmp_path):
    """By hand: a learning rate of 1e30: exit code 5 naming step, losses and images, and no checkpoint of that step."""
    config = tiny_config(
        shapes,
        recipe={"clip_norm": None, "schedule": ScheduleConfig(steps=20, warmup_steps=0)},
        run={"checkpoint_every": 20},
    )
    config = config.replace(recipe={"optimizer": config.recipe.optimizer.replace(lr=1e30)})
    with pytest.raises(NonFiniteError, match=r"step \d+: loss_rpn_objectness .*; images \d+, \d+") as caught:
        train(config, tmp_path / "run")
    assert caught.value.exit_code == 5
    assert not checkpoint_paths(tmp_path / "run" / "checkpoints")


def test_gradients_are_clipped():
    """By hand: plain gradient descent moves the weights by the learning rate times the clipped norm."""
    optimizer = SGDConfig(lr=0.5, momentum=0.0, weight_decay=0.0)
    schedule = ScheduleConfig(steps=4, decay="none", warmup_steps=0)
    config = tiny_classifier(recipe={"clip_norm": 0.25, "optimizer": optimizer, "schedule": schedule})
    dataset = build_dataset(config.train.dataset)
    model = build_model(config.model, dataset.class_names)
    batch = next(
        eval_loader(dataset, config.val.transform, config.run.loader, batch_size=4, divisor=model.size_divisor)
    )
    before = [parameter.detach().clone() for parameter in model.parameters()]
    numbers = train_step(TrainingState.create(model, config), [batch], config, step=1)
    moved = [after.detach() - first for after, first in zip(model.parameters(), before, strict=True)]
    assert numbers["grad_norm"] > 0.25
    assert torch.stack([move.norm() for move in moved]).norm().item() == pytest.approx(0.5 * 0.25, rel=1e-3)


def test_resuming_with_another_recipe_is_refused(shapes, unbroken):
    """docs/faults.md row 110. By hand: exit code 2, showing the difference; a field that changes no number may
    differ."""
    config = tiny_config(shapes, recipe={"batch_size": 3})
    with pytest.raises(UsageError, match="batch_size was 2, is 3"):
        train(config, unbroken, resume=True)
    train(tiny_config(shapes, run={"log_every": 7}), unbroken, resume=True)


def test_existing_run_is_not_overwritten(shapes, unbroken):
    """By hand: exit code 2 without --resume."""
    with pytest.raises(UsageError, match="holds a run already"):
        train(tiny_config(shapes), unbroken)


def test_two_runs_in_one_folder_are_refused(shapes, tmp_path):
    """docs/faults.md row 113. By hand: exit code 2, naming the process that uses the folder."""
    from vertebra.engine.run_folder import RunFolder

    with RunFolder(tmp_path / "run"), pytest.raises(UsageError, match=f"process {os.getpid()}"):
        train(tiny_config(shapes), tmp_path / "run")


def test_unwritable_output_is_refused_before_the_first_step(shapes, tmp_path):
    """docs/faults.md row 108. By hand: exit code 2 for an output below a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        train(tiny_config(shapes), tmp_path / "file" / "run")


def test_damaged_checkpoint_falls_back_to_the_one_before(shapes, tmp_path):
    """docs/faults.md rows 101, 102. By hand: one flipped bit changes the checksum; the older checkpoint is used, and
    a line says so."""
    run, lines = tmp_path / "run", []
    train(tiny_config(shapes), run)
    newest = checkpoint_paths(run / "checkpoints")[-1] / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    assert open_checkpoint(run, lines.append).step == 2
    assert "checksum" in lines[0] and "falling back" in lines[0]
    with pytest.raises(CheckpointError, match="checksum"):
        open_checkpoint(newest.parent)


def test_failed_save_leaves_no_partial_files(shapes, tmp_path, monkeypatch):
    """docs/faults.md row 107. By hand: exit code 4 for a disk that is full during a save; the earlier checkpoint is
    intact."""
    run = tmp_path / "run"
    train(tiny_config(shapes), run)
    model = load_model(run)
    state = TrainingState.create(model, tiny_config(shapes))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = sorted((run / "checkpoints").iterdir())
    with pytest.raises(CheckpointError, match="No space left") as caught:
        save_checkpoint(run / "checkpoints", 99, state, {})
    assert caught.value.exit_code == 4
    assert sorted((run / "checkpoints").iterdir()) == before


def test_model_is_loaded_from_its_run_folder(shapes, unbroken):
    """By hand: the checkpoint's weights and class names, in evaluation mode."""
    model = load_model(unbroken)
    assert equal_tensors(model.state_dict(), newest_weights(unbroken))
    assert not model.training
    assert model.class_names == {"detection": open_checkpoint(unbroken).classes["detection"].names}


def test_weights_of_another_model_are_refused(shapes, unbroken, tmp_path):
    """docs/faults.md row 98. By hand: exit code 4, naming the tensors."""
    from vertebra.inference import load_weights

    checkpoint = open_checkpoint(unbroken)
    model = build_model(checkpoint.inference_config().model, checkpoint.classes["detection"].names[:-1])
    with pytest.raises(CheckpointError, match=r"class_logits\.bias has shape"):
        load_weights(checkpoint, model)


def test_best_checkpoint_is_kept(shapes, tmp_path, monkeypatch):
    """By hand: scores of 0.1, 0.4, 0.4 and 0.2 at four steps; the second and the newest are kept."""
    scores = iter([0.1, 0.4, 0.4, 0.2])

    def scripted(*arguments):
        return [], {"bbox": Scores({"AP": next(scores)}, {}, {})}

    monkeypatch.setattr(sys.modules["vertebra.engine.loop.train"], "evaluate", scripted)
    run = tmp_path / "run"
    train(tiny_config(shapes, run={"checkpoint_every": 3, "keep_checkpoints": 1}, evaluation={"every": 1}), run)
    kept = [path.name for path in checkpoint_paths(run / "checkpoints")]
    assert kept == ["step-0000002", "step-0000004"]
    assert open_checkpoint(run / "checkpoints" / "best").step == 2 and open_checkpoint(run).step == 4


def test_missing_evaluation_is_done_on_resume(shapes, tmp_path):
    """Law: the checkpoint of step 2 has no score yet; resuming evaluates it, as the uninterrupted run did."""
    config = tiny_config(shapes, evaluation={"every": 2})
    train(config, tmp_path / "unbroken")
    broken = shutil.copytree(tmp_path / "unbroken", tmp_path / "broken", symlinks=True)
    shutil.rmtree(checkpoint_paths(broken / "checkpoints")[-1])
    lines = (broken / "metrics.jsonl").read_text().splitlines(keepends=True)
    (broken / "metrics.jsonl").write_text(
        "".join(line for line in lines if json.loads(line)["step"] < 3 and '"val' not in line)
    )
    (broken / "eval.json").unlink()
    train(config, broken, resume=True)
    assert read_metrics(broken) == read_metrics(tmp_path / "unbroken")
