"""Values that are not finite, and out of memory: how a run ends, and what it saves."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vertebra.data import build_dataset, train_loader
from vertebra.engine import ScheduleConfig, TrainingState, train, train_step
from vertebra.models import build_model
from vertebra.structures import MemoryFullError, NonFiniteError

from ..heads.test_multi_head import multi_head_config
from ..helpers.runs import equal_tensors, newest_weights, read_metrics, start_training
from ..helpers.tiny import tiny_classifier, tiny_config


def diverging(config):
    """Return an experiment with a learning rate at which the training diverges."""
    optimizer = config.recipe.optimizer.replace(lr=1e30)
    schedule = ScheduleConfig(steps=20, warmup_steps=0)
    return config.replace(recipe={"optimizer": optimizer, "schedule": schedule, "clip_norm": None})


@pytest.mark.parametrize("make", [tiny_config, multi_head_config], ids=["boxes", "several heads"])
def test_batch_with_a_non_finite_loss_is_saved(make, shapes, tmp_path):
    """docs/faults.md row 114. By hand: exit code 5 naming step, losses, images and a file. Oracle: that step's
    batches, loaded again."""
    config = diverging(make(shapes)).replace(recipe={"accumulate": 2})
    with pytest.raises(NonFiniteError, match=r"step \d+: loss_\w+ .*; images \d+, \d+; the batch is in ") as caught:
        train(config, tmp_path / "run")
    path = tmp_path / "run" / "bad_batch_0.safetensors"
    assert str(path) in str(caught.value)
    step = int(caught.value.what.split()[1].strip(":"))
    dataset = build_dataset(config.train.dataset)
    batches = train_loader(
        dataset, config.train.transform, config.run.loader, batch_size=1, divisor=16, seed=0,
        start_step=2 * (step - 1), end_step=2 * step,
    )  # fmt: skip
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        image_ids = json.loads(file.metadata()["image_ids"])
    for place, (batch, own) in enumerate(zip(batches, image_ids, strict=True)):
        assert list(batch.image_ids) == own
        target = batch.targets[0]
        boxes, name = (target["detection"].boxes, ".detection") if isinstance(target, dict) else (target.boxes, "")
        assert torch.equal(tensors[f"{place}.targets.0{name}.boxes"], boxes)
        height, width = batch.images.sizes[0].tolist()
        pixels = tensors[f"{place}.images.pixels"]
        assert torch.equal(pixels[0, :, :height, :width], batch.images.pixels[0, :, :height, :width])


def test_non_finite_loss_is_one_line(shapes, tmp_path):
    """docs/faults.md row 114. By hand: exit code 5 of a process, one line, no traceback."""
    process = start_training(diverging(tiny_classifier()), tmp_path / "run")
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 5 and "Traceback" not in printed
    assert printed.splitlines()[-1].startswith("error: non-finite: step ")
    assert "bad_batch_0.safetensors" in printed.splitlines()[-1]


class NonFinite(torch.autograd.Function):
    """A function with a finite value and a NaN gradient, or with a NaN value and a zero gradient."""

    @staticmethod
    def forward(ctx, value, loss_is_finite):
        ctx.loss_is_finite = loss_is_finite
        return value.clone() if loss_is_finite else value * torch.nan

    @staticmethod
    def backward(ctx, *gradients):
        gradient = gradients[0]
        return (gradient * torch.nan if ctx.loss_is_finite else torch.zeros_like(gradient)), None


@pytest.mark.parametrize("loss_is_finite", [True, False])
def test_losses_and_gradients_are_both_checked(loss_is_finite, monkeypatch):
    """docs/faults.md row 115. By hand: a NaN in one of them, while the other is finite; the weights do not change."""
    config = tiny_classifier()
    dataset = build_dataset(config.train.dataset)
    model = build_model(config.model, dataset.class_names).train()
    state = TrainingState.create(model, config)
    loss = type(model.head).loss

    def add_non_finite(head, *arguments):
        return {name: NonFinite.apply(value, loss_is_finite) for name, value in loss(head, *arguments).items()}

    monkeypatch.setattr(type(model.head), "loss", add_non_finite)
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    batch = next(
        train_loader(
            dataset,
            config.train.transform,
            config.run.loader,
            batch_size=2,
            divisor=16,
            seed=0,
            start_step=0,
            end_step=1,
        )
    )
    with pytest.raises(NonFiniteError, match="grad_norm 0" if not loss_is_finite else "grad_norm nan"):
        train_step(state, [batch], config, 1)
    assert equal_tensors(dict(model.named_parameters()), parameters)


def test_run_resumes_after_running_out_of_memory(tmp_path, monkeypatch):
    """docs/faults.md row 120. By hand: exit code 7 in step 3, with image sizes and a hint.

    Law: resumed with enough memory, the run ends like an uninterrupted one.
    """
    train(tiny_classifier(), tmp_path / "unbroken")
    step, calls = torch.optim.AdamW.step, []

    def full(optimizer, *arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(optimizer, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", full)
        with pytest.raises(
            MemoryFullError, match="step 3 ran out of memory with images of 32x32, 32x32 pixels: raise"
        ) as caught:
            train(tiny_classifier(), tmp_path / "run")
    assert caught.value.exit_code == 7
    train(tiny_classifier(), tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(tmp_path / "unbroken"))
    assert read_metrics(tmp_path / "run") == read_metrics(tmp_path / "unbroken")
