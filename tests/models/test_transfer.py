"""Weights into a model of other classes: what a class has learned goes by its name."""

import itertools
import json

import pytest
import torch
from torch import Tensor, nn

from vertebra.backbones import create_backbone
from vertebra.engine import ExperimentConfig, ScheduleConfig, parse_config, train
from vertebra.heads import (
    HEADS,
    AuxiliaryConfig,
    BoxBranchConfig,
    ClassificationConfig,
    DeepLabConfig,
    HeadConfig,
    MaskBranchConfig,
    MultiHeadConfig,
    RCNNConfig,
    RetinaNetConfig,
    SemanticFPNConfig,
    class_rows_by_tensor,
)
from vertebra.inference import load_model
from vertebra.models import Model, ModelConfig, build_model, transfer_weights
from vertebra.necks import FPNConfig, Passthrough
from vertebra.structures import CheckpointError, Images, InputConfig, UsageError
from vertebra.tools.cli import main

from ..helpers.pyramids import features_of
from ..helpers.runs import equal_tensors, newest_weights
from ..helpers.semantic import NAMES, build_head, pyramid
from ..helpers.tiny import BACKBONE, tiny_classifier, tiny_config

OLD, NEW = ("cat", "dog", "owl"), ("newt", "owl", "cat", "eel")
SHARED = ("cat", "owl")


def rcnn(background: str = "last", **options) -> RCNNConfig:
    """A small Mask R-CNN, its background where torchvision or where detectron2 has it."""
    box = BoxBranchConfig(**{"fc": (8,), "background": background, **options})
    agnostic = options.get("class_agnostic", False)
    return RCNNConfig(box=box, mask=MaskBranchConfig(convolutions=(8,), class_agnostic=agnostic))


SEVERAL = MultiHeadConfig(heads={"boxes": rcnn(), "map": SemanticFPNConfig(channels=8, levels=("p2", "p3", "p4"))})


def build(head: HeadConfig, names, seed: int) -> Model:
    """A small model of noise."""
    model = build_model(ModelConfig(backbone=BACKBONE, neck=FPNConfig(channels=8), head=head), names)
    randomise(model, seed)
    return model


def randomise(model: Model, seed: int) -> None:
    """Noise for every weight, in a model that predicts."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.eval().parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)


def region_outputs(head, names) -> dict[str, Tensor]:
    """Everything that the branches say of two regions about each class, by its name; of the background by ''."""
    features = features_of(pyramid(), 96, 96)
    boxes = torch.tensor([[[4.0, 4.0, 40.0, 50.0], [0.0, 10.0, 90.0, 80.0]]]).expand(2, -1, -1)
    logits, offsets = head.box(features, boxes)
    told = {"": logits[:, :, len(names)]}
    for label, name in enumerate(names):
        masks = head.mask(features, boxes, torch.full((2, 2), label))
        told[name] = torch.cat([logits[:, :, label, None], offsets[:, :, label], masks.flatten(2)], dim=2)
    return told


@pytest.mark.parametrize("before", ["last", "first"])
@pytest.mark.parametrize("after", ["last", "first"])
def test_a_shared_class_is_told_as_before(before, after):
    """Law: of the same features both models say the same about each class that both know, and about the background,
    whatever the order of the classes and wherever each keeps the background."""
    source, model = build(rcnn(before), OLD, 1), build(rcnn(after), NEW, 2)
    said = transfer_weights(model, source)
    ours, theirs = region_outputs(model.head, NEW), region_outputs(source.head, OLD)
    for name in (*SHARED, ""):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5)
    assert said.endswith("detection: owl, cat mapped by name; newt, eel initialized; dog dropped")


def test_another_class_starts_as_it_was_made():
    """By hand, row by row: with the background first newt is row 1 and eel 4, each with four rows of offsets."""
    source, model, twin = build(rcnn("first"), OLD, 1), build(rcnn("first"), NEW, 2), build(rcnn("first"), NEW, 2)
    transfer_weights(model, source)
    box, fresh, old = (each.head.box for each in (model, twin, source))
    for row in (1, 4):
        assert torch.equal(box.class_logits.weight[row], fresh.class_logits.weight[row])
        assert torch.equal(box.box_offsets.bias[4 * row : 4 * row + 4], fresh.box_offsets.bias[4 * row : 4 * row + 4])
    assert torch.equal(model.head.mask.logits.weight[[0, 3]], twin.head.mask.logits.weight[[0, 3]])
    assert torch.equal(box.box_offsets.weight[8:12], old.box_offsets.weight[12:16])  # owl: row 2 here, row 3 there
    assert equal_tensors(model.backbone.state_dict(), source.backbone.state_dict())


@pytest.mark.parametrize("name", [*NAMES, "classification"])
def test_logits_move_with_their_class(name):
    """The same law of the heads that give a logit per class: of semantic heads for each pixel."""
    features = features_of(pyramid(), 64, 96)
    images = Images.from_list([torch.zeros(3, 64, 96, dtype=torch.uint8)] * 2, divisor=1)

    def outputs(names, seed: int, start: Model | None = None):
        """The model's logits; it has a head of its own, and all else as any other."""
        if name == "classification":
            head = HEADS.build(ClassificationConfig(levels=("c5",)), pyramid(), len(names))
        else:
            head = build_head(name, num_classes=len(names))
        backbone = create_backbone(BACKBONE.name)
        model = Model(backbone, Passthrough(backbone.feature_info), head, class_names=names)
        randomise(model, seed)
        if start is not None:
            transfer_weights(model, start)
        return model, head(features, images)

    source, theirs = outputs(OLD, 1)
    _, ours = outputs(NEW, 2, source)
    for shared in SHARED:
        torch.testing.assert_close(ours[:, NEW.index(shared)], theirs[:, OLD.index(shared)], rtol=0, atol=1e-5)
    assert not torch.allclose(ours[:, NEW.index("eel")], theirs[:, OLD.index("dog")])


def test_each_of_several_heads_has_classes_of_its_own():
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
        *(HEADS[name].config(name=name, auxiliary=AuxiliaryConfig()) for name in NAMES),
        ClassificationConfig(),
        RetinaNetConfig(),
    ],
    ids=lambda config: config.name,
)
def test_a_head_says_which_of_its_tensors_have_rows_of_classes(config):
    """The contract of every head: they are those whose first axis grows with the number of classes, by as many rows."""
    few, many = (HEADS.build(config, pyramid(), count) for count in (2, 3))
    grown = {
        name: len(tensor) - len(few.state_dict()[name])
        for name, tensor in many.state_dict().items()
        if tensor.shape != few.state_dict()[name].shape
    }
    declared = {name: rows for name, (_, rows) in class_rows_by_tensor(many).items()}
    assert grown and grown == {name: rows.per_class * rows.repeats for name, rows in declared.items()}
    for name, rows in declared.items():
        indices = itertools.chain.from_iterable(rows.indices("abc").values())
        assert sorted(indices) == list(range(len(many.state_dict()[name])))


@pytest.mark.parametrize("other", [rcnn(class_agnostic=True), rcnn(fc=(9,)), DeepLabConfig(level="c4", channels=8)])
def test_another_architecture_is_refused(other):
    """docs/faults.md rows 98, 99: exit code 4 naming tensors, and the model is as it was."""
    model, twin = build(rcnn(), NEW, 2), build(rcnn(), NEW, 2)
    with pytest.raises(CheckpointError, match=r"does not fit this model: head\.") as caught:
        transfer_weights(model, build(other, OLD, 1))
    assert caught.value.exit_code == 4
    assert equal_tensors(model.state_dict(), twin.state_dict())


def test_frozen_norms_take_what_batch_norms_learned():
    """Law: they have the same tensors but for counters, which nothing reads."""
    source, model = build(rcnn(), OLD, 1), build(rcnn(), OLD, 2)
    frozen = ModelConfig(backbone=BACKBONE.replace(norm="frozen"), neck=FPNConfig(channels=8), head=rcnn())
    model = build_model(frozen, OLD)
    transfer_weights(model, source)
    assert torch.equal(model.backbone.get_buffer("bn1.running_var"), source.backbone.get_buffer("bn1.running_var"))


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """A run with averaged weights, and pixels that are its own."""
    run = tmp_path_factory.mktemp("transfer") / "run"
    base = tiny_config(shapes)
    pixels = InputConfig(mean=(9.0, 9.0, 9.0), std=(50.0, 50.0, 50.0))
    model = base.model.replace(input=pixels)
    train(base.replace(model=model, recipe={"ema_decay": 0.5}), run)
    return run


def fewer_classes(shapes, trained, **changes) -> ExperimentConfig:
    """A training on three of the shapes, in another order, that starts from the run."""
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


def test_a_training_starts_from_another_runs_model(shapes, trained, tmp_path, capsys):
    """Law: with a learning rate of nothing the averaged weights of the run come out, its rows by class name, and
    pixels are normalised as they were for it."""
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


def test_resuming_needs_not_what_the_run_started_from(shapes, trained, tmp_path):
    """Law: once it has a checkpoint, its start may be gone; another start is refused with exit code 2."""
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
def test_a_start_that_cannot_be_is_refused_in_one_line(fault, code, shapes, trained, tmp_path, capsys):
    """No such run, a run of another architecture, and two starts for one backbone."""
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
