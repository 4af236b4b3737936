"""Pretrained weights into a backbone: files in every library's own format, and what does not fit."""

import pickle
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file

import vertebra
from vertebra.structures import CheckpointError


@pytest.fixture(scope="module")
def state_dict() -> dict[str, torch.Tensor]:
    """torchvision's ResNet-18 with a classifier, as it is published."""
    torch.manual_seed(0)
    return torchvision.models.resnet18().state_dict()


def loaded_fully(backbone, state_dict) -> bool:
    return all(torch.equal(tensor, state_dict[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_file_is_loaded_and_the_classifier_left(ending, norm, state_dict, tmp_path):
    """Every tensor of ours equals torchvision's of the same name; two are left, and it says so."""
    path = tmp_path / f"resnet18.{ending}"
    (torch.save if ending == "pth" else save_file)(state_dict, path)
    backbone = vertebra.create_backbone("resnet18", norm=norm)
    said = vertebra.load_backbone_weights(backbone, path)
    assert loaded_fully(backbone, state_dict)
    assert f"loaded {len(backbone.state_dict())} tensors" in said


def test_stages_that_are_not_built_are_left(state_dict, tmp_path):
    """A backbone up to c4 from a whole checkpoint."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    backbone = vertebra.create_backbone("resnet18", levels=("c2", "c3", "c4"))
    vertebra.load_backbone_weights(backbone, tmp_path / "resnet18.pth")
    assert loaded_fully(backbone, state_dict)


def test_torchvisions_own_cache_is_used(state_dict, tmp_path, monkeypatch):
    """A file where torchvision would have put its download: found without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(state_dict, cache / torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2])
    backbone = vertebra.create_backbone("resnet18")
    vertebra.load_backbone_weights(backbone, "torchvision/ResNet18_Weights.IMAGENET1K_V1")
    assert loaded_fully(backbone, state_dict)


def test_without_a_network_the_place_for_the_file_is_named(tmp_path, monkeypatch):
    """Exit code 4, naming the address and where to put what is there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(CheckpointError, match=r"hub/checkpoints/resnet18-.*\.pth: https://.*put it here") as caught:
        vertebra.load_backbone_weights(
            vertebra.create_backbone("resnet18"), "torchvision/ResNet18_Weights.IMAGENET1K_V1"
        )
    assert caught.value.exit_code == 4


def test_what_ships_with_the_package_fits(tmp_path):
    """The quickstart's weights, and a name that does not exist."""
    backbone = vertebra.create_backbone("resnet10t", levels=("c2", "c3", "c4"))
    assert "loaded" in vertebra.load_backbone_weights(backbone, "vertebra/shapes_resnet10t")
    with pytest.raises(CheckpointError, match="no such file"):
        vertebra.load_backbone_weights(backbone, "vertebra/shapes_resnet99")


class Canary:
    """What runs code when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


# name: (what is saved, what the line says)
UNFIT = {
    "another model": (lambda s: {f"model.{name}": tensor for name, tensor in s.items()}, "is missing"),
    "nothing": (lambda s: {}, "conv1.weight is missing"),
    "classifier only": (lambda s: {"fc.weight": s["fc.weight"]}, "is missing"),
    "one too many": (lambda s: s | {"layer9.weight": s["conv1.weight"], "x": s["conv1.weight"]}, "x is unexpected"),
    "one missing": (lambda s: {k: v for k, v in s.items() if k != "conv1.weight"}, r"conv1\.weight is missing"),
    "another shape": (
        lambda s: s | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
        r"conv1\.weight has shape \(64, 1, 7, 7\), wanted \(64, 3, 7, 7\)",
    ),
    "no tensors": (lambda s: {"epoch": 3}, "holds no state dict"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(name, state_dict, tmp_path):
    """FAULTS 98, 99: exit code 4 naming the tensors."""
    spoil, message = UNFIT[name]
    torch.save(spoil(dict(state_dict)), tmp_path / "weights.pth")
    backbone = vertebra.create_backbone("resnet18")
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        vertebra.load_backbone_weights(backbone, tmp_path / "weights.pth")
    assert caught.value.exit_code == 4
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_pickle_runs_no_code(tmp_path):
    """FAULTS 100: exit code 4, and the canary was not opened."""
    with (tmp_path / "bomb.pth").open("wb") as file:
        pickle.dump({"conv1.weight": Canary(tmp_path / "canary")}, file)
    with pytest.raises(CheckpointError, match="cannot be read"):
        vertebra.load_backbone_weights(vertebra.create_backbone("resnet18"), tmp_path / "bomb.pth")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_damaged_file_is_refused(ending, tmp_path):
    """FAULTS 101: exit code 4 naming the file."""
    (tmp_path / f"cut.{ending}").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError, match=rf"cut\.{ending}: cannot be read"):
        vertebra.load_backbone_weights(vertebra.create_backbone("resnet18"), tmp_path / f"cut.{ending}")
