"""The files of a checkpoint: equal weights give equal bytes, and tied weights are kept."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from vertebra.engine import SGDConfig, TrainingState, save_checkpoint, train
from vertebra.engine.checkpoints import save_tensors
from vertebra.inference import Checkpoint, checkpoint_paths, load_weights, open_checkpoint
from vertebra.models import build_model

from ..helpers.runs import equal_tensors, newest_weights
from ..helpers.tiny import tiny_classifier


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_saving_equal_tensors_gives_equal_bytes(tmp_path):
    """Law: forty files of the same tensors and metadata are equal; safetensors alone writes the metadata in random
    order."""
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(3)}
    metadata = {"vertebra.input": '{"scale": 1}', "vertebra.origin": '{"source": "mine é"}', "other": "x"}
    for number in range(40):
        save_tensors(tmp_path / f"{number}.safetensors", tensors, metadata)
    assert len({digest(path) for path in tmp_path.iterdir()}) == 1
    assert equal_tensors(load_file(tmp_path / "0.safetensors"), tensors)
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert file.metadata() == metadata


def test_equal_runs_have_equal_checkpoint_files(tmp_path):
    """Law: the files of weights, EMA and momentum of two runs with the same seed are equal."""
    sums = []
    for name in ("first", "second"):
        train(tiny_classifier(recipe={"ema_decay": 0.9}), tmp_path / name)
        newest = checkpoint_paths(tmp_path / name / "checkpoints")[-1]
        sums.append({path.name: digest(path) for path in newest.glob("*.safetensors")})
    assert sums[0] == sums[1] and len(sums[0]) == 3


def test_optimizer_without_state_resumes_exactly(tmp_path):
    """Law: SGD without momentum has no state to save, and the resumed run still ends like an uninterrupted one."""
    config = tiny_classifier(recipe={"optimizer": SGDConfig(lr=0.01, momentum=0.0)})
    train(config, tmp_path / "run")
    unbroken = newest_weights(tmp_path / "run")
    shutil.rmtree(checkpoint_paths(tmp_path / "run" / "checkpoints")[-1])
    train(config, tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), unbroken)


class TiedHead(nn.Module):
    """Two layers that share one weight, and a buffer that is a view of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("table", torch.arange(8.0))
        self.register_buffer("row", self.table[2:4])


def test_tied_weights_are_saved_and_restored(tmp_path):
    """Law: tied weights are saved under both names, restored, and still tied; so is their EMA."""
    config = tiny_classifier(recipe={"ema_decay": 0.5})
    torch.manual_seed(0)
    model = build_model(config.model, ["a", "b"])
    model.head.tied = TiedHead()
    state = TrainingState.create(model, config)
    names = ("config", "inference", "classes", "image_id_digests", "annotation_digests", "pending_values")
    description = {name: {} for name in (*names, "user_modules")} | {"origin": None}
    path = save_checkpoint(tmp_path, 1, state, description)
    checkpoint, saved = open_checkpoint(path), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_weights(checkpoint, model)
    assert equal_tensors(model.state_dict(), saved) and saved["head.tied.first.weight"].abs().sum() > 0
    assert model.head.tied.first.weight is model.head.tied.second.weight
    assert isinstance(checkpoint, Checkpoint) and (path / "average.safetensors").exists()


@pytest.mark.parametrize("tied", [False, True])
def test_ema_of_tied_weights_is_updated_once(tied):
    """By hand: from 0 to 1 with a decay of 2 / 11 after the first step, with and without tied weights."""
    config = tiny_classifier(recipe={"ema_decay": 0.9})
    model = build_model(config.model, ["a", "b"])
    if tied:
        model.head.tied = TiedHead()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        state = TrainingState.create(model, config)
        for parameter in model.parameters():
            parameter.fill_(1.0)
    assert state.average is not None
    state.average.update(model, step=1)
    for name, parameter in state.average.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 9 / 11), msg=name)
