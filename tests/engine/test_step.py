"""One training step: precisions, micro-batches and EMA."""

import copy
import json
import shutil

import pytest
import torch

from vertebra.data import ResizeConfig, build_dataset, build_transform, collate, eval_loader
from vertebra.engine import SGDConfig, TrainingState, train, train_step
from vertebra.engine.optim.ema import ModelEMA
from vertebra.inference import checkpoint_paths, load_model, load_weights, numerics, open_checkpoint
from vertebra.inference.numerics import matrix_precision
from vertebra.models import build_model

from ..helpers.runs import equal_tensors, newest_weights, read_metrics
from ..helpers.tiny import tiny_classifier, tiny_config


def detector(shapes, **changes):
    """Return an experiment, its model and a batch of two images."""
    config = tiny_config(shapes, **changes)
    data = build_dataset(config.train.dataset)
    torch.manual_seed(0)
    model = build_model(config.model, data.class_names).train()
    transform = build_transform(ResizeConfig(short_sides=(64,)))
    batch = collate([transform(data.read(index), 0, index) for index in range(2)], model.size_divisor)
    return config, model, batch


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"precision": "tf32"}, 1e-6),
        ({"precision": "bf16"}, 0.03),
        ({"precision": "fp16"}, 0.005),
        ({"channels_last": True}, 1e-5),
    ],
    ids=["tf32", "bf16", "fp16", "channels last"],
)
def test_first_step_in_other_precisions_is_close_to_float32(changes, tolerance, shapes):
    """Law: loss and gradient norm agree within the precision; the weights stay float32."""
    config, model, batch = detector(shapes)
    expected = train_step(TrainingState.create(copy.deepcopy(model), config), [batch], config, 1)
    config = config.replace(recipe=changes)
    numbers = train_step(TrainingState.create(model, config), [batch], config, 1)
    assert numbers["loss"] == pytest.approx(expected["loss"], rel=tolerance)
    assert numbers["grad_norm"] == pytest.approx(expected["grad_norm"], rel=10 * tolerance)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("units", "expected"), [(None, ("fp32", False)), ("AMX", ("bf16", True))])
def test_auto_is_resolved_by_the_device_and_stored(units, expected, shapes, tmp_path, monkeypatch):
    """By hand: bf16 and channels-last with units for bf16. The run keeps its choice on another device."""
    monkeypatch.setattr(numerics, "bf16_units", lambda device: units)
    config = tiny_config(shapes, recipe={"precision": "auto"})
    train(config, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert (stored["precision"], stored["channels_last"]) == expected
    explicit = config.replace(recipe={"precision": expected[0], "channels_last": expected[1]})
    train(explicit, tmp_path / "explicit")
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(tmp_path / "explicit"))
    monkeypatch.setattr(numerics, "bf16_units", lambda device: None if units else "AMX")
    shutil.rmtree(checkpoint_paths(tmp_path / "run" / "checkpoints")[-1])
    train(config, tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(tmp_path / "explicit"))


def test_auto_keeps_sharded_weights_in_their_format():
    """By hand: channels-last is not used with fsdp, which does not support it."""
    recipe = tiny_classifier(recipe={"precision": "bf16", "parallel": "fsdp"}).recipe
    assert recipe.resolve(torch.device("cpu")).channels_last is False


def test_overflowing_gradients_skip_the_step(shapes):
    """By hand: a scale of 2^120 overflows float16; the weights stay, the scale is halved, and a step at a smaller
    scale updates them."""
    config, model, batch = detector(shapes, recipe={"precision": "fp16"})
    state = TrainingState.create(model, config)
    before = copy.deepcopy(dict(model.named_parameters()))
    state.scaler.scale(torch.zeros(()))  # the scale is created when it is first used
    state.scaler.update(2.0**120)
    numbers = train_step(state, [batch], config, 1)
    assert (numbers["skipped"], numbers["grad_norm"]) == (1, 0)
    assert equal_tensors(dict(model.named_parameters()), before) and state.scaler.get_scale() == 2.0**119
    state.scaler.update(1024.0)
    assert train_step(state, [batch], config, 2)["skipped"] == 0
    assert not equal_tensors(dict(model.named_parameters()), before)


@pytest.mark.parametrize("limit", [None, 0.9, 0.999, 1.001, 10.0])
def test_gradients_are_clipped_as_torch_clips_them(limit, shapes):
    """Oracle: ``clip_grad_norm_``, to the last bit, for limits around the norm; gradients below it stay as they are."""
    config, model, batch = detector(shapes, recipe={"clip_norm": None})
    unclipped = train_step(TrainingState.create(copy.deepcopy(model), config), [batch], config, 1)
    limit = limit and limit * unclipped["grad_norm"]
    config = config.replace(recipe={"clip_norm": limit})
    reference, state = copy.deepcopy(model), TrainingState.create(model, config)
    assert train_step(state, [batch], config, 1) == unclipped
    train_step(TrainingState.create(reference, config.replace(recipe={"clip_norm": None})), [batch], config, 1)
    if limit is not None:
        torch.nn.utils.clip_grad_norm_(reference.parameters(), limit)
    for first, second in zip(model.parameters(), reference.parameters(), strict=True):
        assert (first.grad is None) == (second.grad is None)
        assert first.grad is None or torch.equal(first.grad, second.grad)


def test_matmul_precision_is_restored():
    """By hand: torch's settings from before, after each precision."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for precision, expected in (("fp32", ("highest", False)), ("tf32", ("high", True)), ("bf16", ("high", True))):
        with matrix_precision(precision):
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == expected
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_gradient_accumulation_equals_one_batch():
    """Law: without batch statistics, four images in two micro-batches have the gradient of one batch of four."""
    config = tiny_classifier(recipe={"optimizer": SGDConfig(lr=0.5, momentum=0.0), "clip_norm": None})
    frozen = config.model.backbone.replace(norm="frozen")
    config = config.replace(model=config.model.replace(backbone=frozen))
    data = build_dataset(config.train.dataset)
    torch.manual_seed(0)
    one_batch = build_model(config.model, data.class_names).train()
    two_batches = copy.deepcopy(one_batch)
    results = []
    for model, size in ((one_batch, 4), (two_batches, 2)):
        batches = eval_loader(
            data, config.val.transform, config.run.loader, batch_size=size, divisor=model.size_divisor
        )
        micro_batches = [next(batches) for _ in range(4 // size)]
        results.append(train_step(TrainingState.create(model, config), micro_batches, config, 1))
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    for first, second in zip(one_batch.parameters(), two_batches.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_run_with_accumulation_equals_one_without(tmp_path):
    """Law: a run with two micro-batches per step ends, up to rounding, like one without."""
    config = tiny_classifier(recipe={"batch_size": 4})
    frozen = config.model.backbone.replace(norm="frozen")
    config = config.replace(model=config.model.replace(backbone=frozen))
    train(config, tmp_path / "one_batch")
    train(config.replace(recipe={"accumulate": 2}), tmp_path / "two_batches")
    for name, tensor in newest_weights(tmp_path / "one_batch").items():
        torch.testing.assert_close(newest_weights(tmp_path / "two_batches")[name], tensor, rtol=1e-3, atol=1e-5)


def test_ema_equals_its_formula():
    """Oracle: a plain loop over parameters and statistics; counters are the newest."""
    torch.manual_seed(0)
    model = build_model(tiny_classifier().model, ("a", "b")).train()
    average, expected = ModelEMA(model, 0.5), model.state_dict()
    expected = {name: tensor.clone() for name, tensor in expected.items()}
    for step in range(1, 12):
        with torch.no_grad():
            model.backbone(torch.randn(2, 3, 32, 32))  # changes the batch norm statistics
            model.head.fc.weight.add_(torch.randn_like(model.head.fc.weight))
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            mixed = decay * expected[name] + (1 - decay) * tensor
            expected[name] = mixed if tensor.is_floating_point() else tensor.clone()
    for name, tensor in average.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])


def test_ema_weights_are_loaded_and_resume_exactly(shapes, tmp_path):
    """Law: the loaded model has the EMA, the checkpoint also has the last weights, and resuming is bit-exact."""
    config = tiny_config(shapes, recipe={"ema_decay": 0.9})
    run = tmp_path / "run"
    train(config, run)
    loaded, last = load_model(run), newest_weights(run)
    assert not equal_tensors(loaded.state_dict(), last)
    lines, averaged = read_metrics(run), {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    newest = checkpoint_paths(run / "checkpoints")[-1]
    shutil.rmtree(newest)
    train(config, run, resume=True)
    assert (
        equal_tensors(newest_weights(run), last)
        and equal_tensors(load_model(run).state_dict(), averaged)
        and read_metrics(run) == lines
    )
    load_weights(open_checkpoint(run), loaded)
    assert equal_tensors(loaded.state_dict(), last)
