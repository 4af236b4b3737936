"""Training and prediction on a device whose values cannot be read, in place of a GPU.

Under ``FakeTensorMode`` tensors have a device and a shape but no values. Real code runs on them: an operation that
mixes devices raises an error, and so does one that reads a value or whose shape depends on values, which would make
the program wait for a GPU. The device is ``meta``, since the backward pass on a fake ``cuda`` device needs a driver.
"""

import contextlib

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode

import vertebra
from vertebra.data import Batch
from vertebra.engine import TrainingState, train_step
from vertebra.engine.loop import step as step_module
from vertebra.heads import HEADS, Head
from vertebra.models import Model
from vertebra.necks import FPN, FPNConfig, Passthrough
from vertebra.tools import compat_trial
from vertebra.tools.compat_trial import heads_on_levels, heads_on_pyramid, num_classes_of

from ..helpers.tiny import tiny_config

LEVELS = vertebra.create_backbone("resnet18").feature_info
PYRAMID = FPN(LEVELS, FPNConfig(channels=16)).feature_info
ON_PYRAMID = heads_on_pyramid(PYRAMID)
CONFIGS = ON_PYRAMID | heads_on_levels(LEVELS)


@pytest.fixture
def device():
    """Make new tensors fake ones on a device that cannot be read."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("meta"):
        yield torch.device("meta")


@pytest.fixture
def reads(monkeypatch):
    """Count the copies of a tensor to a list, which return ones."""
    shapes = []

    def read(tensor):
        shapes.append(tuple(tensor.shape))
        return np.ones(tensor.shape, float if tensor.dtype.is_floating_point else int).tolist()

    monkeypatch.setattr(FakeTensor, "tolist", read)
    return shapes


def build(name: str) -> Model:
    """Return a model with the head of this name, on the current default device."""
    config = CONFIGS[name]
    backbone = vertebra.create_backbone("resnet18", norm="frozen")
    neck = FPN(LEVELS, FPNConfig(channels=16)) if name in ON_PYRAMID else Passthrough(LEVELS)
    return Model(backbone, neck, HEADS.build(config, LEVELS | neck.feature_info, num_classes_of(config)))


@pytest.fixture
def batch(request, monkeypatch):
    """Two images and their targets for a head, on the CPU."""
    monkeypatch.setattr(compat_trial, "IMAGE_SIZES", ((64, 96), (64, 96)))
    head = HEADS[CONFIGS[request.getfixturevalue("name")].name].build
    assert isinstance(head, type) and issubclass(head, Head)
    images, targets = compat_trial.make_batch(32, head.target_task or head.task)
    return Batch(images, tuple(targets), (1, 2), ((64, 96), (64, 96)))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("name", CONFIGS)
def test_training_step_reads_one_tensor(name, shapes, batch, device, reads, monkeypatch):
    """Law: forward, backward, clipping, optimizer and EMA read nothing but the values to log, once a step."""
    monkeypatch.setattr("vertebra.engine.optim.ema.copy.deepcopy", lambda model: build(name))
    monkeypatch.setattr(step_module, "shared_generator", lambda seed, device: contextlib.nullcontext())
    config = tiny_config(shapes, recipe={"ema_decay": 0.9, "clip_norm": 1.0})
    state = TrainingState.create(build(name).train(), config)
    for step in (1, 2):
        train_step(state, [batch.to(device)], config, step)
    assert len(reads) == 2


@pytest.mark.parametrize("name", CONFIGS)
def test_prediction_reads_at_most_one_tensor(name, batch, device, reads):
    """Law: the shapes of all predictions are known after one copy from the device."""
    predictions = build(name).eval().predict(batch.images.to(device))
    resized_to_boxes = 2 if name == "keypoint" else 0  # each heatmap is resized to its box, whose size must be known
    assert len(predictions) == 2 and len(reads) <= 1 + resized_to_boxes


def test_negative_control_reading_and_mixing_devices_fail(device):
    """Control: a value cannot be read, and a tensor on the CPU cannot be used."""
    tensor = torch.ones(3)
    with pytest.raises(DataDependentOutputException):
        tensor.sum().item()
    with pytest.raises(RuntimeError, match="same device"):
        tensor + torch.ones(3, device="cpu")
