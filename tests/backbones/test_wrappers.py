"""Reading weights out of the checkpoint files of training scripts: wrappers, and objects beside the weights."""

import argparse
import enum
import pathlib
import sys
import types
from collections import deque

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from timm.models import load_state_dict as timm_load_state_dict
from timm.utils import CheckpointSaver, ModelEmaV2
from torch.optim.swa_utils import AveragedModel

import vertebra
from vertebra.backbones import read_weights_file, unwrap_state_dict
from vertebra.structures import CheckpointError


def tiny_network(seed: int = 0) -> torch.nn.Module:
    """Return a network with a few tensors, a batch norm among them."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def assert_same_tensors(tensors, expected) -> None:
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


def optimizer_state(network: torch.nn.Module) -> dict:
    """Return the state of an optimizer after a step, which has tensors too."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def test_checkpoint_of_torchvisions_training_script_gives_its_average(tmp_path):
    """docs/faults.md row 99. By hand: the entries that references/classification/train.py writes with --model-ema."""
    network, average = tiny_network(), AveragedModel(tiny_network(1))
    checkpoint = {
        "model": network.state_dict(),
        "optimizer": optimizer_state(network),
        "lr_scheduler": {"last_epoch": 3, "_last_lr": [0.1]},
        "epoch": 3,
        "args": argparse.Namespace(model="resnet50", output=pathlib.Path("runs"), lr=np.float64(0.1)),
        "model_ema": average.state_dict(),
        "scaler": {"scale": 65536.0},
    }
    torch.save(checkpoint, tmp_path / "model_3.pth")
    file = read_weights_file(tmp_path / "model_3.pth")
    assert_same_tensors(file.tensors, average.module.state_dict())
    assert file.removed == ("took the entry model_ema", "left out n_averaged", "removed module. from the names")
    torch.save(checkpoint | {"model_ema": None}, tmp_path / "model_3.pth")
    file = read_weights_file(tmp_path / "model_3.pth")
    assert_same_tensors(file.tensors, network.state_dict())
    assert file.removed == ("took the entry model",)


@pytest.mark.parametrize("with_average", [False, True])
def test_timms_checkpoint_gives_what_timm_reads(with_average, tmp_path):
    """docs/faults.md row 99. Oracle: timm's reader of the file that timm's saver wrote."""
    network = torchvision.models.resnet18()
    average = ModelEmaV2(torchvision.models.resnet18()) if with_average else None
    saver = CheckpointSaver(
        network,
        torch.optim.SGD(network.parameters(), lr=0.1),
        args=argparse.Namespace(model="resnet18", amp=True),
        model_ema=average,
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(epoch=3, metric=71.5)
    expected = timm_load_state_dict(str(tmp_path / "last.pth.tar"))
    assert_same_tensors(read_weights_file(tmp_path / "last.pth.tar").tensors, expected)
    backbone = vertebra.create_backbone("resnet18")
    line = vertebra.load_backbone_weights(backbone, tmp_path / "last.pth.tar")
    assert torch.equal(backbone.state_dict()["conv1.weight"], expected["conv1.weight"])
    assert f"took the entry state_dict{'_ema' if with_average else ''}; loaded 120 tensors" in line


class Metric(enum.Enum):
    """An enum, whose members Python saves by name."""

    LOSS = "loss"


@pytest.fixture
def mmengine_classes(monkeypatch):
    """Make classes with the names of mmengine's, so that a file holds what mmengine's runner puts into it."""
    classes = []
    for module, name in (
        ("mmengine.logging.history_buffer", "HistoryBuffer"),
        ("mmengine.config.config", "ConfigDict"),
    ):
        packages = module.split(".")
        for depth in range(1, len(packages) + 1):  # pickle imports the packages around a module as well
            monkeypatch.setitem(sys.modules, ".".join(packages[:depth]), types.ModuleType(module))
        classes.append(type(name, (), {"__module__": module}))
        setattr(sys.modules[module], name, classes[-1])
    return classes


def test_checkpoint_of_mmengine_is_read_without_mmengine(mmengine_classes, tmp_path, monkeypatch):
    """docs/faults.md row 99. By hand: the entries that mmengine's runner writes; its average is in ``state_dict``."""
    buffer, config = (member() for member in mmengine_classes)
    buffer.__dict__.update(
        _log_history=np.arange(3.0), _count_history=np.ones(3), _statistics_methods={"max": [].append}, max_length=9
    )
    config.__dict__.update(optimizer={"type": "SGD"})
    average, network = tiny_network(1), tiny_network()
    checkpoint = {
        "meta": {"epoch": 12, "dataset_meta": {"classes": ("cat", "dog"), "palette": [(1, 2, 3)]}, "cfg": config},
        "message_hub": {"log_scalars": {"train/loss": buffer}, "runtime_info": {"best": np.float32(1)}},
        "state_dict": average.state_dict(),
        "ema_state_dict": {"steps": torch.tensor(7)} | {f"module.{k}": v for k, v in network.state_dict().items()},
        "optimizer": optimizer_state(network),
        "param_schedulers": [deque([1, 2], maxlen=5)],
    }
    torch.save(checkpoint, tmp_path / "epoch_12.pth")
    monkeypatch.undo()
    assert "mmengine.config.config" not in sys.modules
    file = read_weights_file(tmp_path / "epoch_12.pth")
    assert_same_tensors(file.tensors, average.state_dict())
    assert file.removed == ("took the entry state_dict",)


def test_checkpoint_of_lightning_gives_its_model(tmp_path):
    """docs/faults.md row 99. By hand: the entries that Lightning's trainer writes, with a metric beside the model."""
    network = tiny_network()
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    checkpoint = {
        "epoch": 2,
        "global_step": 30,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": tensors | {"accuracy.correct": torch.ones(())},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [optimizer_state(network)],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "root": pathlib.Path("data")},
    }
    torch.save(checkpoint, tmp_path / "epoch=2.ckpt")
    file = read_weights_file(tmp_path / "epoch=2.ckpt")
    assert_same_tensors(file.tensors, network.state_dict())
    assert file.removed == (
        "took the entry state_dict",
        "left out accuracy.correct, which are outside of model.",
        "removed model. from the names",
    )
    del checkpoint["pytorch-lightning_version"]  # elsewhere a tensor that is left out would be an error
    assert "accuracy.correct" in unwrap_state_dict(checkpoint).tensors


PREFIXED = [
    (lambda names: {f"module.{name}": tensor for name, tensor in names.items()}, "removed module."),
    (lambda names: {f"_orig_mod.{name}": tensor for name, tensor in names.items()}, "removed _orig_mod."),
    (lambda names: {f"model.backbone.{name}": tensor for name, tensor in names.items()}, "removed model."),
    (lambda names: {f"module.model._orig_mod.{name}": t for name, t in names.items()}, "removed module."),
    (lambda names: {name.replace("layer1.", "layer1._orig_mod."): t for name, t in names.items()}, "_orig_mod."),
]
NESTED = [
    (lambda names: {"epoch": 1, "model": {"state_dict": names}}, "took the entry model.state_dict"),
    (lambda names: {"model": names, "ema": {"module": names, "updates": 9}}, "took the entry ema.module"),
    (lambda names: {"iteration": 1, "weights": names}, "took the entry weights"),
]
"""Wrappers that only a .pth file can have: a .safetensors file holds tensors by name and nothing else."""


@pytest.mark.parametrize(
    ("wrap", "words", "save"),
    [(*case, torch.save) for case in (*PREFIXED, *NESTED)] + [(*case, save_file) for case in PREFIXED],
)
def test_wrappers_are_removed_and_named_in_the_report(wrap, words, save, tmp_path):
    """docs/faults.md row 99. By hand: torchvision's names again, in one line that says what was removed."""
    expected = torchvision.models.resnet18().state_dict()
    path = tmp_path / ("resnet18.pth" if save is torch.save else "resnet18.safetensors")
    save(wrap(dict(expected)), path)
    backbone = vertebra.create_backbone("resnet18")
    assert words in vertebra.load_backbone_weights(backbone, path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.state_dict().items())


def test_a_plain_state_dict_is_returned_as_it_is():
    """Control: names that only some tensors have are not removed, and nothing is said."""
    tensors = {"model.weight": torch.ones(1), "head.weight": torch.zeros(1), "module.bias": torch.zeros(2)}
    assert unwrap_state_dict(tensors).tensors == tensors
    assert unwrap_state_dict(tensors).removed == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"epoch": 3, "optimizer": {"state": {}}}, r"its entries are epoch \(int\), optimizer \(dict\)"),
        (
            {"generator": {"a": torch.ones(1)}, "critic": {"a": torch.ones(1)}},
            "its entries are generator .dict., critic",
        ),
        ([torch.ones(1)], "it is a list"),
        ({}, "it is empty"),
    ],
)
def test_file_without_a_state_dict_lists_its_entries(value, message, tmp_path):
    """docs/faults.md row 99. By hand: exit code 4, the path and the entries that were found."""
    torch.save(value, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=rf"odd\.pth: this is not a state dict of tensors: {message}") as caught:
        read_weights_file(tmp_path / "odd.pth")
    assert caught.value.exit_code == 4


class Runs:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments

    def __call__(self) -> None:
        """Exist, so that pickle accepts this object as a function."""


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("name", ["open", "eval", "method of a path", "torch"])
def test_code_beside_the_weights_is_not_run(name, old_format, tmp_path):
    """docs/faults.md row 100. By hand: exit code 4, the refused name, and the file that the code creates is absent.

    The method of a path begins with names that are read as empty objects.
    """
    canary = tmp_path / "canary"
    bomb, message = {
        "open": (Runs(open, str(canary), "w"), "it holds (_?io.)?open, which could run code"),
        "eval": (Runs(eval, f"open({str(canary)!r}, 'w')"), "it holds eval, which could run code"),
        "method of a path": (Runs(Runs(getattr, canary, "touch")), "cannot be read"),
        "torch": (Runs(torch.hub.load_state_dict_from_url, "file:" + str(canary)), "it holds torch.hub.load_state"),
    }[name]
    checkpoint = {"state_dict": tiny_network().state_dict(), "args": bomb}
    torch.save(checkpoint, tmp_path / "bomb.pth", _use_new_zipfile_serialization=not old_format)
    with pytest.raises(CheckpointError, match=rf"bomb\.pth: .*{message}") as caught:
        read_weights_file(tmp_path / "bomb.pth")
    assert caught.value.exit_code == 4
    assert not canary.exists()


def test_the_canary_of_the_method_works(tmp_path):
    """Control: an unpickler that runs code creates the file."""
    torch.save(Runs(Runs(getattr, tmp_path / "canary", "touch")), tmp_path / "bomb.pth")
    torch.load(tmp_path / "bomb.pth", weights_only=False)
    assert (tmp_path / "canary").exists()


def test_objects_of_other_programs_are_refused_by_name(tmp_path):
    """docs/faults.md row 100. By hand: an enum of a user is not data that a reader knows."""
    torch.save({"state_dict": tiny_network().state_dict(), "best": Metric.LOSS}, tmp_path / "enum.pth")
    with pytest.raises(CheckpointError, match=rf"it holds {__name__}\.Metric.*save model\.state_dict\(\) alone"):
        read_weights_file(tmp_path / "enum.pth")


def test_reading_leaves_torchs_own_settings_as_they_were(tmp_path):
    """Law: objects that are empty here are refused again afterwards by torch.load."""
    torch.save({"a": torch.ones(1), "args": argparse.Namespace()}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(CheckpointError):
        read_weights_file(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before
