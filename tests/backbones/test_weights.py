"""Loading pretrained weights: every source and file format, and files that do not fit."""

import pickle
from urllib.error import URLError

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models._hub import has_hf_hub

import vertebra
from vertebra.backbones import WeightsOrigin, list_weights, weights_input, weights_metadata
from vertebra.models import ModelConfig, resolve_input
from vertebra.structures import CheckpointError, InputConfig


@pytest.fixture(scope="module")
def state_dict() -> dict[str, torch.Tensor]:
    """Return the state dict of torchvision's ResNet-18 with its classifier, random weights."""
    torch.manual_seed(0)
    return torchvision.models.resnet18().state_dict()


def has_weights(backbone, state_dict) -> bool:
    return all(torch.equal(tensor, state_dict[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_file_is_loaded_without_its_classifier(ending, norm, state_dict, tmp_path):
    """Oracle: torchvision's tensors of the same names; the line says how many were loaded."""
    path = tmp_path / f"resnet18.{ending}"
    (torch.save if ending == "pth" else save_file)(state_dict, path)
    backbone = vertebra.create_backbone("resnet18", norm=norm)
    line = vertebra.load_backbone_weights(backbone, path)
    assert has_weights(backbone, state_dict)
    assert f"loaded {len(backbone.state_dict())} tensors" in line


def test_a_file_is_found_in_the_home_folder(state_dict, tmp_path, monkeypatch):
    """By hand: no shell expands ``~`` inside a config."""
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    save_file(state_dict, tmp_path / "mine.safetensors")
    backbone = vertebra.create_backbone("resnet18", weights="~/mine.safetensors")
    assert has_weights(backbone, state_dict)


def test_stages_that_are_not_built_are_left_out(state_dict, tmp_path):
    """Oracle: torchvision's tensors, for a backbone that ends at c4."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    backbone = vertebra.create_backbone("resnet18", levels=("c2", "c3", "c4"))
    vertebra.load_backbone_weights(backbone, tmp_path / "resnet18.pth")
    assert has_weights(backbone, state_dict)


def torchvision_cache(folder, monkeypatch, state_dict):
    """Save weights of ResNet-18 where torchvision puts its downloads, and return the path."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    cache = folder / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    path = cache / torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(state_dict, path)
    return path


def hub_cache(folder, monkeypatch, repository=None, state_dict=None):
    """Save weights where timm puts its downloads, and switch the network off."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    if repository is not None:
        repository_folder = folder / f"models--{repository.replace('/', '--')}"
        snapshot = repository_folder / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (repository_folder / "refs").mkdir()
        (repository_folder / "refs" / "main").write_text("0" * 40)
        save_file(state_dict, snapshot / "model.safetensors")


def test_failed_torchvision_download_names_url_and_path(tmp_path, monkeypatch):
    """By hand: exit code 4, the URL to fetch and the path to put the file at."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(
        CheckpointError, match=r"hub/checkpoints/resnet18-.*\.pth: https://.*save it to this path"
    ) as caught:
        vertebra.load_backbone_weights(
            vertebra.create_backbone("resnet18"), "torchvision/ResNet18_Weights.IMAGENET1K_V1"
        )
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("source", ["torchvision/IMAGENET1K_V1", "torchvision/ResNet18_Weights.IMAGENET1K_V1"])
def test_torchvision_weights_load_by_member_or_full_name(source, state_dict, tmp_path, monkeypatch):
    """Oracle: torchvision's own transforms of these weights."""
    torchvision_cache(tmp_path, monkeypatch, state_dict)
    backbone = vertebra.create_backbone("resnet18", weights=source)
    assert has_weights(backbone, state_dict)
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
def test_timm_weights_load_from_timms_cache_with_their_statistics(name, source, repository, tmp_path, monkeypatch):
    """Oracle: timm's network, and timm's description of the weights."""
    if not has_hf_hub():
        pytest.skip("this timm cannot use the installed huggingface_hub")
    reference = timm.create_model(name)
    hub_cache(tmp_path, monkeypatch, repository, reference.state_dict())
    backbone = vertebra.create_backbone(name, weights=source)
    assert has_weights(backbone, reference.state_dict())
    described = timm.get_pretrained_cfg(repository.removeprefix("timm/"))
    assert (backbone.input.mean, backbone.input.std) == (described.mean, described.std)
    assert weights_input(backbone.config, source) == backbone.input


def test_weights_input_differs_between_sources():
    """Control: one source has ImageNet's statistics and one has others; otherwise the test above would prove
    nothing."""
    config = vertebra.create_backbone("resnet18d", levels=("c2",)).config
    assert weights_input(config, "timm/ra4_e3600_r224_in1k").mean == (0.5, 0.5, 0.5)
    assert weights_input(config, "timm/ra2_in1k").mean == (0.485, 0.456, 0.406)


def test_failed_timm_download_names_url_and_cache(tmp_path, monkeypatch):
    """By hand: exit code 4, one line, and what to do with the file."""
    if not has_hf_hub():
        pytest.skip("this timm cannot use the installed huggingface_hub")
    hub_cache(tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match=r"models--timm--resnet18\.a1_in1k: https://.*use its path") as caught:
        vertebra.create_backbone("resnet18", weights="timm/a1_in1k")
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_list_weights_has_torchvisions_and_timms():
    """Oracle: torchvision's and timm's own lists."""
    assert list_weights("resnet34")[0] == "torchvision/IMAGENET1K_V1"
    assert {f"resnet34.{source.partition('/')[2]}" for source in list_weights("resnet34")[1:]} == set(
        timm.list_pretrained("resnet34.*")
    )
    assert list_weights("cifar_plain20") == []


def test_one_input_channel_gives_the_features_of_a_gray_image(state_dict, tmp_path):
    """Law: where red, green and blue are equal, the sum of their weights gives the same features."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    rgb, gray = (
        vertebra.create_backbone("resnet18", weights=tmp_path / "resnet18.pth", in_channels=count).eval()
        for count in (3, 1)
    )
    pixels = torch.randn(1, 1, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(gray(pixels)["c5"], rgb(pixels.expand(-1, 3, -1, -1))["c5"], rtol=1e-4, atol=1e-4)


def test_six_input_channels_repeat_the_weights_of_three(state_dict, tmp_path):
    """By hand: the weights twice, halved, as timm does."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    backbone = vertebra.create_backbone("resnet18", weights=tmp_path / "resnet18.pth", in_channels=6)
    expected = torch.cat([state_dict["conv1.weight"]] * 2, dim=1) / 2
    torch.testing.assert_close(backbone.conv1.weight, expected)
    assert len(backbone.input.mean) == 6


def test_checkpoint_of_a_model_gives_its_backbone_and_input(tmp_path):
    """Law: tensors saved under ``backbone.`` come back, and so does the input saved with them."""
    trained = vertebra.create_backbone("resnet10t", levels=("c2", "c3", "c4"))
    tensors = {f"backbone.{name}": tensor for name, tensor in trained.state_dict().items()}
    saved_input = InputConfig(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), scale=255, channels="bgr")
    metadata = weights_metadata(saved_input, trained.config, None)
    save_file(tensors | {"head.weight": torch.ones(3)}, tmp_path / "model.safetensors", metadata)
    backbone = vertebra.create_backbone("resnet10t", levels=("c2", "c3"), weights=tmp_path / "model.safetensors")
    assert has_weights(backbone, trained.state_dict())
    assert backbone.input == saved_input
    config = ModelConfig.model_validate(
        {
            "backbone": {"name": "resnet10t", "levels": ("c2", "c3")},
            "weights": str(tmp_path / "model.safetensors"),
            "neck": {"name": "fpn"},
            "head": {"name": "rcnn"},
        }
    )
    assert resolve_input(config).input == saved_input


def test_equal_weights_are_saved_as_equal_bytes(tmp_path):
    """Law: the same tensors and metadata give the same file, however often they are saved."""
    backbone = vertebra.create_backbone("resnet10t", levels=("c2",))
    origin = WeightsOrigin("timm/a1_in1k", "apache-2.0", "https://example.org")
    for index in range(20):
        metadata = weights_metadata(backbone.input, backbone.config, origin)
        save_file(backbone.state_dict(), tmp_path / f"{index}.safetensors", metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_deformable_backbone_loads_a_published_checkpoint(state_dict, tmp_path):
    """Law: every tensor except the offsets comes from the file."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    backbone = vertebra.create_backbone("resnet18", weights=tmp_path / "resnet18.pth", deformable=("c5",))
    others = {name: tensor for name, tensor in backbone.state_dict().items() if ".offset." not in name}
    assert all(torch.equal(tensor, state_dict[name]) for name, tensor in others.items())


def test_shipped_weights_load():
    """By hand: the quickstart's weights."""
    backbone = vertebra.create_backbone("resnet10t", levels=("c2", "c3", "c4"))
    assert "loaded" in vertebra.load_backbone_weights(backbone, "vertebra/shapes_resnet10t")


class OpensFileWhenUnpickled:
    """An object that opens a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


# name: (how the state dict is changed, what the error says)
UNFIT = {
    "not finite": (lambda s: s | {"bn1.weight": s["bn1.weight"] * float("nan")}, r"bn1\.weight has NaN or infinite"),
    "numbered": (lambda s: {1: s["conv1.weight"]}, "this is not a state dict"),
    "another model": (lambda s: {f"trunk.{name}": tensor for name, tensor in s.items()}, "is missing"),
    "nothing": (lambda s: {}, "it is empty"),
    "classifier only": (lambda s: {"fc.weight": s["fc.weight"]}, "is missing"),
    "one too many": (lambda s: s | {"layer9.weight": s["conv1.weight"], "x": s["conv1.weight"]}, "x is unexpected"),
    "one missing": (lambda s: {k: v for k, v in s.items() if k != "conv1.weight"}, r"conv1\.weight is missing"),
    "another shape": (
        lambda s: s | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
        r"conv1\.weight has shape \(64, 1, 7, 7\), wanted \(64, 3, 7, 7\)",
    ),
    "not a state dict": (lambda s: {"epoch": 3}, "this is not a state dict"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_weights_are_refused_and_change_nothing(name, state_dict, tmp_path):
    """docs/faults.md rows 98, 99, 103. By hand: exit code 4, the names of tensors, and a backbone that is not
    changed."""
    spoil, message = UNFIT[name]
    torch.save(spoil(dict(state_dict)), tmp_path / "weights.pth")
    backbone = vertebra.create_backbone("resnet18")
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        vertebra.load_backbone_weights(backbone, tmp_path / "weights.pth")
    assert caught.value.exit_code == 4
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_pickled_code_in_a_file_is_not_run(tmp_path):
    """docs/faults.md row 100. By hand: exit code 4, and the file that the code would create does not exist."""
    with (tmp_path / "bomb.pth").open("wb") as file:
        pickle.dump({"conv1.weight": OpensFileWhenUnpickled(tmp_path / "canary")}, file)
    with pytest.raises(CheckpointError, match="cannot be read"):
        vertebra.load_backbone_weights(vertebra.create_backbone("resnet18"), tmp_path / "bomb.pth")
    assert not (tmp_path / "canary").exists()


def test_pickled_code_in_torchvisions_cache_is_not_run(tmp_path, monkeypatch):
    """docs/faults.md row 100. By hand: users are told to put files there when a download fails."""
    path = torchvision_cache(tmp_path, monkeypatch, {})
    with path.open("wb") as file:
        pickle.dump({"conv1.weight": OpensFileWhenUnpickled(tmp_path / "canary")}, file)
    with pytest.raises(CheckpointError, match=r"resnet18-.*\.pth: cannot be read.*delete it"):
        vertebra.create_backbone("resnet18", weights="torchvision/IMAGENET1K_V1")
    assert not (tmp_path / "canary").exists()


def test_weights_of_a_detector_are_refused():
    """By hand: exit code 4."""
    with pytest.raises(CheckpointError, match="not weights of a classifier"):
        vertebra.create_backbone("resnet50", weights="torchvision/FasterRCNN_ResNet50_FPN_Weights.COCO_V1")


def test_metadata_of_other_programs_is_ignored(state_dict, tmp_path):
    """By hand: a key of another program is not read; a damaged one of Vertebra's is an error."""
    save_file(state_dict, tmp_path / "theirs.safetensors", {"input": "images"})
    backbone = vertebra.create_backbone("resnet18", weights=tmp_path / "theirs.safetensors")
    assert backbone.input == InputConfig()
    save_file(state_dict, tmp_path / "broken.safetensors", {"vertebra": "{"})
    with pytest.raises(CheckpointError, match="cannot be read"):
        weights_input(backbone.config, tmp_path / "broken.safetensors")


def test_log_line_counts_loaded_and_dropped_tensors(state_dict, tmp_path):
    """By hand: 15 convolutions and norms of four tensors up to c4; a counter for each norm, two of the classifier."""
    torch.save(state_dict, tmp_path / "resnet18.pth")
    backbone = vertebra.create_backbone("resnet18", levels=("c2", "c4"), norm="frozen")
    line = vertebra.load_backbone_weights(backbone, tmp_path / "resnet18.pth")
    assert line.endswith(": loaded 75 tensors; ignored batch counters (20), fc (2), layer4 (25)")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_damaged_file_is_refused(ending, tmp_path):
    """docs/faults.md row 101. By hand: exit code 4 and the file's name."""
    (tmp_path / f"cut.{ending}").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError, match=rf"cut\.{ending}: cannot be read"):
        vertebra.load_backbone_weights(vertebra.create_backbone("resnet18"), tmp_path / f"cut.{ending}")
