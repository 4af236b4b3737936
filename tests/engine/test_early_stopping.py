"""Early stopping: a run that does not improve ends before its last step, and resumes exactly."""

import json
import shutil

import pytest

from vertebra.engine import ScheduleConfig, SGDConfig, train
from vertebra.engine.run_folder import RunFolder
from vertebra.inference import open_checkpoint
from vertebra.tools.cli import main

from ..helpers.runs import equal_tensors, newest_weights, read_metrics
from ..helpers.tiny import tiny_classifier
from .test_several_processes import launch


def run_without_progress(**changes):
    """Return an experiment whose scores never change, since its learning rate is almost 0: the first evaluation
    stays the best."""
    config = tiny_classifier(
        model={"backbone": {"norm": "frozen"}},  # batch norm statistics would change
        recipe={"optimizer": SGDConfig(lr=1e-12), "schedule": ScheduleConfig(steps=40, warmup_steps=0)},
        evaluation={"every": 2, "patience": 2},
        run={"checkpoint_every": 4, "keep_checkpoints": 9},
    )
    return config.replace(**changes)


@pytest.mark.parametrize(
    ("rows", "best", "score", "loss"),
    [
        ([], 0, 0, 0),
        ([(1, 0.2, 3.0)], 1, 0, 0),
        ([(1, 0.2, 3.0), (2, 0.3, 2.0), (3, 0.3, 1.0), (4, 0.1, 1.0)], 2, 2, 1),
        ([(1, None, None), (2, 0.0, 1.0), (3, None, None)], 2, 1, 1),
        ([(1, None, None), (2, None, None), (3, None, None)], 3, 0, 0),
    ],
)
def test_evaluations_since_the_best_are_counted(rows, best, score, loss, tmp_path):
    """docs/faults.md row 182. By hand: of equal scores the earliest is the best, and a missing score is the worst; if
    all are missing the newest is the best and patience counts nothing; only the group ``val`` counts."""
    lines = [{"step": step, "group": "val", "AP": first, "loss": second} for step, first, second in rows]
    lines += [{"step": 1, "group": "train", "loss": 0.0}, {"step": 9, "group": "val/segm", "AP": 1.0}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = RunFolder(tmp_path)
    assert [folder.evaluations_since_best(measure) for measure in ("score", "loss")] == [score, loss]
    assert folder.best_step() == best


def test_run_ends_after_patience_evaluations_without_progress(tmp_path, capsys):
    """By hand: evaluations after 2, 4 and 6 steps, the last two no better; the run folder is complete, and resuming
    adds no step."""
    train(run_without_progress(), tmp_path / "run")
    run = tmp_path / "run"
    assert open_checkpoint(run).step == read_metrics(run)[-1]["step"] == 6
    assert json.loads((run / "eval.json").read_text())["step"] == 6 and (run / "predictions.png").exists()
    assert "the run ends after step 6: no better score in 2 evaluations" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.*") if "tensorboard" not in str(path)}
    again = main(["train", str(run / "config.json"), "--output", str(run), "--resume", "--device", "cpu"])
    assert again == 0 and "the run ends after step 6" in capsys.readouterr().err
    changed = {path.name for path, moment in before.items() if path.stat().st_mtime_ns != moment}
    assert changed <= {"config.json", "metrics.jsonl", "data_report.json", "data_report_val.json", "run.lock"}


def test_resumed_run_stops_at_the_same_step(tmp_path):
    """Law: a run that lost its sixth step evaluates that step again, and ends with the same bits."""
    train(run_without_progress(), tmp_path / "run")
    unbroken, lines = newest_weights(tmp_path / "run"), read_metrics(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-0000006")
    train(run_without_progress(), tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), unbroken) and read_metrics(tmp_path / "run") == lines


def test_resuming_with_more_patience_continues(tmp_path):
    """Law: it ends like a run that had more patience from the start, with a new picture."""
    for name in ("short", "long"):
        train(run_without_progress(evaluation={"patience": 2 if name == "short" else 4}), tmp_path / name)
    picture = tmp_path / "short" / "predictions.png"
    before = picture.stat().st_mtime_ns
    train(run_without_progress(evaluation={"patience": 4}), tmp_path / "short", resume=True)
    assert open_checkpoint(tmp_path / "short").step == 10 and picture.stat().st_mtime_ns > before
    assert equal_tensors(newest_weights(tmp_path / "short"), newest_weights(tmp_path / "long"))
    assert read_metrics(tmp_path / "short") == read_metrics(tmp_path / "long")


def test_patience_for_the_validation_loss(tmp_path):
    """By hand: at a learning rate that is far too high, the first evaluation has the lowest loss."""
    config = run_without_progress(
        recipe={"optimizer": SGDConfig(lr=1.0, momentum=0.0), "clip_norm": 1.0},
        evaluation={"losses": True, "patience_for": "loss"},
    )
    train(config, tmp_path / "run")
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if line["group"] == "val"]
    assert len(losses) < 20 and losses.index(min(losses)) == len(losses) - 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"every": 0}, "set every"), ({"patience_for": "loss"}, "needs losses=True")],
)
def test_patience_without_evaluations_or_losses_is_refused(changes, message):
    """By hand: ValueError, instead of a run that would never stop early."""
    with pytest.raises(ValueError, match=message):
        run_without_progress(evaluation=changes)


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step(tmp_path):
    """Law: both ranks end after the same step, without an error."""
    printed = launch(2, tmp_path, run_without_progress())
    assert open_checkpoint(tmp_path / "run").step == 6 and printed.count("the run ends after step 6") == 1
