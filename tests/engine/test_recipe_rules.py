"""The rules of a recipe: laws that they obey, cases by hand, and what is published or measured."""

import os
from pathlib import Path

import numpy as np
import pytest

from vertebra.data import CocoConfig, ColorJitterConfig, DatasetPair, HashSplitConfig, VocConfig, build_dataset
from vertebra.engine import AdamWConfig, ExperimentConfig
from vertebra.engine.optim.optimizers import scaled_learning_rate
from vertebra.engine.recipe import DataFacts, UserChanges, read_facts
from vertebra.engine.recipe.choices import Decider, get_field, has_field
from vertebra.engine.recipe.facts import find_oddities
from vertebra.engine.recipe.rules import RULES, TARGET_RULES
from vertebra.engine.recipe.rules.anchors import candidates, centered, choose_anchors, reach
from vertebra.engine.recipe.rules.schedule import (
    average_weights,
    count_samples,
    lower_rates_below,
    scale_learning_rate,
)
from vertebra.engine.recipe.stock import STOCK_MODEL, stock_experiment
from vertebra.heads import (
    DeepLabConfig,
    FCOSConfig,
    KeypointBranchConfig,
    MaskBranchConfig,
    RCNNConfig,
    RetinaNetConfig,
)
from vertebra.models import ModelConfig
from vertebra.necks import PassthroughConfig
from vertebra.structures import ShortSideResize, UsageError

DATA = Path(os.environ.get("VERTEBRA_TEST_DATA", "no folder"))
"""A folder with ``bccd`` and ``VOCdevkit``, if there is one."""
PAIR = DatasetPair(
    CocoConfig(images=Path("a"), annotations=Path("a.json")),
    CocoConfig(images=Path("b"), annotations=Path("b.json")),
    "",
)


def make_facts(images: int = 205, size=(480, 640), boxes=(), counts=None, val: int = 87) -> DataFacts:
    """Return the facts of a data set whose images have one size, and whose boxes are all on the first image."""
    return DataFacts(
        train_images=images,
        val_images=val,
        sizes=np.full((images, 2), size),
        images_by_class={"cat": images, "dog": images} if counts is None else counts,
        objects=len(boxes),
        boxes=np.array(boxes, np.float64).reshape(-1, 2),
        box_images=np.zeros(len(boxes), np.int64),
    )


def stock(head=RCNNConfig(), preprocessing=None) -> ExperimentConfig:
    """Return the experiment that a recipe for a detector starts from."""
    return stock_experiment("mine", STOCK_MODEL.replace(head=head), PAIR, preprocessing)


def decide(facts: DataFacts, base: ExperimentConfig | None = None, *assignments: str, rules=RULES) -> Decider:
    """Apply the rules to an experiment with the user's assignments."""
    decider = Decider(stock() if base is None else base, UserChanges.from_assignments(assignments))
    decider.apply(lambda config, rule=rule: rule(facts, config) for rule in rules)
    decider.finish()
    return decider


def test_more_images_never_give_fewer_steps():
    """Law: from one image to ten million, with and without weights of a complete model."""
    counts = np.unique(np.logspace(0, 7, 60).astype(int))
    for pretrained in (False, True):
        samples = [count_samples(int(count), pretrained) for count in counts]
        assert samples == sorted(samples)
    steps = [decide(make_facts(int(count)), None).config.recipe.schedule.steps for count in counts[:35]]
    assert steps == sorted(steps) and 100 <= steps[0] < steps[-1] / 10
    assert decide(make_facts(205)).config.recipe.schedule.steps == 1030  # 205 x 12 x (118287 / 205) ** 0.19 / 8


@pytest.mark.parametrize(("images", "epochs"), [(118_287, 12.0), (16_551, 17.4)])
def test_length_is_that_of_published_trainings(images, epochs):
    """Oracle: the 1x schedule on COCO, and detectron2's on VOC 2007 and 2012 (18,000 steps of 16)."""
    assert count_samples(images, pretrained=False) / images == pytest.approx(epochs, rel=0.01)


@pytest.mark.parametrize(("optimizer", "factor"), [("sgd", 2.0), ("adamw", 2**0.5)])
def test_learning_rate_scales_with_the_batch_size(optimizer, factor):
    """Law: twice the batch size gives half the steps, and the rate of 1706.02677 for SGD, its root for AdamW."""
    base = stock() if optimizer == "sgd" else stock().replace(recipe={"optimizer": AdamWConfig(lr_batch_size=16)})
    small, large = (decide(make_facts(5000), base, f"recipe.batch_size={size}").config.recipe for size in (4, 8))
    assert small.schedule.steps == pytest.approx(2 * large.schedule.steps, rel=0.01)
    rates = [scaled_learning_rate(recipe.optimizer, recipe.batch_size) for recipe in (small, large)]
    assert rates[1] == pytest.approx(factor * rates[0])


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        ({}, 0.01),  # 0.02 x (4 / 16) ** 0.5
        ({"recipe": {"schedule": {"steps": 1000}}}, 0.005),  # 0.02 x 4 / 16, as in the cases below
        ({"model": {"weights": None, "start_from": "somewhere"}}, 0.005),
        ({"model": {"weights": None}}, 0.005),
        ({"recipe": {"batch_size": 32}}, 0.04),  # 0.02 x 32 / 16: the root would give less
    ],
    ids=["short", "long", "pretrained as a whole", "from random weights", "large batches"],
)
def test_short_training_of_an_rcnn_has_a_higher_rate(changes, rate):
    """By hand: the square root of the batch size in place of the batch size; the arithmetic is beside the cases."""
    recipe = {"batch_size": 4, "schedule": {"steps": 100}}
    base = stock().replace(recipe=recipe).replace(**changes)
    chosen = decide(make_facts(), base, rules=(scale_learning_rate,)).config.recipe
    assert scaled_learning_rate(chosen.optimizer, chosen.batch_size) == pytest.approx(rate)


def test_user_keeps_the_rate_of_a_short_training():
    """By hand: 0.03 for 16 images is 0.0075 for 4, and the rule chooses nothing."""
    settings = ("recipe.batch_size=4", "recipe.schedule.steps=100", "recipe.optimizer.lr=0.03")
    chosen = decide(make_facts(), None, *settings, rules=(scale_learning_rate,)).config.recipe
    assert scaled_learning_rate(chosen.optimizer, chosen.batch_size) == pytest.approx(0.0075)


SET_BY_USER = {
    "recipe.batch_size": 3,
    "recipe.schedule.steps": 77,
    "recipe.optimizer.lr": 0.5,
    "recipe.schedule.warmup_steps": 5,
    "recipe.schedule.decay": "poly",
    "recipe.schedule.decay_from": "start",
    "recipe.ema_decay": 0.5,
    "model.head.rpn.beta": 0.25,
    "model.head.box.beta": 0.5,
    "model.head.box.initialization": "normal",
    "val.transform.short_sides": (111,),
    "val.transform.long_side": 222,
    "train.transform.short_sides": (99, 100),
    "train.transform.long_side": 333,
    "train.transform.flip": 0.25,
    "train.transform.color_jitter.hue": 0.1,
    "model.head.rpn.anchor_sizes": ((9.0,), (18.0,), (36.0,), (72.0,), (144.0,)),
    "model.head.rpn.anchor_ratios": (1.0, 3.0),
    "train.sampling.images": "class_balanced",
    "evaluation.every": 7,
    "evaluation.patience": 9,
    "run.checkpoint_every": 11,
}
"""A value for every field that a rule chooses. An entry for each new rule belongs here."""


def test_what_the_user_sets_always_wins():
    """Law: for every field that a rule chooses, and for all of them together; the other choices are made as before."""
    facts = make_facts(images=205, boxes=[(12, 300)] * 9 + [(300, 10)] * 9, counts={"cat": 204, "dog": 1, "owl": 200})
    usual = decide(facts)
    fields = {decision.field for decision in usual.decisions}
    assert {"model.head.rpn.anchor_ratios", "train.sampling.repeat_below"} <= fields
    values = {field: value for field, value in SET_BY_USER.items() if has_field(stock(), field)}
    assignments = [f"{field}={_literal(value)}" for field, value in values.items()]
    for assignment, (field, value) in zip(assignments, values.items(), strict=True):
        rules = [rule for rule in RULES if "anchor" in field or rule is not choose_anchors]  # which takes a second
        decider = decide(facts, None, assignment, rules=rules)
        assert get_field(decider.config, field) == value
        assert any(decision.by_user for decision in decider.decisions)
    decider = decide(facts, None, *assignments)
    for field, value in values.items():
        assert get_field(decider.config, field) == value
    chosen = {decision.field for decision in decider.decisions if not decision.by_user}
    assert chosen == set(), "a rule chooses a field that is not in SET_BY_USER"


def _literal(value) -> str:
    return value if isinstance(value, str) else repr(value)


def test_user_may_set_a_whole_part():
    """By hand: a transform with its fields, and a field that no rule chooses; both are shown as set by the user."""
    decider = decide(make_facts(), None, 'train.transform={"name": "resize", "short_sides": [64]}', "recipe.seed=7")
    assert decider.config.train.transform.short_sides == (64,) and decider.config.train.transform.flip == 0.0
    lines = {decision.field: decision.describe() for decision in decider.decisions}
    assert lines["recipe.seed"] == "0 -> 7, set by you"
    assert lines["train.transform.flip"] == "0, set by you"
    assert lines["val.transform.short_sides"] == "(800,) -> (480,), because the short side of the images is 480"


def test_changes_from_python_are_those_of_the_command_line():
    """Law: a nested mapping and the same assignments give equal decisions."""
    facts, mapping = make_facts(), {"recipe": {"batch_size": 4, "optimizer": {"name": "adamw"}}, "name": "x"}
    decider = Decider(stock(), UserChanges.from_mapping(mapping))
    decider.apply(lambda config, rule=rule: rule(facts, config) for rule in RULES)
    decider.finish()
    other = decide(facts, None, "recipe.batch_size=4", "recipe.optimizer.name=adamw", "name=x")
    assert decider.config == other.config and decider.decisions == other.decisions
    with pytest.raises(UsageError, match="there is no field 'batchsize'; did you mean 'batch_size'"):
        Decider(stock(), UserChanges.from_mapping({"recipe": {"batchsize": 4}}))


@pytest.mark.parametrize(
    ("size", "boxes", "short"),
    [
        ((480, 640), [(100, 100)] * 10, 480),  # as they are
        ((400, 500), [(100, 100)] * 8 + [(16, 16)] * 2, 566),  # 16 pixels become 32 / sqrt(2): 400 x 1.414
        ((300, 500), [(100, 100)] * 8 + [(4, 4)] * 2, 600),  # twice as large at most
        ((480, 640), [(100, 100)] * 8 + [(4, 4)] * 2, 800),  # not above the default
        ((3000, 4000), [(500, 500)] * 10, 800),
    ],
)
def test_image_size(size, boxes, short):
    """By hand: the arithmetic is beside the cases."""
    config = decide(make_facts(size=size, boxes=boxes)).config
    assert config.val.transform.short_sides == (short,)
    assert config.val.transform.long_side == round(short * 1333 / 800)
    assert max(config.train.transform.short_sides) == short
    assert min(config.train.transform.short_sides) == round(0.8 * short)


@pytest.mark.parametrize(("steps", "few"), [(256, True), (257, False)])
def test_images_that_are_seen_a_few_times_are_not_changed(steps, few):
    """By hand: 256 steps of 8 show 205 images 9.99 times each; a flip is the only change."""
    transform = decide(make_facts(), None, f"recipe.schedule.steps={steps}").config.train.transform
    assert transform.short_sides == ((480,) if few else (384, 408, 432, 456, 480)) and transform.flip == 0.5
    assert (transform.color_jitter == ColorJitterConfig()) == few


def test_other_sizes_follow_the_one_that_the_user_sets():
    """By hand: with a short side of 1024 the long side may have 1706, and training goes up to 1024."""
    config = decide(make_facts(), None, "val.transform.short_sides=[1024]").config
    assert config.val.transform.long_side == config.train.transform.long_side == 1706
    assert config.train.transform.short_sides == (819, 870, 922, 973, 1024)


def test_image_size_is_at_most_that_of_the_weights():
    """By hand: a model that was trained on 256 pixels is not given more."""
    config = decide(make_facts(), stock(preprocessing=ShortSideResize(short_side=256, long_side=400))).config
    assert config.val.transform.short_sides == (256,)


def test_semantic_models_train_on_crops_of_the_size_of_the_images():
    """By hand: CamVid's 360 x 480; a large image is reduced to 768 pixels."""
    model = ModelConfig(backbone={"name": "resnet18"}, neck=PassthroughConfig(), head=DeepLabConfig())
    base = stock_experiment("mine", model, PAIR, None)
    config = decide(make_facts(size=(360, 480), counts={}), base).config
    assert (config.train.transform.size, config.train.transform.short_side) == ((360, 480), 360)
    assert config.val.transform.short_sides == (360,) and config.val.transform.long_side >= 480
    assert decide(make_facts(size=(1080, 1920), counts={}), base).config.train.transform.size == (432, 768)


def test_reach_of_anchors():
    """By hand: a square of 32 / sqrt(2) pixels has an IoU of 0.5 with an anchor of 32; a smaller one less."""
    sides = np.array([[23.0, 23.0], [22.0, 22.0], [32.0, 32.0], [16.0, 32.0]])
    reached, mean = reach(centered(sides), ((32.0,),), (1.0,))
    assert reached == 0.75 and mean == pytest.approx((23**2 / 1024 + 22**2 / 1024 + 1 + 0.5) / 4)


@pytest.mark.parametrize("head", [RCNNConfig(), RetinaNetConfig()], ids=["rcnn", "retinanet"])
def test_anchors_are_chosen_if_they_reach_more(head):
    """Law: others reach at least as many boxes as the default ones, and a cell has as many of them, so that the rows of
    pretrained weights fit."""
    generator = np.random.default_rng(0)
    long = np.stack([generator.uniform(150, 400, 500), generator.uniform(8, 20, 500)], axis=1)
    base, facts = stock(head), make_facts(boxes=long)
    part = (
        (lambda config: config.model.head.rpn) if isinstance(head, RCNNConfig) else (lambda config: config.model.head)
    )
    chosen, default = part(decide(facts, base, rules=(choose_anchors,)).config), part(base)
    strides = (4, 8, 16, 32, 64)
    boxes = centered(facts.resized_boxes(800, 1333))
    before = reach(boxes, default.sizes_for(strides), default.anchor_ratios)
    after = reach(boxes, chosen.anchor_sizes, chosen.anchor_ratios)
    assert before[0] < 0.2 and after[0] > 0.9
    assert [len(level) for level in chosen.anchor_sizes] == [len(level) for level in default.sizes_for(strides)]
    assert len(chosen.anchor_ratios) == len(default.anchor_ratios)
    others = [reach(boxes, *candidate) for candidate in list(candidates(default.sizes_for(strides)))[::40]]
    assert after >= max(others)


@pytest.mark.parametrize(
    ("head", "steps", "kept"), [("rcnn", 999, True), ("rcnn", 1000, False), ("retinanet", 999, False)]
)
def test_short_training_of_an_rcnn_keeps_anchors_that_reach_half_of_the_boxes(head, steps, kept):
    """By hand: squares of 64 pixels, and as many of 8, which no stock anchor reaches, in images of 800 pixels."""
    base = stock(RCNNConfig() if head == "rcnn" else RetinaNetConfig())
    facts = make_facts(size=(800, 1000), boxes=[(64, 64)] * 5 + [(8, 8)] * 5)
    decider = decide(facts, base, f"recipe.schedule.steps={steps}", rules=(choose_anchors,))
    assert (decider.config.model.head == base.model.head) is kept


def test_anchors_are_kept_if_they_reach_enough():
    """By hand: squares of 100 pixels; and a head without anchors has nothing to choose."""
    facts = make_facts(boxes=[(100, 100)] * 10)
    decider = decide(facts, rules=(choose_anchors,))
    assert decider.config.model.head == RCNNConfig(), "no anchors are set"
    assert "reach 100% of the boxes" in decider.decisions[0].reason
    assert decide(facts, stock(FCOSConfig()), rules=(choose_anchors,)).decisions == []


def test_rare_classes_are_repeated_if_classes_are_lopsided():
    """By hand: a class on 4 images of 1000, where the median class is on 400: t = 0.2, repeated sqrt(0.2 / 0.004) = 7
    times; with 30 images nothing is repeated."""
    lopsided = decide(make_facts(1000, counts={"cat": 900, "dog": 400, "owl": 4, "newt": 0})).config.train.sampling
    assert (lopsided.images, lopsided.repeat_below) == ("repeat_factor", 0.2)
    usual = decide(make_facts(1000, counts={"cat": 900, "dog": 400, "owl": 30})).config.train.sampling
    assert usual.images == "each_once"


def test_lower_layers_of_a_transformer_learn_slower():
    """By hand: with AdamW and pretrained weights; not for a ResNet, nor from random weights."""
    vit = {"name": "timm/vit_tiny_patch16_224"}
    base = stock().replace(recipe={"optimizer": AdamWConfig(lr_batch_size=16)})
    tuned = base.replace(model={"backbone": vit, "weights": "timm", "neck": {"name": "simple_pyramid"}})
    rule = (lower_rates_below,)
    assert decide(make_facts(), tuned, rules=rule).config.recipe.optimizer.layer_decay == 0.8
    fresh = tuned.replace(model={"weights": None})
    for experiment in (base, fresh, stock()):
        assert decide(make_facts(), experiment, rules=rule).decisions == []


def test_weights_of_long_trainings_are_averaged():
    """By hand: over 50 of 1000 steps, over 5000 at most, and not in a shorter training."""
    for steps, decay in ((999, None), (1000, 0.98), (90_000, 0.999778), (10**6, 0.9998)):
        config = decide(make_facts(), None, f"recipe.schedule.steps={steps}", rules=(average_weights,)).config
        assert config.recipe.ema_decay == decay


def test_losses_are_those_for_short_trainings_from_a_backbone():
    """By hand: smooth L1 and a cosine; a model that is pretrained as a whole keeps its own losses."""
    config = decide(make_facts()).config
    assert config.model.head.rpn.beta == config.model.head.box.beta == 1 / 9
    assert config.recipe.schedule.decay == "cosine"
    whole = STOCK_MODEL.replace(weights=None, start_from="somewhere")
    head = decide(make_facts(), stock_experiment("mine", whole, PAIR, None)).config.model.head
    assert head.rpn.beta == head.box.beta == 0.0


def test_evaluations_take_a_fraction_of_the_time():
    """By hand: 10 of a small validation set, and 1 if it is as large as what is trained on."""
    few = decide(make_facts(205, val=50)).config
    assert few.recipe.schedule.steps // few.evaluation.every == 10 and few.evaluation.patience == 5
    many = decide(make_facts(205, val=50_000)).config
    assert many.evaluation.every == many.recipe.schedule.steps and many.evaluation.patience is None
    never = decide(make_facts(205), None, "evaluation.every=0").config
    assert never.evaluation.every == 0 and never.evaluation.patience is None


def test_targets_follow_from_the_head():
    """By hand: masks and keypoints are read if the head learns them, from divided data too."""
    divided = DatasetPair(*(HashSplitConfig(dataset=PAIR.train, part=part) for part in ("train", "val")), "")
    head = RCNNConfig(mask=MaskBranchConfig(truth="polygons"), keypoint=KeypointBranchConfig())
    decider = Decider(stock_experiment("mine", STOCK_MODEL.replace(head=head), divided, None))
    decider.apply(TARGET_RULES)
    for split in (decider.config.train, decider.config.val):
        dataset = split.dataset.dataset
        assert dataset.masks and dataset.mask_format == "polygons" and dataset.keypoints is not None


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (RCNNConfig(mask=MaskBranchConfig()), "has a mask branch, but data of the type 'voc' have no masks"),
        (RCNNConfig(keypoint=KeypointBranchConfig()), "has a keypoint branch, but data of the type 'voc'"),
    ],
    ids=["masks", "keypoints"],
)
def test_targets_that_the_data_lack_are_refused(head, message):
    """docs/faults.md row 159. By hand: exit code 2, before the data are opened."""
    pair = DatasetPair(VocConfig(root=Path("a"), splits=()), VocConfig(root=Path("a"), splits=()), "")
    decider = Decider(stock_experiment("mine", STOCK_MODEL.replace(head=head), pair, None))
    with pytest.raises(UsageError, match=message):
        decider.apply(TARGET_RULES)


def test_facts_of_a_data_set(shapes):
    """Oracle: the records of the data set."""
    config = CocoConfig(images=shapes / "train", annotations=shapes / "annotations" / "instances_train.json")
    dataset = build_dataset(config)
    facts = read_facts(dataset, dataset)
    records = [dataset.read(index) for index in range(len(dataset))]
    sides = np.concatenate([record.objects.boxes[:, 2:] - record.objects.boxes[:, :2] for record in records])
    np.testing.assert_array_equal(facts.boxes, sides)
    assert facts.box_images.tolist() == [index for index, record in enumerate(records) for _ in record.objects.boxes]
    labels = [set(record.objects.labels.tolist()) for record in records]
    expected = {name: sum(label in present for present in labels) for label, name in enumerate(dataset.class_names)}
    assert facts.images_by_class == expected and facts.objects == len(sides)
    assert find_oddities(dataset, dataset, facts)[0].startswith("WARNING: 8 images are both training and validation")


@pytest.mark.parametrize(
    ("root", "short", "reached"), [("bccd", 480, 1.0), ("bccd", 240, 0.94), ("VOCdevkit/VOC2012", 800, 0.92)]
)
def test_measured_reach_of_the_stock_anchors(root, short, reached):
    """By hand: the figures that the rule for anchors states, measured again on real photos."""
    if not (DATA / root).exists():
        pytest.skip("VERTEBRA_TEST_DATA names no folder with these photos")
    split = "train" if root == "bccd" else "trainval"
    names = ("RBC", "WBC", "Platelets") if root == "bccd" else None
    dataset = build_dataset(VocConfig(root=DATA / root, splits=(split,), class_names=names, use_difficult=True))
    boxes = centered(read_facts(dataset, dataset).resized_boxes(short, round(short * 1333 / 800)))
    sizes = tuple((8.0 * stride,) for stride in (4, 8, 16, 32, 64))
    assert reach(boxes, sizes, (0.5, 1.0, 2.0))[0] == pytest.approx(reached, abs=0.015)
