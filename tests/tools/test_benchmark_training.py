"""``benchmark-training``: it times a step of the run that the config describes."""

import sys

import pytest
import torch

import vertebra.engine
from vertebra.data import MixupConfig, SamplingConfig
from vertebra.engine import train
from vertebra.structures import UsageError
from vertebra.tools.benchmark_training import measure
from vertebra.tools.cli import main

from ..helpers.tiny import tiny_classifier, tiny_config


def test_benchmark_uses_the_batches_of_a_runs_first_step(shapes, tmp_path, monkeypatch):
    """Oracle: the batches that a run of the same config gives to its first step, with micro-batches, sampling and
    mix."""
    config = tiny_config(
        shapes, recipe={"batch_size": 4, "accumulate": 2}, train={"sampling": SamplingConfig(images="class_balanced")}
    )
    config = config.replace(train=config.train.replace(mix=MixupConfig()))
    seen: list = []

    def kept(state, batches, *arguments):
        seen.append(batches)
        return real(state, batches, *arguments)

    real = vertebra.engine.train_step
    monkeypatch.setattr(vertebra.engine, "train_step", kept)
    monkeypatch.setattr(sys.modules["vertebra.engine.loop.train"], "train_step", kept)
    speed, memory = measure(config.model_dump(mode="json"), "cpu", steps=1)
    assert speed > 0 and 0.1 < memory < 64  # GiB
    timed = seen[0]
    assert len(seen) == 3 and len(timed) == 2
    train(config, tmp_path / "run")
    for mine, its in zip(timed, seen[3], strict=True):
        assert mine.image_ids == its.image_ids and torch.equal(mine.images.pixels, its.images.pixels)


def test_indivisible_batch_is_refused():
    """By hand: exit code 2, as for a training."""
    with pytest.raises(UsageError, match="choose a multiple of 3"):
        measure(tiny_classifier(recipe={"accumulate": 3}).model_dump(mode="json"), "cpu", steps=1)


@pytest.mark.slow
def test_benchmark_training_prints_a_row_per_setting(tmp_path, capsys):
    """By hand: plain fp32 is always shown; a misspelt setting gets the nearest name."""
    path = tmp_path / "config.json"
    path.write_text(tiny_classifier().model_dump_json())
    run, once = ["benchmark-training", str(path)], ["--device", "cpu", "--steps", "1", "--rounds", "1"]
    assert main([*run, "channels-last", *once, "--set", "recipe.accumulate=2"]) == 0
    rows = capsys.readouterr().out
    assert "fp32" in rows and "channels-last" in rows and "GiB" in rows and "bf16" not in rows
    assert main([*run, "chanels-last", *once]) == 2 and "did you mean 'channels-last'" in capsys.readouterr().err
