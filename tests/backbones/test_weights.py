"""Pretrained weights into a backbone: files in every library's own format, and what does not fit."""

import pickle
from urllib.error import URLError

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

import vertebra
from vertebra.backbones import input_metadata, list_weights, weights_input
from vertebra.models import ModelConfig, resolve_input
from vertebra.structures import CheckpointError, InputConfig


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


def torchvision_cache(folder, monkeypatch, state_dict):
    """ResNet-18's weights where torchvision puts its downloads."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    cache = folder / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    place = cache / torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(state_dict, place)
    return place


def hub_cache(folder, monkeypatch, repository=None, state_dict=None):
    """Weights where timm puts its downloads, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    if repository is not None:
        home = folder / f"models--{repository.replace('/', '--')}"
        snapshot = home / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text("0" * 40)
        save_file(state_dict, snapshot / "model.safetensors")


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


@pytest.mark.parametrize("source", ["torchvision/IMAGENET1K_V1", "torchvision/ResNet18_Weights.IMAGENET1K_V1"])
def test_torchvisions_names_are_known_short_and_long(source, state_dict, tmp_path, monkeypatch):
    """Oracle: torchvision's own table of weights says how they want their pixels."""
    torchvision_cache(tmp_path, monkeypatch, state_dict)
    backbone = vertebra.create_backbone("resnet18", weights=source)
    assert loaded_fully(backbone, state_dict)
    preset = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert (list(backbone.input.mean), list(backbone.input.std)) == (preset.mean, preset.std)


@pytest.mark.parametrize(
    ("name", "source", "repository"),
    [
        ("resnet18d", "timm", "timm/resnet18d.ra2_in1k"),
        ("resnet18d", "timm/ra4_e3600_r224_in1k", "timm/resnet18d.ra4_e3600_r224_in1k"),
        ("resnet18", "timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
    ],
)
def test_timms_own_cache_is_used_and_its_statistics_travel(name, source, repository, tmp_path, monkeypatch):
    """A file where timm would have put its download; oracle: timm's network and timm's description of the weights."""
    twin = timm.create_model(name)
    hub_cache(tmp_path, monkeypatch, repository, twin.state_dict())
    backbone = vertebra.create_backbone(name, weights=source)
    assert loaded_fully(backbone, twin.state_dict())
    described = timm.get_pretrained_cfg(repository.removeprefix("timm/"))
    assert (backbone.input.mean, backbone.input.std) == (described.mean, described.std)
    assert weights_input(backbone.config, source) == backbone.input


def test_weights_with_other_statistics_exist():
    """Hand-drawn: without one such checkpoint the test above would pass with ImageNet's everywhere."""
    config = vertebra.create_backbone("resnet18d", levels=("c2",)).config
    assert weights_input(config, "timm/ra4_e3600_r224_in1k").mean == (0.5, 0.5, 0.5)
    assert weights_input(config, "timm/ra2_in1k").mean == (0.485, 0.456, 0.406)


def test_without_a_network_timms_address_and_cache_are_named(tmp_path, monkeypatch):
    """Exit code 4, and what to do with the file once it is here."""
    hub_cache(tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match=r"models--timm--resnet18\.a1_in1k: https://.*give its path") as caught:
        vertebra.create_backbone("resnet18", weights="timm/a1_in1k")
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("timm/a1_in1", "timm has no weights 'resnet18.a1_in1': did you mean 'a1_in1k'"),
        ("torchvision/IMAGENET1K_V2", "torchvision has no weights 'IMAGENET1K_V2' for resnet18: did you mean"),
        ("torchvision/ResNet18_Weights.V9", "torchvision has no weights 'ResNet18_Weights.V9' for resnet18"),
    ],
)
def test_unknown_weights_name_the_nearest(source, said):
    """FAULTS 98: exit code 4."""
    with pytest.raises(CheckpointError) as caught:
        vertebra.create_backbone("resnet18", weights=source)
    assert said in str(caught.value)


def test_every_known_source_names_itself():
    """Oracle: torchvision's and timm's own lists."""
    assert list_weights("resnet34")[0] == "torchvision/IMAGENET1K_V1"
    assert {f"resnet34.{source.partition('/')[2]}" for source in list_weights("resnet34")[1:]} == set(
        timm.list_pretrained("resnet34.*")
    )
    assert list_weights("cifar_plain20") == []


def test_one_channel_sees_a_grey_picture_as_three_did(state_dict, tmp_path):
    """Law: where red, green and blue are the same, the sum of their weights gives what they gave together."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    colour, grey = (
        vertebra.create_backbone("resnet18", weights=tmp_path / "resnet18.pth", in_channels=count).eval()
        for count in (3, 1)
    )
    pixels = torch.randn(1, 1, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(grey(pixels)["c5"], colour(pixels.expand(-1, 3, -1, -1))["c5"], rtol=1e-4, atol=1e-4)


def test_more_channels_repeat_the_three(state_dict, tmp_path):
    """Oracle: the weights that timm's network gets for six channels, of which each pair counts half."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    backbone = vertebra.create_backbone("resnet18", weights=tmp_path / "resnet18.pth", in_channels=6)
    expected = torch.cat([state_dict["conv1.weight"]] * 2, dim=1) / 2
    torch.testing.assert_close(backbone.conv1.weight, expected)
    assert len(backbone.input.mean) == 6


def test_a_model_of_ours_gives_its_backbone_and_its_statistics(tmp_path):
    """Law: what a checkpoint of a whole model holds under ``backbone.`` comes back, and how it wants its pixels."""
    trained = vertebra.create_backbone("resnet10t", levels=("c2", "c3", "c4"))
    tensors = {f"backbone.{name}": tensor for name, tensor in trained.state_dict().items()}
    wanted = InputConfig(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), scale=255, channels="bgr")
    metadata = input_metadata(wanted)
    save_file(tensors | {"head.weight": torch.ones(3)}, tmp_path / "model.safetensors", metadata)
    backbone = vertebra.create_backbone("resnet10t", levels=("c2", "c3"), weights=tmp_path / "model.safetensors")
    assert loaded_fully(backbone, trained.state_dict())
    assert backbone.input == wanted
    config = ModelConfig.model_validate(
        {
            "backbone": {"name": "resnet10t", "levels": ("c2", "c3")},
            "weights": str(tmp_path / "model.safetensors"),
            "neck": {"name": "fpn"},
            "head": {"name": "rcnn"},
        }
    )
    assert resolve_input(config).input == wanted


def test_a_deformable_backbone_takes_a_public_checkpoint(state_dict, tmp_path):
    """Law: all but where to look comes from the file."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    backbone = vertebra.create_backbone("resnet18", weights=tmp_path / "resnet18.pth", deformable=("c5",))
    kept = {name: tensor for name, tensor in backbone.state_dict().items() if ".offset." not in name}
    assert all(torch.equal(tensor, state_dict[name]) for name, tensor in kept.items())


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
    "not finite": (lambda s: s | {"bn1.weight": s["bn1.weight"] * float("nan")}, r"bn1\.weight has NaN or infinite"),
    "numbered": (lambda s: {1: s["conv1.weight"]}, "holds no state dict"),
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


def test_a_pickle_in_torchvisions_cache_runs_no_code(tmp_path, monkeypatch):
    """FAULTS 100: the cache is the folder that the error for a missing network tells people to fill."""
    place = torchvision_cache(tmp_path, monkeypatch, {})
    with place.open("wb") as file:
        pickle.dump({"conv1.weight": Canary(tmp_path / "canary")}, file)
    with pytest.raises(CheckpointError, match=r"resnet18-.*\.pth: cannot be read.*delete it"):
        vertebra.create_backbone("resnet18", weights="torchvision/IMAGENET1K_V1")
    assert not (tmp_path / "canary").exists()


def test_a_detectors_weights_are_no_backbones():
    """FAULTS 98: exit code 4."""
    with pytest.raises(CheckpointError, match="are no classifier's weights"):
        vertebra.create_backbone("resnet50", weights="torchvision/FasterRCNN_ResNet50_FPN_Weights.COCO_V1")


def test_what_other_people_write_into_a_file_is_theirs(state_dict, tmp_path):
    """Hand-drawn: metadata under another name is not read, and ours is read with care."""
    save_file(state_dict, tmp_path / "theirs.safetensors", {"input": "images"})
    backbone = vertebra.create_backbone("resnet18", weights=tmp_path / "theirs.safetensors")
    assert backbone.input == InputConfig()
    save_file(state_dict, tmp_path / "broken.safetensors", {"vertebra.input": "{"})
    with pytest.raises(CheckpointError, match="cannot be read"):
        weights_input(backbone.config, tmp_path / "broken.safetensors")


def test_what_was_left_is_said_by_its_name(state_dict, tmp_path):
    """Hand-drawn: 15 convolutions and norms of four tensors up to c4; a counter per norm, the classifier's two."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    backbone = vertebra.create_backbone("resnet18", levels=("c2", "c4"), norm="frozen")
    said = vertebra.load_backbone_weights(backbone, tmp_path / "resnet18.pth")
    assert said.endswith(": loaded 75 tensors; left batch counters (20), fc (2), layer4 (25)")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_damaged_file_is_refused(ending, tmp_path):
    """FAULTS 101: exit code 4 naming the file."""
    (tmp_path / f"cut.{ending}").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError, match=rf"cut\.{ending}: cannot be read"):
        vertebra.load_backbone_weights(vertebra.create_backbone("resnet18"), tmp_path / f"cut.{ending}")
