"""Transferring weights to a model of other classes: predictor rows are copied by class name."""

import itertools
import json

import pytest
import torch
from torch import Tensor, nn

from vertebra.backbones import create_backbone
from vertebra.engine import ExperimentConfig, ScheduleConfig, parse_config, train
from vertebra.heads import (
    CASCADE,
    HEADS,
    AuxiliaryConfig,
    BoxBranchConfig,
    ClassificationConfig,
    DeepLabConfig,
    FCOSConfig,
    HeadConfig,
    KeypointBranchConfig,
    MaskBranchConfig,
    MultiHeadConfig,
    PointRefinementConfig,
    PointRendBranchConfig,
    RCNNConfig,
    RetinaNetConfig,
    SemanticFPNConfig,
    YOLOXConfig,
    class_columns_by_tensor,
    class_rows_by_tensor,
)
from vertebra.inference import load_model
from vertebra.models import Model, ModelConfig, build_model, transfer_weights
from vertebra.necks import FPNConfig, Passthrough
from vertebra.structures import CheckpointError, Images, InputConfig, UsageError
from vertebra.tools.cli import main

from ..helpers.pyramids import features_of
from ..helpers.regions import all_valid, detections_at
from ..helpers.runs import equal_tensors, newest_weights
from ..helpers.semantic import NAMES, build_head, pyramid
from ..helpers.tiny import BACKBONE, tiny_classifier, tiny_config

OLD, NEW = ("cat", "dog", "owl"), ("newt", "owl", "cat", "eel")
SHARED = ("cat", "owl")


def rcnn(background: str = "last", **options) -> RCNNConfig:
    """Return a small Mask R-CNN, with its background logit first (torchvision) or last (detectron2)."""
    box = BoxBranchConfig(**{"fc": (8,), "background": background, **options})
    agnostic = options.get("class_agnostic", False)
    return RCNNConfig(box=box, mask=MaskBranchConfig(convolutions=(8,), class_agnostic=agnostic))


POINT_REND = RCNNConfig(
    box=BoxBranchConfig(fc=(8,)),
    point_rend=PointRendBranchConfig(
        channels=8, fc=(8,), coarse_size=4, point_head={"channels": (8, 8), "subdivisions": 2}
    ),
)
SEVERAL = MultiHeadConfig(heads={"boxes": rcnn(), "map": SemanticFPNConfig(channels=8, levels=("p2", "p3", "p4"))})


def build(head: HeadConfig, names, seed: int) -> Model:
    """Return a small model with random weights."""
    model = build_model(ModelConfig(backbone=BACKBONE, neck=FPNConfig(channels=8), head=head), names)
    randomize(model, seed)
    return model


def randomize(model: Model, seed: int) -> None:
    """Fill every weight with noise, and set the model to evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.eval().parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)


def region_outputs(head, names) -> dict[str, Tensor]:
    """Return what the branches predict for two regions about each class, by its name; '' is the background."""
    features = features_of(pyramid(), 96, 96)
    boxes = torch.tensor([[[4.0, 4.0, 40.0, 50.0], [0.0, 10.0, 90.0, 80.0]]]).expand(2, -1, -1)
    logits, offsets = head.box(features, all_valid(boxes))
    told = {"": logits[:, :, len(names)]}
    for label, name in enumerate(names):
        masks = head.mask(features, all_valid(boxes).valid, boxes, torch.full((2, 2), label))
        told[name] = torch.cat([logits[:, :, label, None], offsets[:, :, label], masks.flatten(2)], dim=2)
    return told


@pytest.mark.parametrize("before", ["last", "first"])
@pytest.mark.parametrize("after", ["last", "first"])
def test_shared_classes_are_predicted_as_before(before, after):
    """Law: from the same features both models predict the same for each shared class and for the background,
    whatever the order of the classes and the position of the background."""
    source, model = build(rcnn(before), OLD, 1), build(rcnn(after), NEW, 2)
    said = transfer_weights(model, source)
    ours, theirs = region_outputs(model.head, NEW), region_outputs(source.head, OLD)
    for name in (*SHARED, ""):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5)
    assert said.endswith("detection: owl, cat mapped by name; newt, eel initialized; dog dropped")


def test_new_class_keeps_its_initial_weights():
    """By hand, row by row: with the background first, newt is row 1 and eel row 4, each with four rows of box
    offsets."""
    source, model, reference = build(rcnn("first"), OLD, 1), build(rcnn("first"), NEW, 2), build(rcnn("first"), NEW, 2)
    transfer_weights(model, source)
    box, fresh, old = (each.head.box for each in (model, reference, source))
    for row in (1, 4):
        assert torch.equal(box.class_logits.weight[row], fresh.class_logits.weight[row])
        assert torch.equal(box.box_offsets.bias[4 * row : 4 * row + 4], fresh.box_offsets.bias[4 * row : 4 * row + 4])
    assert torch.equal(model.head.mask.logits.weight[[0, 3]], reference.head.mask.logits.weight[[0, 3]])
    assert torch.equal(box.box_offsets.weight[8:12], old.box_offsets.weight[12:16])  # owl: row 2 here, row 3 there
    assert equal_tensors(model.backbone.state_dict(), source.backbone.state_dict())


def point_rend_masks(head, names) -> dict[str, Tensor]:
    """Return the masks that PointRend predicts for two regions about each class, by its name."""
    features = features_of(pyramid(), 96, 96)
    boxes = torch.tensor([[[4.0, 4.0, 40.0, 50.0], [0.0, 10.0, 90.0, 80.0]]]).expand(2, -1, -1)
    with torch.no_grad():
        return {
            name: head.point_rend.predict(features, detections_at(boxes, torch.full((2, 2), label)))
            for label, name in enumerate(names)
        }


def test_point_rend_masks_of_known_classes_stay_the_same():
    """Law: with two classes more and in another order, the masks of all classes of the source are as before, although
    every point is predicted from the coarse logits of all classes; without one of its classes they are not."""
    more = ("newt", *OLD[::-1], "eel")
    source, model, fewer = build(POINT_REND, OLD, 1), build(POINT_REND, more, 2), build(POINT_REND, NEW, 2)
    transfer_weights(model, source)
    expected, found = point_rend_masks(source.head, OLD), point_rend_masks(model.head, more)
    for name in OLD:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-4)
        assert expected[name].std() > 1e-3
    transfer_weights(fewer, source)
    assert not torch.allclose(point_rend_masks(fewer.head, NEW)["cat"], expected["cat"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [*NAMES, "classification"])
def test_logits_move_with_their_class(name):
    """Law: the same for heads with one logit per class; for semantic heads, per pixel."""
    features = features_of(pyramid(), 64, 96)
    images = Images.from_list([torch.zeros(3, 64, 96, dtype=torch.uint8)] * 2, divisor=1)

    def outputs(names, seed: int, start: Model | None = None):
        """Return the logits of a model whose head has its own seed, and whose other parts are always the same."""
        if name == "classification":
            head = HEADS.build(ClassificationConfig(levels=("c5",)), pyramid(), len(names))
        else:
            head = build_head(name, num_classes=len(names))
        backbone = create_backbone(BACKBONE.name)
        model = Model(backbone, Passthrough(backbone.feature_info), head, class_names=names)
        randomize(model, seed)
        if start is not None:
            transfer_weights(model, start)
        return model, head(features, images)

    source, theirs = outputs(OLD, 1)
    _, ours = outputs(NEW, 2, source)
    for shared in SHARED:
        torch.testing.assert_close(ours[:, NEW.index(shared)], theirs[:, OLD.index(shared)], rtol=0, atol=1e-5)
    assert not torch.allclose(ours[:, NEW.index("eel")], theirs[:, OLD.index("dog")])


def test_each_of_several_heads_has_its_own_classes():
    """Law: a name is looked up among the classes of the head's own task."""
    old, new = {"detection": OLD, "semantic": ("sky", "cat")}, {"detection": NEW, "semantic": ("cat", "road", "sky")}
    source, model = build(SEVERAL, old, 1), build(SEVERAL, new, 2)
    said = transfer_weights(model, source)
    ours, theirs = model.head.heads["map"].logits, source.head.heads["map"].logits
    assert torch.equal(ours.weight[[0, 2]], theirs.weight[[1, 0]]) and not torch.equal(ours.weight[1], theirs.weight[0])
    boxes = [region_outputs(each.head.heads["boxes"], names) for each, names in ((model, NEW), (source, OLD))]
    torch.testing.assert_close(boxes[0]["cat"], boxes[1]["cat"], rtol=0, atol=1e-5)
    assert "detection: owl, cat mapped by name" in said and "semantic: cat, sky mapped by name; road init" in said


@pytest.mark.parametrize(
    "config",
    [
        *(rcnn(background, class_agnostic=agnostic) for background in ("last", "first") for agnostic in (False, True)),
        POINT_REND,
        SemanticFPNConfig(refinement=PointRefinementConfig(channels=(8,))),
        *(HEADS[name].config(name=name, auxiliary=AuxiliaryConfig()) for name in NAMES),
        ClassificationConfig(),
        RetinaNetConfig(),
        FCOSConfig(),
        YOLOXConfig(),
        CASCADE,
    ],
    ids=lambda config: config.name,
)
def test_class_rows_cover_all_tensors_that_grow_with_classes(config):
    """Law: a head's ``class_rows`` are the tensors whose first axis grows with the number of classes, by as many
    rows; its ``class_columns`` are the weights whose second axis does, by one, after the other columns."""
    few, many = (HEADS.build(config, pyramid(), count) for count in (2, 3))
    grown, widened = {}, {}
    for name, tensor in many.state_dict().items():
        smaller = few.state_dict()[name]
        if tensor.shape[:1] != smaller.shape[:1]:
            grown[name] = len(tensor) - len(smaller)
        if tensor.shape[1:] != smaller.shape[1:]:
            assert tensor.shape[1] == smaller.shape[1] + 1 and tensor.shape[2:] == smaller.shape[2:]
            widened[name] = smaller.shape[1] - 2
    declared = {name: rows for name, (_, rows) in class_rows_by_tensor(many).items()}
    assert grown and grown == {name: rows.per_class * rows.repeats for name, rows in declared.items()}
    assert widened == {name: first for name, (_, first) in class_columns_by_tensor(many).items()}
    for name, rows in declared.items():
        indices = itertools.chain.from_iterable(rows.indices("abc").values())
        assert sorted(indices) == list(range(len(many.state_dict()[name])))


def test_other_anchors_per_cell_are_refused():
    """By hand: exit code 4 with the tensor, instead of rows that belong to other anchors."""
    levels = {"levels": ("p2", "p3"), "convolutions": 1}
    model = build(RetinaNetConfig(**levels), NEW, 2)
    with pytest.raises(CheckpointError, match=r"does not fit this model: .*class_logits"):
        transfer_weights(model, build(RetinaNetConfig(**levels, anchor_ratios=(1.0,)), OLD, 1))


@pytest.mark.parametrize("other", [rcnn(class_agnostic=True), rcnn(fc=(9,)), DeepLabConfig(level="c4", channels=8)])
def test_weights_of_another_architecture_are_refused(other):
    """docs/faults.md rows 98, 99. By hand: exit code 4 naming tensors, and the model is not changed."""
    model, reference = build(rcnn(), NEW, 2), build(rcnn(), NEW, 2)
    with pytest.raises(CheckpointError, match=r"does not fit this model: head\.") as caught:
        transfer_weights(model, build(other, OLD, 1))
    assert caught.value.exit_code == 4
    assert equal_tensors(model.state_dict(), reference.state_dict())


def test_batch_norm_weights_load_into_frozen_norms():
    """Law: they have the same tensors except for counters, which nothing reads."""
    source, model = build(rcnn(), OLD, 1), build(rcnn(), OLD, 2)
    frozen = ModelConfig(backbone=BACKBONE.replace(norm="frozen"), neck=FPNConfig(channels=8), head=rcnn())
    model = build_model(frozen, OLD)
    transfer_weights(model, source)
    assert torch.equal(model.backbone.get_buffer("bn1.running_var"), source.backbone.get_buffer("bn1.running_var"))


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """Return a run with EMA weights and an input normalization of its own."""
    run = tmp_path_factory.mktemp("transfer") / "run"
    base = tiny_config(shapes)
    pixels = InputConfig(mean=(9.0, 9.0, 9.0), std=(50.0, 50.0, 50.0))
    model = base.model.replace(input=pixels)
    train(base.replace(model=model, recipe={"ema_decay": 0.5}), run)
    return run


def fewer_classes(shapes, trained, **changes) -> ExperimentConfig:
    """Return a training on three of the shapes, in another order, that starts from the run."""
    config = tiny_config(
        shapes,
        model={"start_from": str(trained)},
        recipe={"schedule": ScheduleConfig(steps=1, warmup_steps=0)},
        **changes,
    )
    splits = {
        name: split.replace(dataset=split.dataset.replace(class_names=names))
        for name, split in (("train", config.train), ("val", config.val))
        for names in [("star", "circle", "ring")]
    }
    return config.replace(**splits, recipe={"optimizer": config.recipe.optimizer.replace(lr=1e-30)})


def test_start_from_copies_the_model_of_another_run(shapes, trained, tmp_path, capsys):
    """Law: with a learning rate near zero the EMA weights of the run come out, predictor rows by class name, and
    pixels are normalized as in the run."""
    names = load_model(trained).class_names["detection"]
    config = fewer_classes(shapes, trained)
    train(config, tmp_path / "run")
    said = capsys.readouterr().err
    ours, theirs = load_model(tmp_path / "run"), load_model(trained)
    assert ours.preprocess.config.mean == (9.0, 9.0, 9.0)
    rows = ours.head.box.class_logits.weight
    for label, name in enumerate(ours.class_names["detection"]):
        if name in names:
            torch.testing.assert_close(rows[label], theirs.head.box.class_logits.weight[names.index(name)])
    assert "mapped by name" in said and str(trained) in said


def test_resuming_does_not_need_start_from(shapes, trained, tmp_path):
    """Law: once there is a checkpoint, the run that it started from may be deleted; another start is refused with
    exit code 2."""
    config = fewer_classes(shapes, trained)
    train(config, tmp_path / "run")
    before = newest_weights(tmp_path / "run")
    gone = trained.rename(trained.with_name("gone"))
    try:
        train(config, tmp_path / "run", resume=True)
        assert equal_tensors(newest_weights(tmp_path / "run"), before)
        with pytest.raises(UsageError, match="start_from was"):
            train(config.replace(model={"start_from": None}), tmp_path / "run", resume=True)
    finally:
        gone.rename(trained)


@pytest.mark.parametrize(("fault", "code"), [("missing", 4), ("classifier", 4), ("both", 2)])
def test_invalid_start_is_refused_in_one_line(fault, code, shapes, trained, tmp_path, capsys):
    """By hand: no such run, a run of another architecture, and two starts for one backbone."""
    values = fewer_classes(shapes, trained).model_dump(mode="json")
    if fault == "missing":
        values["model"]["start_from"] = str(tmp_path / "nowhere")
    elif fault == "classifier":
        values |= {key: tiny_classifier().model_dump(mode="json")[key] for key in ("model", "train", "val")}
        values["model"]["start_from"] = str(trained)
    else:
        values["model"]["weights"] = "timm"
        with pytest.raises(UsageError, match=r"model: .* set weights to null"):
            parse_config(values)
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert main(["train", str(tmp_path / "config.json"), "--output", str(tmp_path / "run"), "--device", "cpu"]) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1


def test_keypoints_are_matched_by_name():
    """Law: both models predict the same heatmaps for the keypoints that both have; a new one keeps its weights."""
    before, after = ("nose", "left_wing", "tail"), ("tail", "beak", "nose", "left_wing")
    head = rcnn().replace(keypoint=KeypointBranchConfig(names=before, convolutions=(8,)))
    other = head.replace(keypoint=head.keypoint.replace(names=after))
    source, model, fresh = build(head, OLD, 1), build(other, NEW, 2), build(other, NEW, 2)
    transfer_weights(model, source)
    features = features_of(pyramid(), 96, 96)
    boxes = torch.tensor([[[4.0, 4.0, 40.0, 50.0]]]).expand(2, -1, -1)
    ours, theirs = (each.head.keypoint(features, all_valid(boxes).valid, boxes) for each in (model, source))
    for name in before:
        torch.testing.assert_close(ours[:, :, after.index(name)], theirs[:, :, before.index(name)], rtol=0, atol=1e-5)
    assert torch.equal(model.head.keypoint.heatmaps.weight[:, 1], fresh.head.keypoint.heatmaps.weight[:, 1])
    assert torch.equal(model.head.keypoint.heatmaps.bias[1], fresh.head.keypoint.heatmaps.bias[1])
