"""Several heads on one network: joint data, each head's losses and predictions, and a run end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vertebra.data import (
    CocoConfig,
    JointConfig,
    ResizeConfig,
    ScaledCropConfig,
    build_dataset,
    build_transform,
    collate,
)
from vertebra.data.coco_format import CocoSemanticConfig
from vertebra.engine import ExperimentConfig, SplitConfig, pick_task, require_targets
from vertebra.heads import (
    ClassificationConfig,
    MaskBranchConfig,
    MultiHeadConfig,
    RCNNHead,
    SemanticFPNConfig,
    SemanticFPNHead,
)
from vertebra.inference import Predictor
from vertebra.models import build_model
from vertebra.ops import full_size_logits, split_losses
from vertebra.structures import DataError, UsageError
from vertebra.tools.cli import main

from ..helpers.runs import eval_scores
from ..helpers.tiny import tiny_config


def joint(shapes: Path, split: str = "val", **changes) -> JointConfig:
    """Return a data set of objects with masks and semantic maps of the same images; ``changes`` replace parts."""
    files = {"images": shapes / split, "annotations": shapes / "annotations" / f"instances_{split}.json"}
    parts = {
        "detection": CocoConfig(**files, masks=True),
        "semantic": CocoSemanticConfig(**files, categories="all", min_pixels=0),
    }
    return JointConfig(parts=parts | changes)


def multi_head_config(shapes: Path, **weights: float) -> ExperimentConfig:
    """Return an experiment of the tiny Mask R-CNN with a Semantic FPN beside it."""
    config = tiny_config(
        shapes,
        train=SplitConfig(dataset=joint(shapes, "train"), transform=ScaledCropConfig(size=(80, 80))),
        val=SplitConfig(dataset=joint(shapes), transform=ResizeConfig(short_sides=(64,))),
    )
    boxes = config.model.head.replace(mask=MaskBranchConfig(convolutions=(8,)))
    semantic = SemanticFPNConfig(channels=16, norm="batch", levels=("p2", "p3", "p4"))
    head = MultiHeadConfig(heads={"boxes": boxes, "semantic": semantic}, weights=weights)
    return config.replace(model=config.model.replace(head=head))


def test_joint_data_set_has_the_annotations_of_every_part(shapes):
    """Law: the objects and the semantic map equal those of the separate data sets, with one image."""
    config = joint(shapes)
    data, boxes, maps = (build_dataset(part) for part in (config, *config.parts.values()))
    assert list(data.classes) == ["detection", "semantic"] and len(data) == len(boxes) == len(maps)
    for index in range(len(data)):
        record = data.read(index)
        np.testing.assert_array_equal(record.image, boxes.read(index).image)
        np.testing.assert_array_equal(record.objects.masks, boxes.read(index).objects.masks)
        np.testing.assert_array_equal(record.semantic, maps.read(index).semantic)
        assert record.image_id == boxes.image_ids[index] and record.file == boxes.read(index).file


def test_joint_data_set_uses_images_that_all_parts_have(shapes):
    """By hand: two of four images have a map; the ground truth for scores has only these two, the report all four."""
    maps = joint(shapes).parts["semantic"].replace(subset=2)
    data = build_dataset(joint(shapes, semantic=maps))
    assert data.image_ids == build_dataset(maps).image_ids and len(data) == 2
    report = data.report.as_json()
    assert report["totals"] == {"images": {"read": 4, "used": 2, "skipped": 2}}
    assert report["skipped"]["images"]["not-in-every-part"]["count"] == 2
    assert report["parts"]["detection"]["totals"]["images"]["used"] == 4
    assert "2 not-in-every-part" in data.report.summary() and "detection: 4 images" in data.report.summary()
    truth = data.ground_truth()
    assert [image["id"] for image in truth["detection"]["images"]] == data.image_ids
    assert {entry["image_id"] for entry in truth["detection"]["annotations"]} == set(data.image_ids)
    np.testing.assert_array_equal(truth["semantic"][data.image_ids[1]], data.read(1).semantic)
    assert list(truth["semantic"]) == data.image_ids


def test_parts_without_a_common_image_are_refused(shapes, tmp_path):
    """By hand: DataError that shows an image id of each part."""
    annotations = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    for image in annotations["images"]:
        image["id"] += 1000
    for entry in annotations["annotations"]:
        entry["image_id"] += 1000
    (tmp_path / "moved.json").write_text(json.dumps(annotations))
    moved = joint(shapes).parts["semantic"].replace(annotations=tmp_path / "moved.json")
    with pytest.raises(DataError, match=r"the parts have no image in common; their first ids are 1000001, 1001001"):
        build_dataset(joint(shapes, semantic=moved))


def test_part_with_data_for_another_task_is_refused(shapes):
    """By hand: UsageError that names the part, the data set and its task."""
    with pytest.raises(UsageError, match=r"parts.semantic: 'coco' is a data set for detection"):
        build_dataset(joint(shapes, semantic=joint(shapes).parts["detection"]))


def test_all_annotations_get_the_same_transform(shapes):
    """Law: crop, scale and flip are drawn once; each target equals that of its own data set alone."""
    config = joint(shapes)
    data, boxes, maps = (build_dataset(part) for part in (config, *config.parts.values()))
    transform = build_transform(ScaledCropConfig(size=(48, 48)), seed=3)
    for epoch in range(3):
        together = transform(data.read(1), epoch, 1).target
        objects, labels = transform(boxes.read(1), epoch, 1).target, transform(maps.read(1), epoch, 1).target
        assert torch.equal(together["detection"].boxes, objects.boxes)
        assert torch.equal(together["detection"].masks, objects.masks)
        assert torch.equal(together["semantic"], labels)


def test_heads_equal_separate_models(shapes):
    """Law: losses times their weight, metrics and predictions equal those of a model with this head alone."""
    config = multi_head_config(shapes, semantic=0.5)
    data = build_dataset(config.val.dataset)
    model = build_model(config.model, {task: classes.names for task, classes in data.classes.items()}).eval()
    assert [len(names) for names in model.class_names.values()] == [8, 9]
    transform = build_transform(config.val.transform)
    batch = collate([transform(data.read(index), 0, index) for index in range(2)], model.size_divisor).to("cpu")
    torch.manual_seed(0)
    losses, metrics = split_losses(model(batch.images, batch.targets))
    assert list(metrics) == ["boxes_rpn_positives", "boxes_rpn_recall", "boxes_box_positives"]
    features = model.features(batch.images)
    boxes, semantic = (head for _, head in model.head.named_heads())
    assert isinstance(boxes, RCNNHead) and isinstance(semantic, SemanticFPNHead)
    torch.manual_seed(0)
    alone, metrics_alone = split_losses(
        boxes.loss(features, batch.images, [target["detection"] for target in batch.targets])
    )
    assert all(metrics[f"boxes_{name}"].allclose(value, 0, 0, True) for name, value in metrics_alone.items())
    expected = {f"loss_boxes_{name.removeprefix('loss_')}": value for name, value in alone.items()}
    alone = semantic.loss(features, batch.images, [target["semantic"] for target in batch.targets])
    expected["loss_semantic_semantic"] = 0.5 * alone["loss_semantic"]
    assert list(losses) == list(expected)
    torch.testing.assert_close(list(losses.values()), list(expected.values()), rtol=0, atol=0)
    predictions = model.predict(batch.images)
    assert [list(prediction) for prediction in predictions] == [["boxes", "semantic"]] * 2
    with torch.no_grad():
        features = model.features(batch.images)  # in the memory layout of predictions
        detections, logits = boxes.predict(features, batch.images), semantic.predict(features, batch.images)
    for prediction, found, maps in zip(predictions, detections, logits, strict=True):
        assert torch.equal(prediction["boxes"].boxes, found.boxes)
        assert torch.equal(full_size_logits(prediction["semantic"]), full_size_logits(maps))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"masks": 1.0}}, r"weights has unknown heads \['masks'\]; the heads are \['boxes', 'semantic'\]"),
        ({"heads": {"boxes": {"name": "rcnn"}}}, "at least 2 items"),
        ({"heads": {"a b": {"name": "rcnn"}, "c": {"name": "fcn"}}}, "pattern"),
        ({"heads": {"a": {"name": "rcn"}, "c": {"name": "fcn"}}}, "did you mean 'rcnn'"),
    ],
)
def test_invalid_multi_head_config_is_refused(shapes, change, message):
    """By hand: ValueError at construction that says what is wrong."""
    config = multi_head_config(shapes).model.head.model_dump()
    with pytest.raises((ValueError, UsageError), match=message):
        MultiHeadConfig(**{**config, **change})


def test_data_without_the_annotations_of_a_head_is_refused(shapes):
    """By hand: UsageError at the start: no masks in the part, a single task, a task that no part has, classes of one
    task."""
    config = multi_head_config(shapes)
    data = build_dataset(config.val.dataset)
    head = config.model.head
    require_targets(head, data)
    without = joint(shapes).parts["detection"].replace(masks=False)
    with pytest.raises(UsageError, match="the head needs masks, but the data set provides boxes only"):
        require_targets(head, build_dataset(joint(shapes, detection=without)))
    with pytest.raises(UsageError, match="head is for multi_head, but the data set is for detection"):
        require_targets(head, build_dataset(without))
    with pytest.raises(UsageError, match="the head is for semantic, but the data set is for multi_head"):
        require_targets(head.heads["semantic"], data)
    classifier = head.replace(heads={**head.heads, "scene": ClassificationConfig()})
    with pytest.raises(UsageError, match=r"no annotations for classification, .*: give it as parts\.classification"):
        require_targets(classifier, data)
    with pytest.raises(UsageError, match=r"no annotations for semantic, only for detection: give it as parts"):
        build_dataset(without).part("semantic")
    with pytest.raises(
        ValueError, match=r"the head 'semantic' is for semantic, but there are classes for detection only"
    ):
        build_model(config.model, {"detection": ("a", "b")})


def test_run_with_two_heads(shapes, tmp_path, capsys):
    """Law, on the command line: scores of the run, of ``eval`` and of the results files agree. By hand: losses,
    files and pictures of both heads."""
    (tmp_path / "config.json").write_text(multi_head_config(shapes).model_dump_json())
    run, output = tmp_path / "run", tmp_path / "predictions"
    assert main(["train", str(tmp_path / "config.json"), "--output", str(run), "--device", "cpu"]) == 0
    scores = json.loads((run / "eval.json").read_text())
    names = ["boxes/bbox", "boxes/segm", "boxes/boundary", "semantic/semantic"]
    assert list(scores) == [*names, "per_class", "objects", "step", "images"]
    assert [len(scores["per_class"][name]) for name in names] == [8, 8, 8, 9]
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(step[f"loss_{name}"] >= 0 for step in steps[:4] for name in ("boxes_mask", "semantic_semantic"))
    maps = json.loads((run / "results_semantic.json").read_text())
    assert {row["image_id"] for row in maps} == set(range(1000001, 1000005))
    assert set(maps[0]) == {"image_id", "category_id", "segmentation"}
    assert (run / "results_boxes.json").exists() and not (run / "results.json").exists()

    assert main(["eval", str(run), "--json", str(tmp_path / "again.json"), "--device", "cpu"]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert {name: scores[name] for name in names} == {name: again[name] for name in names}
    from_files = {
        f"{head}/{name}": numbers
        for head in ("boxes", "semantic")
        for name, numbers in eval_scores([str(run), "--results", str(run / f"results_{head}.json")], tmp_path).items()
    }
    assert {name: scores[name] for name in names} == {name: from_files[name] for name in names}

    assert main(["predict", str(run), str(shapes / "val"), "--output", str(output), "--device", "cpu"]) == 0
    assert "results_boxes.json, results_semantic.json are in" in capsys.readouterr().out
    image = np.zeros((60, 80, 3), np.uint8)
    predictor = Predictor(run)
    prediction = predictor(image)
    task = pick_task(predictor.model.head, predictor.trained.classes)
    boxes, semantic = (part.task for part in task.parts.values())
    picture = task.draw(image, prediction, 0.0)
    np.testing.assert_array_equal(picture[:60, :80], boxes.draw(image, prediction["boxes"], 0.0))
    np.testing.assert_array_equal(picture[:, 80:], semantic.draw(image, prediction["semantic"], 0.0))
    assert task.describe(prediction, 0.0).startswith("boxes: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "the file has no rows, so its head is unknown"),
        ('[{"labels": []}]', "the first row is not a result of detection or semantic"),
    ],
)
def test_results_without_a_known_task_are_refused(content, message, shapes, tmp_path, capsys):
    """By hand: exit code 3: joint data has annotations for several tasks, and the rows must show which one they are
    for."""
    (tmp_path / "config.json").write_text(multi_head_config(shapes).model_dump_json())
    (tmp_path / "rows.json").write_text(content)
    assert main(["eval", "--data", str(tmp_path / "config.json"), "--results", str(tmp_path / "rows.json")]) == 3
    assert f"error: bad-results: {tmp_path / 'rows.json'}: {message}" in capsys.readouterr().err
