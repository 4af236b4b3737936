"""Warnings about losses outside their expected range, and profiles."""

import json

import pytest
from rich.console import Console

from vertebra.configs import load_config
from vertebra.engine import ScheduleConfig, train
from vertebra.engine.logging.run_log import range_warnings
from vertebra.tools.cli import main

from ..helpers.runs import equal_tensors, newest_weights
from ..helpers.tiny import tiny_classifier

MEANS = {"loss_class": 0.5, "loss_box": 3.0, "rpn_recall": 0.1, "grad_norm": 1.0}


def with_ranges(**changes):
    """Return an experiment with expected ranges; ``changes`` are fields of its ``run``."""
    ranges = {"loss_class": (0.2, 0.8), "loss_box": (0.2, 1.0), "rpn_recall": (0.4, 1.0), "loss_maks": (0.0, 1.0)}
    run = {"expected_ranges": ranges, "expected_from_step": 30, "log_every": 20, **changes}
    return tiny_classifier(recipe={"schedule": ScheduleConfig(steps=50)}, run=run)


def test_metrics_outside_their_range_get_a_warning():
    """By hand: one metric inside its range, one above, one below, and one that is not logged."""
    above, below, unknown = range_warnings(with_ranges(), 40, MEANS)
    assert above.startswith("WARNING: loss_box is 3 at step 40, expected 0.2 to 1.0: the learning rate may be")
    assert below.startswith("WARNING: rpn_recall is 0.1 at step 40, expected 0.4 to 1.0: annotations may be missing")
    assert unknown == ("WARNING: run.expected_ranges: no value named 'loss_maks' is logged: did you mean 'loss_class'?")


@pytest.mark.parametrize(
    ("expected_from_step", "due"), [(1, [20]), (20, [20]), (21, [40]), (40, [40]), (41, [50]), (50, [50]), (51, [])]
)
def test_expected_ranges_are_checked_once(expected_from_step, due):
    """By hand: means are logged after 20, 40 and 50 steps; the first record from ``expected_from_step`` on is
    checked."""
    config = with_ranges(expected_from_step=expected_from_step)
    assert [step for step in (20, 40, 50) if range_warnings(config, step, MEANS)] == due


def test_run_outside_its_ranges_warns_and_continues(tmp_path, capsys):
    """By hand: a loss that cannot be below 0.001 after two steps; the weights are those of a run without ranges."""
    config = tiny_classifier(run={"expected_ranges": {"loss_class": (0.0, 0.001)}, "expected_from_step": 2})
    train(config, tmp_path / "with_ranges")
    assert capsys.readouterr().err.count("WARNING: loss_class is ") == 1
    train(tiny_classifier(), tmp_path / "plain")
    assert equal_tensors(newest_weights(tmp_path / "with_ranges"), newest_weights(tmp_path / "plain"))


def test_reversed_range_is_refused():
    """By hand: ValueError naming the metric and both ends."""
    with pytest.raises(ValueError, match=r"the low end of loss_class is above the high end: 2\.0, 1\.0"):
        with_ranges(expected_ranges={"loss_class": (2.0, 1.0)})


def test_quickstart_checks_the_range_of_every_loss():
    """By hand: the run is longer than ``expected_from_step``, and every loss has a range."""
    config = load_config("quickstart")
    assert config.run.expected_from_step <= config.recipe.schedule.steps and len(config.run.expected_ranges) == 5
    assert range_warnings(config, 100, dict.fromkeys(config.run.expected_ranges, 99.0))


def test_profile_is_a_trace_of_five_steps(tmp_path, capsys):
    """Oracle: the profiler's own marks of steps in the trace.

    The weights are those of a run without a profile.
    """
    config = tiny_classifier(recipe={"schedule": ScheduleConfig(steps=16, warmup_steps=2)})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    run = ["train", str(tmp_path / "config.json"), "--device", "cpu", "--output"]
    assert main([*run, str(tmp_path / "profiled"), "--profile"]) == 0
    path = tmp_path / "profiled" / "profile.json"
    assert f"a trace of steps 10 to 14 is in {path}" in capsys.readouterr().err
    events = json.loads(path.read_text())["traceEvents"]
    steps = {event["name"] for event in events if str(event.get("name")).startswith("ProfilerStep#")}
    assert steps == {f"ProfilerStep#{number}" for number in range(9, 14)}  # counted from 0
    assert any("convolution" in str(event.get("name")) for event in events)
    assert main([*run, str(tmp_path / "plain")]) == 0
    assert equal_tensors(newest_weights(tmp_path / "profiled"), newest_weights(tmp_path / "plain"))
    assert not (tmp_path / "plain" / "profile.json").exists()


def test_run_too_short_for_a_profile_says_so(tmp_path, capsys):
    """By hand: a run of four steps."""
    train(tiny_classifier(), tmp_path / "run", profile=True, console=Console(stderr=True))
    assert "no trace was written: the run ended before its step 10" in capsys.readouterr().err
