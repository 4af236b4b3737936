"""The complete model: laws of its losses and predictions, learning, and what it refuses."""

import jaxtyping
import pytest
import torch

from vertebra.backbones import ResNetConfig, create_backbone
from vertebra.configs import create_model, list_configs, load_config
from vertebra.heads import BoxBranchConfig, MaskBranchConfig, RCNNConfig, RCNNHead, RPNConfig
from vertebra.models import InputConfig, Model, ModelConfig, Preprocess, build_model, resolve_input
from vertebra.necks import FPN, FPNConfig
from vertebra.ops import total_loss
from vertebra.structures import CAFFE_INPUT, Images, Instances, PartConfig, Registry, UsageError

BOX = torch.tensor([[8.0, 8.0, 40.0, 48.0]])


def small_config(**box) -> ModelConfig:
    return ModelConfig(
        backbone=ResNetConfig(name="resnet18", levels=("c2", "c3", "c4")),
        neck=FPNConfig(channels=32),
        head=RCNNConfig(
            rpn=RPNConfig(anchor_sizes=((16.0,), (32.0,), (64.0,), (128.0,)), post_nms=(100, 100)),
            box=BoxBranchConfig(fc=(64,), samples=64, **box),
        ),
    )


def small_model(**box) -> Model:
    torch.manual_seed(0)
    return build_model(small_config(**box), ["a", "b", "c"])


def images(count: int = 1, size: int = 64, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    return Images.from_list([torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator)] * count)


def nothing() -> Instances:
    return Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


@pytest.fixture
def without_shape_checks():
    """Switch off the shape checks, which run in tests only, so that the error behind them is tested."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_image_without_objects_has_no_box_loss():
    """docs/faults.md row 25. Law: both box losses are exactly zero, the others finite, and every gradient exists."""
    model = small_model()
    losses = model(images(), [nothing()])
    assert losses["loss_rpn_box"] == 0 and losses["loss_box"] == 0
    total_loss(losses).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_losses_are_the_same_in_training_and_evaluation_mode():
    """Law: the return value does not depend on the mode (with frozen norms, which use no batch statistics)."""
    torch.manual_seed(0)
    config = small_config()
    config = config.replace(backbone=config.backbone.replace(norm="frozen"))
    model, targets = build_model(config, ["a", "b", "c"]), [Instances(BOX, torch.tensor([1]))]
    results = []
    for mode in (True, False):
        torch.manual_seed(1)
        results.append(model.train(mode)(images(), targets))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_crowd_over_the_whole_image_gives_no_loss():
    """Law: an image that is all crowd has neither objects nor background."""
    crowd = Instances(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), ignored=torch.tensor([[-99.0, -99, 199, 199]])
    )
    assert small_model()(images(), [crowd])["loss_class"] == 0


def test_predictions_do_not_depend_on_batch_mates():
    """docs/faults.md row 134. Law: an image alone and beside another of its size gives the same detections and
    masks."""
    torch.manual_seed(0)
    config = small_config(score_threshold=0.0)
    head = config.head.replace(mask=MaskBranchConfig(convolutions=(8,)))
    model = build_model(config.replace(head=head), ["a", "b", "c"]).eval()
    first, second = images(seed=1), images(seed=2)
    both = Images(torch.cat([first.pixels, second.pixels]), torch.cat([first.sizes, second.sizes]))
    for together, alone in zip(model.predict(both), (first, second), strict=True):
        expected = model.predict(alone)[0]
        torch.testing.assert_close(together.boxes, expected.boxes, atol=1e-3, rtol=0)
        assert torch.equal(together.labels, expected.labels)
        torch.testing.assert_close(together.masks.grids, expected.masks.grids, atol=1e-3, rtol=0)


def test_padding_is_zero_after_normalization():
    """By hand: torchvision's convention: padded pixels are exactly 0, others (x / 255 - mean) / std."""
    batch = Images.from_list([torch.full((3, 20, 30), 255, dtype=torch.uint8)], divisor=32)
    pixels = Preprocess(InputConfig())(batch)
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels[:, :, 20:].eq(0).all() and pixels[:, :, :, 30:].eq(0).all()
    torch.testing.assert_close(
        pixels[0, :, 0, 0], (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    )


def test_caffe_style_input_is_bgr_minus_the_mean():
    """By hand: Detectron's convention: BGR order, 0..255, mean subtracted, no division."""
    config = InputConfig(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), scale=255, channels="bgr")
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 32, 32)
    pixels = Preprocess(config)(Images.from_list([image]))
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([30 - 103.53, 20 - 116.28, 10 - 123.675]))


def test_two_images_are_learned():
    """Learning: two objects in two images are detected after a few steps, and nothing else has a high score."""
    torch.manual_seed(0)
    model = small_model()
    batch = Images(torch.cat([images(seed=3).pixels, images(seed=4).pixels]), torch.tensor([[64, 64]] * 2))
    batch.pixels[0, :, 8:48, 8:40] = 255
    batch.pixels[1, :, 20:50, 10:60] = 0
    boxes = [BOX, torch.tensor([[10.0, 20.0, 60.0, 50.0]])]
    targets = [Instances(box, torch.tensor([label])) for box, label in zip(boxes, (2, 0), strict=True)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        total_loss(model(batch, targets)).backward()
        optimizer.step()
    # Evaluate with batch statistics: two images are too few for running statistics.
    for detections, target in zip(model.predict(batch), targets, strict=True):
        assert detections.labels[0] == target.labels[0] and detections.scores[0] > 0.8
        torch.testing.assert_close(detections.boxes[:1], target.boxes, atol=4.0, rtol=0)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(3, 64, 64), r"uint8 0\.\.255 of shape \(channels, height, width\); got torch\.float32"),
        (torch.zeros(64, 64, dtype=torch.uint8), r"got torch\.uint8 of shape \(64, 64\)"),
    ],
    ids=["float", "no channels"],
)
def test_tensors_that_are_no_images_are_refused(pixels, message, without_shape_checks):
    """docs/faults.md rows 81, 82. By hand: ValueError that says what an image is."""
    with pytest.raises(ValueError, match=message):
        Images.from_list([pixels])


def test_gray_image_is_refused_by_an_rgb_model(without_shape_checks):
    """docs/faults.md row 82. By hand: ValueError with both numbers of channels, instead of silent broadcasting."""
    with pytest.raises(ValueError, match="needs images with 3 channels, got 1"):
        small_model()(Images.from_list([torch.zeros(1, 64, 64, dtype=torch.uint8)]), [nothing()])


def test_boxes_and_labels_of_different_length_are_refused(without_shape_checks):
    """docs/faults.md row 42. By hand: ValueError that names both lengths."""
    with pytest.raises(ValueError, match="got 1 boxes and 2 labels"):
        Instances(BOX, torch.tensor([0, 1]))


@pytest.mark.parametrize("name", sorted(list_configs()))
def test_every_shipped_config_builds(name):
    """Law: it has a docstring, survives a round trip through JSON, and builds a model."""
    config = load_config(name)
    assert list_configs()[name]
    assert type(config).model_validate_json(config.model_dump_json()) == config
    assert config.name == name
    with torch.device("meta"):
        model = create_model(name)
    counts = {1, 3, 5, 8, 9, 11, 12, 20, 21, 54, 80, 100, 133, 1000}
    assert {len(names) for names in model.class_names.values()} <= counts
    assert model.class_names


def test_unknown_config_suggests_the_nearest():
    """By hand: UsageError, exit code 2."""
    with pytest.raises(UsageError, match="did you mean 'quickstart'"):
        load_config("quikstart")


@pytest.mark.parametrize("name", ["panoptic_fpn_r10t_shapes", "mask_rcnn_semantic_fpn_r10t_shapes"])
def test_one_number_of_classes_for_several_tasks_is_refused(name):
    """By hand: UsageError that says what to call instead."""
    with pytest.raises(UsageError, match=r"the classes of several tasks, .*: leave it out, or call"):
        create_model(name, num_classes=3)


def test_input_of_the_config_overrides_that_of_the_weights():
    """Law: without an input in the config, the backbone's is used; with one, the config's, and it is stored."""
    values = {"backbone": {"name": "resnet14t", "style": "caffe"}, "neck": {"name": "fpn"}, "head": {"name": "rcnn"}}
    config = ModelConfig.model_validate(values)
    assert build_model(config, ["a"]).preprocess.config == CAFFE_INPUT == resolve_input(config).input
    stated = ModelConfig.model_validate(values | {"input": {"mean": (0.0,) * 3, "std": (1.0,) * 3}})
    assert build_model(stated, ["a"]).preprocess.config == stated.input == resolve_input(stated).input
    backbone = create_backbone("resnet14t", style="caffe")
    neck = FPN(backbone.feature_info)
    assert Model(backbone, neck, RCNNHead(neck.feature_info, 2)).preprocess.config == CAFFE_INPUT


def test_registry_prefix_builds_every_name_that_begins_with_it():
    """By hand: an entry that ends in a slash builds any name that begins with it, and is not listed."""
    registry = Registry("thing")
    registry.register("toys/", PartConfig)(lambda config: f"built {config.name}")
    assert registry.build(PartConfig(name="toys/car")) == "built toys/car"
    assert registry.names() == []
    with pytest.raises(UsageError, match="there is no thing named 'tools/car'"):
        registry.build(PartConfig(name="tools/car"))
    with pytest.raises(ValueError, match="is taken"):
        registry.register("toys/", PartConfig)(list)
