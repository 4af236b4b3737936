"""Losses on the validation images: their values, and what they do not depend on."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from vertebra.data import build_dataset, eval_loader
from vertebra.engine import train, validation_losses
from vertebra.inference import load_model
from vertebra.models import build_model

from ..helpers.runs import equal_tensors, newest_weights, read_metrics
from ..helpers.tiny import tiny_classifier, tiny_config


def build(config, data):
    """Return the experiment's model with random weights."""
    torch.manual_seed(0)
    return build_model(config.model, data.class_names).train()


def test_validation_losses_are_means_over_the_images(tmp_path):
    """Oracle: torch's cross-entropy of all logits in one batch; the same value in every file that has it."""
    config = tiny_classifier(evaluation={"losses": True})
    train(config, tmp_path)
    model = load_model(tmp_path)
    (batch,) = eval_loader(
        build_dataset(config.val.dataset),
        config.val.transform,
        config.run.loader,
        batch_size=5,
        divisor=model.size_divisor,
    )
    with torch.no_grad():
        logits = model.head(model.features(batch.images), batch.images)
    expected = F.cross_entropy(logits, torch.stack(batch.targets)).item()
    losses = json.loads((tmp_path / "eval.json").read_text())["losses"]
    assert losses == {"loss_class": pytest.approx(expected, rel=1e-5), "loss": losses["loss_class"]}
    last = read_metrics(tmp_path)[-1]
    assert last["group"] == "val" and last["loss"] == losses["loss"]


def test_validation_losses_do_not_depend_on_the_generator_or_the_mode(shapes):
    """Law: the bits are the same although regions are sampled; the model stays in its mode."""
    config = tiny_config(shapes)
    data = build_dataset(config.val.dataset)
    model = build(config, data)
    first = validation_losses(model, data, config)
    torch.manual_seed(99)
    assert validation_losses(model.eval(), data, config) == first and not model.training
    assert validation_losses(model.train(), data, config) == first and model.training
    assert first["loss"] == pytest.approx(sum(value for name, value in first.items() if name != "loss"))
    assert validation_losses(model, data, config.replace(recipe={"seed": 1})) != first  # the control


def test_validation_losses_do_not_change_the_training(shapes, tmp_path):
    """Law: with and without them, in the middle of a run, the weights are bit-equal."""
    for name, wanted in (("without", False), ("with", True)):
        train(tiny_config(shapes, evaluation={"every": 1, "losses": wanted}), tmp_path / name)
    assert equal_tensors(newest_weights(tmp_path / "without"), newest_weights(tmp_path / "with"))
    kept = [line for line in read_metrics(tmp_path / "with") if line["group"] == "train"]
    assert kept == [line for line in read_metrics(tmp_path / "without") if line["group"] == "train"]


def test_non_finite_validation_loss_is_none(tmp_path):
    """By hand: infinite weights; JSON has no value for such a loss."""
    config = tiny_classifier()
    data = build_dataset(config.val.dataset)
    model = build(config, data)
    with torch.no_grad():
        model.head.fc.weight.fill_(torch.inf)
    assert validation_losses(model, data, config) == {"loss_class": None, "loss": None}


SCRIPT = """
import json, sys
from vertebra.data import build_dataset
from vertebra.engine import experiment_config, init_distributed, validation_losses
from vertebra.inference import load_checkpoint_model, open_checkpoint

with init_distributed("cpu") as processes:
    checkpoint = open_checkpoint(sys.argv[1])
    config = experiment_config(checkpoint)
    data = build_dataset(config.val.dataset)
    losses = validation_losses(load_checkpoint_model(checkpoint), data, config, processes)
    if processes.is_rank_zero:
        open(sys.argv[2], "w").write(json.dumps(losses))
    else:
        assert losses == {}
"""


@pytest.mark.slow
def test_validation_losses_do_not_depend_on_the_world_size(shapes, tmp_path):
    """Law: three processes, one of which has two of the four images, give the bits of one."""
    config = tiny_config(shapes)
    train(config, tmp_path / "run")
    script, output = tmp_path / "script.py", tmp_path / "losses.json"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    subprocess.run([*torchrun, str(script), str(tmp_path / "run"), str(output)], check=True, timeout=200)
    data = build_dataset(config.val.dataset)
    assert json.loads(output.read_text()) == validation_losses(load_model(tmp_path / "run"), data, config)
