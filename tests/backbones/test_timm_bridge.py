"""timm's models as backbones: what they promise is what they give, and what cannot be is refused with the reason."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import DropPath
from torch import nn

from vertebra.backbones import TimmBackbone, create_backbone, list_backbones
from vertebra.backbones.timm_probe import FeatureMap, Unfit, probe
from vertebra.ops import SyncBatchNorm
from vertebra.structures import CheckpointError, InputConfig, UsageError

from ..helpers.resnet_peer import randomize

# timm's own miniatures for tests: a ViT, convolutions, channels first and last, and a real Swin.
SMALL = ["test_vit", "test_vit3", "test_convnext", "test_efficientnet", "test_resnet", "test_mambaout", "test_nfnet"]
CASES = [
    *((name, {}) for name in SMALL),
    ("swin_tiny_patch4_window7_224", {"levels": ("c2", "c3")}),
    ("test_efficientnet", {"output_stride": 8, "in_channels": 1}),
    ("test_resnet", {"output_stride": 16, "norm": "frozen", "drop_path": 0.1, "checkpointed": True}),
    ("test_convnext", {"levels": ("c3", "c5"), "checkpointed": True}),
    ("test_vit", {"patch_size": 8, "checkpointed": True}),
    ("coat_lite_tiny", {"image_size": (128, 160)}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_feature_info_is_true(name, options, size):
    """Oracle: the tensors themselves, on sizes that no stride divides too."""
    backbone = create_backbone(f"timm/{name}", **options).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, options.get("in_channels", 3), *size))
    assert list(features) == list(backbone.feature_info)
    for level, info in backbone.feature_info.items():
        assert features[level].shape == (2, info.channels, *(math.ceil(side / info.stride) for side in size)), level
        assert features[level].isfinite().all()
    assert max(info.stride for info in backbone.feature_info.values()) <= options.get("output_stride", 64)


@pytest.mark.parametrize("name", SMALL)
def test_maps_are_timms(name, tmp_path):
    """Oracle: timm's own feature extractor with the same weights, which come from a file of the whole model."""
    whole = randomize(timm.create_model(name))
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    backbone = create_backbone(f"timm/{name}", weights=tmp_path / "whole.safetensors").eval()
    options = {"dynamic_img_size": True} if "vit" in name else {}
    overlay = {"file": str(tmp_path / "whole.safetensors")}
    twin = timm.create_model(name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    last = {f"c{stride.bit_length() - 1}": index for index, stride in enumerate(twin.feature_info.reduction())}
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features, expected = backbone(pixels), twin.eval()(pixels)
    for level, feature in features.items():
        theirs = expected[last[level]]
        theirs = theirs if theirs.shape == feature.shape else theirs.permute(0, 3, 1, 2)
        assert torch.equal(feature, theirs), level


def test_weights_are_resized_by_timm(tmp_path):
    """Oracle: timm's own extractor with another patch size and the same file."""
    save_file(randomize(timm.create_model("test_vit")).state_dict(), tmp_path / "whole.safetensors")
    backbone = create_backbone("timm/test_vit", weights=tmp_path / "whole.safetensors", patch_size=8).eval()
    overlay = {"file": str(tmp_path / "whole.safetensors")}
    options = {"patch_size": 8, "dynamic_img_size": True}
    twin = timm.create_model("test_vit", features_only=True, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(backbone(pixels)["c3"], twin.eval()(pixels)[-1])


@pytest.mark.parametrize(("name", "norm"), [("test_vit", "own"), ("test_convnext", "own"), ("test_resnet", "frozen")])
def test_recomputed_activations_change_no_number(name, norm, tmp_path):
    """Law (1604.06174): the same gradients from fewer saved tensors."""
    save_file(randomize(timm.create_model(name)).state_dict(), tmp_path / "whole.safetensors")
    gradients, saved = [], []
    for again in (False, True):
        options = {"weights": tmp_path / "whole.safetensors", "norm": norm, "checkpointed": again}
        backbone = create_backbone(f"timm/{name}", **options).train()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            features = backbone(torch.ones(2, 3, 64, 64))
        sum(level.square().mean() for level in features.values()).backward()
        saved.append(sum(kept))
        gradients.append({key: value.grad for key, value in backbone.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    torch.testing.assert_close(gradients[0], gradients[1])
    assert saved[1] < saved[0]


def test_an_odd_image_is_padded_where_the_model_rounds_down():
    """Law: ConvNeXt leaves out what does not fill a cell; here it sees zeros instead, and no cell is missing."""
    backbone = create_backbone("timm/test_convnext").eval()
    assert backbone.multiple == 32
    pixels = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        features, expected = backbone(pixels), backbone(F.pad(pixels, (0, 31, 0, 31)))
    for level, feature in features.items():
        assert torch.equal(feature, expected[level][..., : feature.shape[2], : feature.shape[3]])


def test_an_image_of_any_size_goes_into_a_model_that_takes_it():
    """Hand-drawn: EfficientNet rounds up by itself."""
    assert create_backbone("timm/test_efficientnet").multiple == 1


def test_a_model_built_for_one_size_pads_smaller_images_and_refuses_larger():
    """Law: as if the image had come padded."""
    backbone = create_backbone("timm/coat_lite_tiny", image_size=(128, 160)).eval()
    pixels = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        feature, expected = backbone(pixels)["c4"], backbone(F.pad(pixels, (0, 63, 0, 63)))["c4"]
    assert torch.equal(feature, expected[..., :5, :7])
    with pytest.raises(ValueError, match=r"built for images of up to \(128, 160\) pixels, got \(129, 97\)"):
        backbone(torch.randn(1, 3, 129, 97))


def test_levels_of_a_dilated_model_keep_their_names():
    """Hand-drawn: two levels share a stride, as in the residual family."""
    strides = {
        level: info.stride for level, info in create_backbone("timm/test_resnet", output_stride=8).feature_info.items()
    }
    assert strides == {"c2": 4, "c3": 8, "c4": 8, "c5": 8}


def test_a_plain_vit_has_one_level():
    """Hand-drawn: all its blocks see the same grid; the last is the level."""
    backbone = create_backbone("timm/test_vit")
    assert [(level, info.stride) for level, info in backbone.feature_info.items()] == [("c4", 16)]


@pytest.mark.parametrize("name", SMALL)
def test_what_no_map_depends_on_learns_nothing(name):
    """Oracle: autograd. Distributed training would wait for the gradient of such a parameter."""
    backbone = create_backbone(f"timm/{name}").train()
    sum(level.square().mean() for level in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    learning = [key for key, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert [key for key in learning if backbone.get_parameter(key).grad is None] == []
    assert len(learning) > 5


def test_norms_are_replaced_on_demand():
    """Hand-drawn: no batch norm is left, and a ViT's layer norms stay."""
    frozen = create_backbone("timm/test_resnet", norm="frozen")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    sync = create_backbone("timm/test_resnet", norm="sync")
    assert any(isinstance(module, SyncBatchNorm) for module in sync.modules())
    assert any(isinstance(module, nn.LayerNorm) for module in create_backbone("timm/test_vit", norm="frozen").modules())


def test_stochastic_depth_reaches_the_model():
    """Oracle: the probabilities in timm's own blocks."""
    backbone = create_backbone("timm/test_vit", drop_path=0.2)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(0.2)


def test_statistics_are_those_of_timms_weights():
    """Oracle: timm's description of its default weights."""
    config = timm.get_pretrained_cfg("test_vit")
    backbone = create_backbone("timm/test_vit", levels=("c4",))
    assert backbone.input == InputConfig(mean=config.mean, std=config.std) != InputConfig()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("convnext_tinyy", {}, "timm has no model 'convnext_tinyy': did you mean 'convnext_tiny'"),
        (
            "vit_small_patch14_dinov2",
            {},
            "stride [14], and levels are powers of two: it can with patch_size=16",
        ),
        ("convmixer_768_32", {}, "it has maps of stride [7], and levels are powers of two"),
        ("test_convnext.r160_in1k", {}, "create timm/test_convnext with weights='timm/r160_in1k'"),
        ("test_resnet", {"checkpointed": True}, "count every batch twice in its batch norms: take norm='frozen'"),
        ("twins_pcpvt_small", {"checkpointed": True}, "timm cannot recompute its activations: gradient checkpointing"),
        ("test_resnet", {"levels": ("c3", "c2")}, "levels go fine to coarse"),
        ("swin_tiny_patch4_window7_224", {"output_stride": 16}, "unexpected keyword argument 'output_stride'"),
        ("coat_lite_tiny", {}, "doesn't match model (224).: it can with image_size=224"),
        ("test_resnet", {"levels": ("c2", "c7")}, "it has levels c1, c2, c3, c4, c5, not c7"),
        ("test_vit", {"checkpoint": True}, "there is no field 'checkpoint': did you mean 'checkpointed'?"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(name, options, said):
    """FAULTS.md 92: exit code 2, one line."""
    with pytest.raises(UsageError) as caught:
        create_backbone(f"timm/{name}", **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(tmp_path):
    """FAULTS 98: exit code 4 and the tensors that are missing, or one too many."""
    vit = timm.create_model("test_vit").state_dict()
    save_file(vit, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit test_convnext"):
        create_backbone("timm/test_convnext", weights=tmp_path / "vit.safetensors")
    save_file(vit | {"extra.weight": torch.ones(2)}, tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit test_vit: Unexpected key.*extra\.weight"):
        create_backbone("timm/test_vit", weights=tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match="are test_convnext's weights, not test_vit's"):
        create_backbone("timm/test_vit", weights="timm/test_convnext.r160_in1k")


def test_a_trained_backbone_comes_back(tmp_path):
    """Law: what our checkpoints hold under ``backbone.`` loads into the same model of timm's."""
    trained = create_backbone("timm/test_vit")
    tensors = {f"backbone.{name}": tensor for name, tensor in trained.state_dict().items()}
    save_file(tensors | {"head.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    backbone = create_backbone("timm/test_vit", weights=tmp_path / "model.safetensors")
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in backbone.state_dict().items())


class Liar(nn.Module):
    """A network that gives whatever it is told to."""

    def __init__(self, *shapes):
        super().__init__()
        self.shapes = shapes

    def forward(self, pixels):
        return [torch.zeros(1, *shape) for shape in self.shapes]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7, 8, 12), FeatureMap(7, 8, channels_last=False)),
        ((7, 4, 6), FeatureMap(7, 16, channels_last=False)),
        ((8, 12, 7), FeatureMap(7, 8, channels_last=True)),
        ((8, 8, 12), "which is no map of cells"),
        ((7, 8, 13), "which is no map of cells"),
        ((7, 9, 13), "which is no map of cells"),
        ((96, 7), "which is no map of cells"),
    ],
)
def test_a_network_is_measured_and_not_believed(shape, expected):
    """Hand-drawn: 64 x 96 pixels at stride 8 are 8 x 12 cells, and nothing else is."""
    if isinstance(expected, FeatureMap):
        assert probe(Liar(shape), [(7, 8)], [(64, 96)], 3) == ([expected], (64, 96))
    else:
        with pytest.raises(Unfit, match=expected):
            probe(Liar(shape), [(7, 8)], [(64, 96)], 3)


def test_a_map_rounded_up_has_the_stride_that_it_claims():
    """Hand-drawn: 4 x 4 cells of stride 64 cover 224 pixels; 56 would divide them, but is no stride."""
    assert probe(Liar((7, 4, 4)), [(7, 64)], [(224, 224)], 3)[0] == [FeatureMap(7, 64, channels_last=False)]


def test_timms_models_are_listed_when_asked_for():
    """Hand-drawn: thousands of names would bury ours."""
    assert "timm/convnext_tiny" in list_backbones("timm/convnext*")
    assert not any(name.startswith("timm/") for name in list_backbones())
    assert isinstance(create_backbone("timm/test_vit"), TimmBackbone)
