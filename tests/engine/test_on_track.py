"""Warnings about numbers outside their band, and traces of where the time goes."""

import json

import pytest
from rich.console import Console

from vertebra.configs import load_config
from vertebra.engine import ScheduleConfig, train
from vertebra.engine.logging.run_log import range_warnings
from vertebra.tools.cli import main

from ..helpers.runs import equal, weights
from ..helpers.tiny import tiny_classifier

MEANS = {"loss_class": 0.5, "loss_box": 3.0, "rpn_recall": 0.1, "grad_norm": 1.0}


def banded(**changes):
    """Return an experiment with expected ranges; ``changes`` are fields of its ``run``."""
    ranges = {"loss_class": (0.2, 0.8), "loss_box": (0.2, 1.0), "rpn_recall": (0.4, 1.0), "loss_maks": (0.0, 1.0)}
    run = {"expected_ranges": ranges, "expected_from_step": 30, "log_every": 20, **changes}
    return tiny_classifier(recipe={"schedule": ScheduleConfig(steps=50)}, run=run)


def test_what_is_outside_its_band_gets_a_line():
    """By hand: one inside, one above, one below, one that nobody logs."""
    above, below, unknown = range_warnings(banded(), 40, MEANS)
    assert above.startswith("WARNING: loss_box is 3 by step 40, and expected from 0.2 to 1.0: the learning rate may be")
    assert below.startswith(
        "WARNING: rpn_recall is 0.1 by step 40, and expected from 0.4 to 1.0: annotations may be missing"
    )
    assert unknown == ("WARNING: the range of 'loss_maks' is of nothing that is logged: did you mean 'loss_class'?")


@pytest.mark.parametrize(
    ("expected_from_step", "due"), [(1, [20]), (20, [20]), (21, [40]), (40, [40]), (41, [50]), (50, [50]), (51, [])]
)
def test_bands_are_looked_at_once(expected_from_step, due):
    """By hand: means are written after 20, 40 and 50 steps; the first of them from ``expected_from_step`` on counts."""
    config = banded(expected_from_step=expected_from_step)
    assert [step for step in (20, 40, 50) if range_warnings(config, step, MEANS)] == due


def test_a_run_outside_its_bands_says_so_and_goes_on(tmp_path, capsys):
    """By hand: a loss that cannot be below 0.001 after two steps; the training is that without bands."""
    config = tiny_classifier(run={"expected_ranges": {"loss_class": (0.0, 0.001)}, "expected_from_step": 2})
    train(config, tmp_path / "banded")
    assert capsys.readouterr().err.count("WARNING: loss_class is ") == 1
    train(tiny_classifier(), tmp_path / "plain")
    assert equal(weights(tmp_path / "banded"), weights(tmp_path / "plain"))


def test_a_band_has_room():
    """ValueError naming the term."""
    with pytest.raises(ValueError, match=r"loss_class has 2\.0 to 1\.0"):
        banded(expected_ranges={"loss_class": (2.0, 1.0)})


def test_the_quickstart_states_bands_that_are_looked_at():
    """By hand: its run is longer than the step at which they are, and each loss has one."""
    config = load_config("quickstart")
    assert config.run.expected_from_step <= config.recipe.schedule.steps and len(config.run.expected_ranges) == 5
    assert range_warnings(config, 100, dict.fromkeys(config.run.expected_ranges, 99.0))


def test_a_profile_is_a_trace_of_five_steps(tmp_path, capsys):
    """Oracle: the trace's own marks of steps, in Chrome's format; the weights are those of a run without."""
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
    assert equal(weights(tmp_path / "profiled"), weights(tmp_path / "plain"))
    assert not (tmp_path / "plain" / "profile.json").exists()


def test_a_run_too_short_for_a_profile_says_so(tmp_path, capsys):
    """By hand: four steps."""
    train(tiny_classifier(), tmp_path / "run", profile=True, console=Console(stderr=True))
    assert "no trace was written: the run ended before its step 10" in capsys.readouterr().err
