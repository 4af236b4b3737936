"""timm's models as backbones: they keep their promises, and a model that cannot is refused with the reason."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import DropPath
from torch import nn

from vertebra.backbones import TimmBackbone, create_backbone, list_backbones
from vertebra.backbones.timm_layers import extractor_parameter_name
from vertebra.backbones.timm_probe import FeatureMap, UnfitModelError, probe
from vertebra.ops import SyncBatchNorm
from vertebra.structures import CheckpointError, InputConfig, UsageError

from ..helpers.reference_resnets import randomize

# timm's miniatures for tests: ViTs and convolutional networks, with channels first and last.
SMALL = ["test_vit", "test_vit3", "test_convnext", "test_efficientnet", "test_resnet", "test_mambaout", "test_nfnet"]
CASES = [
    *((name, {}) for name in SMALL),
    ("swin_tiny_patch4_window7_224", {"levels": ("c2", "c3")}),
    ("test_efficientnet", {"output_stride": 8, "in_channels": 1}),
    ("test_resnet", {"output_stride": 16, "norm": "frozen", "drop_path": 0.1}),
    ("test_efficientnet", {"norm": "frozen", "checkpointed": True}),
    ("test_convnext", {"levels": ("c3", "c5"), "checkpointed": True}),
    ("test_vit", {"patch_size": 8, "checkpointed": True}),
    ("eca_botnext26ts_256", {"image_size": (128, 160)}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_feature_info_is_true(name, options, size):
    """Oracle: the shapes of the tensors, also for an image that no stride divides."""
    backbone = create_backbone(f"timm/{name}", **options).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, options.get("in_channels", 3), *size))
    assert list(features) == list(backbone.feature_info)
    for level, info in backbone.feature_info.items():
        assert features[level].shape == (2, info.channels, *(math.ceil(side / info.stride) for side in size)), level
        assert features[level].isfinite().all()
    assert max(info.stride for info in backbone.feature_info.values()) <= options.get("output_stride", 64)


@pytest.mark.parametrize("name", SMALL)
def test_features_equal_timms(name, tmp_path):
    """Oracle: timm's own feature extractor, with weights from the same file of a classifier."""
    classifier = randomize(timm.create_model(name))
    save_file(classifier.state_dict(), tmp_path / "classifier.safetensors")
    backbone = create_backbone(f"timm/{name}", weights=tmp_path / "classifier.safetensors").eval()
    options = {"dynamic_img_size": True} if "vit" in name else {}
    overlay = {"file": str(tmp_path / "classifier.safetensors")}
    twin = timm.create_model(name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    last = {f"c{stride.bit_length() - 1}": index for index, stride in enumerate(twin.feature_info.reduction())}
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features, expected = backbone(pixels), twin.eval()(pixels)
    for level, feature in features.items():
        theirs = expected[last[level]]
        theirs = theirs if theirs.shape == feature.shape else theirs.permute(0, 3, 1, 2)
        assert torch.equal(feature, theirs), level


def test_weights_are_resized_to_another_patch_size(tmp_path):
    """Oracle: timm's own feature extractor with that patch size and the same file."""
    save_file(randomize(timm.create_model("test_vit")).state_dict(), tmp_path / "classifier.safetensors")
    backbone = create_backbone("timm/test_vit", weights=tmp_path / "classifier.safetensors", patch_size=8).eval()
    overlay = {"file": str(tmp_path / "classifier.safetensors")}
    options = {"patch_size": 8, "dynamic_img_size": True}
    twin = timm.create_model("test_vit", features_only=True, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(backbone(pixels)["c3"], twin.eval()(pixels)[-1])


@pytest.mark.parametrize(
    ("name", "norm"),
    [("test_vit", "default"), ("test_convnext", "default"), ("test_efficientnet", "frozen"), ("test_resnet", "frozen")],
)
def test_activation_checkpointing_changes_no_gradient(name, norm, tmp_path):
    """Law (1604.06174): equal gradients from fewer saved tensors."""
    save_file(randomize(timm.create_model(name)).state_dict(), tmp_path / "classifier.safetensors")
    gradients, saved = [], []
    for checkpointed in (False, True):
        options = {"weights": tmp_path / "classifier.safetensors", "norm": norm, "checkpointed": checkpointed}
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


def test_odd_image_is_padded_for_a_model_that_rounds_down():
    """Law: ConvNeXt drops pixels that do not fill a cell; padded with zeros by hand it gives the same cells."""
    backbone = create_backbone("timm/test_convnext").eval()
    assert backbone.multiple == 32
    pixels = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        features, expected = backbone(pixels), backbone(F.pad(pixels, (0, 31, 0, 31)))
    for level, feature in features.items():
        assert torch.equal(feature, expected[level][..., : feature.shape[2], : feature.shape[3]])


def test_image_is_not_padded_for_a_model_that_rounds_up():
    """By hand: EfficientNet rounds sizes up by itself."""
    assert create_backbone("timm/test_efficientnet").multiple == 1


def test_model_of_fixed_size_pads_smaller_images_and_refuses_larger():
    """Law: a smaller image gives the features of the image padded by hand."""
    backbone = create_backbone("timm/eca_botnext26ts_256", image_size=(128, 160)).eval()
    pixels = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        feature, expected = backbone(pixels)["c4"], backbone(F.pad(pixels, (0, 63, 0, 63)))["c4"]
    assert torch.equal(feature, expected[..., :5, :7])
    with pytest.raises(
        ValueError, match=r"built for images of at most \(128, 160\) pixels \(height, width\), got \(129, 97\)"
    ):
        backbone(torch.randn(1, 3, 129, 97))


def test_levels_of_a_dilated_model_keep_their_names():
    """By hand: levels share a stride, as in the residual family."""
    strides = {
        level: info.stride for level, info in create_backbone("timm/test_resnet", output_stride=8).feature_info.items()
    }
    assert strides == {"c2": 4, "c3": 8, "c4": 8, "c5": 8}


def test_plain_vit_has_one_level():
    """By hand: all its blocks have the same grid, and the last one is the level."""
    backbone = create_backbone("timm/test_vit")
    assert [(level, info.stride) for level, info in backbone.feature_info.items()] == [("c4", 16)]


@pytest.mark.parametrize("name", SMALL)
def test_parameters_that_no_level_depends_on_are_frozen(name):
    """Oracle: autograd. Distributed training would wait for the gradient of such a parameter."""
    backbone = create_backbone(f"timm/{name}").train()
    sum(level.square().mean() for level in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    learning = [key for key, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert [key for key in learning if backbone.get_parameter(key).grad is None] == []
    assert len(learning) > 5


def test_norm_option_replaces_batch_norms_only():
    """By hand: no batch norm is left, and a ViT's layer norms stay."""
    frozen = create_backbone("timm/test_resnet", norm="frozen")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    sync = create_backbone("timm/test_resnet", norm="sync")
    assert any(isinstance(module, SyncBatchNorm) for module in sync.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in sync.modules())
    assert any(isinstance(module, nn.LayerNorm) for module in create_backbone("timm/test_vit", norm="frozen").modules())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_sync_norm_in_one_process_equals_timms_batch_norm(name):
    """Oracle: the same model with timm's own norms, whose activation is part of the norm in EfficientNet."""
    weights = randomize(timm.create_model(name)).state_dict()
    batch, sync = (create_backbone(f"timm/{name}", norm=norm) for norm in ("default", "sync"))
    assert [key for key, _ in sync.named_parameters()] == [key for key, _ in batch.named_parameters()]
    for backbone in (batch, sync):
        ours = backbone.state_dict()
        named = {extractor_parameter_name(key, ours): value for key, value in weights.items()}
        backbone.load_state_dict({key: named[key] for key in ours})
    pixels = torch.randn(2, 3, 64, 96)
    for training in (True, False):
        torch.testing.assert_close(sync.train(training)(pixels), batch.train(training)(pixels))
    torch.testing.assert_close(sync.state_dict(), batch.state_dict())


def test_drop_path_reaches_the_model():
    """Oracle: the probabilities in timm's own blocks."""
    backbone = create_backbone("timm/test_vit", drop_path=0.2)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(0.2)


def test_default_input_is_that_of_timms_weights():
    """Oracle: timm's description of its default weights."""
    config = timm.get_pretrained_cfg("test_vit")
    backbone = create_backbone("timm/test_vit", levels=("c4",))
    assert backbone.input == InputConfig(mean=config.mean, std=config.std) != InputConfig()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("convnext_tinyy", {}, "timm has no model 'convnext_tinyy': did you mean 'timm/convnext_tiny'"),
        ("swin_t", {}, "timm has no model 'swin_t': did you mean 'timm/swin_tiny_patch4_window7_224'?"),
        ("abcdefgh", {}, "list them with `vertebra list backbones 'timm/*'`"),
        (
            "vit_small_patch14_dinov2",
            {},
            "stride [14], but strides must be powers of two: use patch_size=16",
        ),
        ("sequencer2d_s", {}, "it has maps of stride [7, 14], but strides must be powers of two"),
        ("test_convnext.r160_in1k", {}, "create timm/test_convnext with weights='timm/r160_in1k'"),
        ("test_resnet", {"checkpointed": True}, "update its batch norm statistics twice per batch: use norm='frozen'"),
        (
            "twins_pcpvt_small",
            {"checkpointed": True},
            "timm has no activation checkpointing for it: gradient checkpointing",
        ),
        ("test_resnet", {"levels": ("c3", "c2")}, "levels go fine to coarse"),
        ("swin_tiny_patch4_window7_224", {"output_stride": 16}, "swin_tiny_patch4_window7_224 cannot be a backbone: "),
        (
            "eca_botnext26ts_256",
            {},
            "cannot be a backbone: at 256 x 512 pixels: AssertionError: use image_size=256",
        ),
        ("test_resnet", {"levels": ("c2", "c7")}, "it has levels c1, c2, c3, c4, c5, not c7"),
        ("test_vit", {"checkpoint": True}, "there is no field 'checkpoint'; did you mean 'checkpointed'?"),
    ],
)
def test_model_or_option_that_cannot_work_is_refused_with_the_reason(name, options, message):
    """By hand: exit code 2 and one line."""
    with pytest.raises(UsageError) as caught:
        create_backbone(f"timm/{name}", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(tmp_path):
    """By hand: exit code 4 and the names of the tensors that are missing or unexpected."""
    vit = timm.create_model("test_vit").state_dict()
    save_file(vit, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit test_convnext"):
        create_backbone("timm/test_convnext", weights=tmp_path / "vit.safetensors")
    save_file(vit | {"extra.weight": torch.ones(2)}, tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit test_vit: Unexpected key.*extra\.weight"):
        create_backbone("timm/test_vit", weights=tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match="these are weights of test_convnext, not of test_vit"):
        create_backbone("timm/test_vit", weights="timm/test_convnext.r160_in1k")


def test_backbone_of_a_checkpoint_loads_into_the_same_model(tmp_path):
    """Law: tensors saved under ``backbone.`` in a checkpoint come back."""
    trained = create_backbone("timm/test_vit")
    tensors = {f"backbone.{name}": tensor for name, tensor in trained.state_dict().items()}
    save_file(tensors | {"head.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    backbone = create_backbone("timm/test_vit", weights=tmp_path / "model.safetensors")
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in backbone.state_dict().items())


class FixedShapes(nn.Module):
    """A network whose outputs have given shapes, whatever it states about them."""

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
        ((8, 8, 12), "which is not a feature map"),
        ((7, 8, 13), "which is not a feature map"),
        ((7, 9, 13), "which is not a feature map"),
        ((96, 7), "which is not a feature map"),
    ],
)
def test_strides_and_layout_are_measured(shape, expected):
    """By hand: 64 x 96 pixels at stride 8 are 8 x 12 cells, and nothing else is."""
    if isinstance(expected, FeatureMap):
        assert probe(FixedShapes(shape), [(7, 8)], [(64, 96)], 3) == ([expected], (64, 96))
    else:
        with pytest.raises(UnfitModelError, match=expected):
            probe(FixedShapes(shape), [(7, 8)], [(64, 96)], 3)


def test_stated_stride_is_kept_where_the_last_cell_is_partial():
    """By hand: 4 x 4 cells of stride 64 cover 224 pixels; 56 would divide them, but is no stride."""
    assert probe(FixedShapes((7, 4, 4)), [(7, 64)], [(224, 224)], 3)[0] == [FeatureMap(7, 64, channels_last=False)]


def test_timms_models_are_listed_only_by_their_prefix():
    """By hand: more than a thousand names would bury the others."""
    assert "timm/convnext_tiny" in list_backbones("timm/convnext*")
    assert not any(name.startswith("timm/") for name in list_backbones())
    assert isinstance(create_backbone("timm/test_vit"), TimmBackbone)
