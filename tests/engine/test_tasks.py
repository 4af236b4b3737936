"""What the engine knows of each kind of prediction, and what a head beside the wrong data gets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hotcoco import mask as rle

from vertebra.data import CocoConfig, Objects, Record, ShapeCropsConfig, build_dataset
from vertebra.engine import TASKS, ClassificationTask, Detection, Semantic, pick_task, require_targets, train
from vertebra.heads import (
    HEADS,
    ClassificationConfig,
    ClassificationHead,
    Head,
    MaskBranchConfig,
    RCNNConfig,
)
from vertebra.inference import draw_boxes, draw_lines
from vertebra.inference.drawing import class_color
from vertebra.structures import IGNORE, Classes, Classification, Detections, RoIMasks, UsageError

from ..helpers.tiny import tiny_classifier, tiny_config

NAMES = ("cat", "dog", "cow")
CLASSES = Classes(NAMES, ids=(10, 20, 30))
IMAGE = np.full((40, 60, 3), 200, np.uint8)
BOXES = torch.tensor([[5.0, 5.0, 30.0, 30.0], [20.0, 10.0, 50.0, 35.0]])
FOUND = Detections(BOXES, torch.tensor([1, 2]), torch.tensor([0.9, 0.3]))
NAMED = Classification(torch.tensor([2, 0, 1]), torch.tensor([0.6, 0.3, 0.1]))


def test_every_head_has_a_task_that_the_engine_knows():
    """A law of the registry."""
    assert {HEADS[name].build.task for name in HEADS} == {*TASKS, "multi_head"}


def test_a_head_beside_other_data_is_refused():
    """Exit code 2, saying which head fits; data of its own task is taken."""
    data = build_dataset(ShapeCropsConfig(split="val", count=1))
    require_targets(ClassificationConfig(), data)
    head = ClassificationHead.__new__(ClassificationHead)
    assert isinstance(pick_task(head, data.classes), ClassificationTask)
    with pytest.raises(UsageError, match=r"head is for detection, the data set for classification: .* classification$"):
        require_targets(RCNNConfig(), data)


def test_a_head_of_an_unknown_task_is_refused():
    """Exit code 2, naming those known."""

    class Counter(Head):
        task = "counting"
        loss = predict = None

    with pytest.raises(UsageError, match="knows no task 'counting': known: classification, detection, semantic"):
        pick_task(Counter.__new__(Counter), {"counting": CLASSES})


@pytest.mark.parametrize("direction", ["boxes from labels", "labels from boxes"])
def test_training_on_other_data_stops_before_the_first_step(direction, shapes, tmp_path):
    """Exit code 2, and no step is taken."""
    detector, classifier = tiny_config(shapes), tiny_classifier()
    if direction == "boxes from labels":
        config = classifier.replace(model=detector.model)
    else:
        config = detector.replace(model=classifier.model)
    with pytest.raises(UsageError, match=r"the head is for \w+, the data set for \w+") as caught:
        train(config, tmp_path / "run")
    assert caught.value.exit_code == 2 and not (tmp_path / "run" / "metrics.jsonl").exists()


def test_rows_and_words_of_detections():
    """By hand: COCO's terms with the file's own ids; what is below the score is counted, and not drawn."""
    task = Detection(CLASSES)
    rows = task.rows(FOUND, 7)
    assert [(row["image_id"], row["category_id"], row["bbox"]) for row in rows] == [
        (7, 20, [5, 5, 25, 25]),
        (7, 30, [20, 10, 30, 25]),
    ]
    assert task.describe(FOUND, 0.5) == "1 of 2 detections from 0.5 up"
    expected = draw_boxes(IMAGE, BOXES[:1], FOUND.labels[:1], NAMES, FOUND.scores[:1])
    np.testing.assert_array_equal(task.draw(IMAGE, FOUND, 0.5), expected)
    truth = Objects(BOXES.numpy(), FOUND.labels.numpy(), np.zeros((0, 4), np.float32))
    expected = draw_boxes(IMAGE, BOXES, FOUND.labels, NAMES)
    np.testing.assert_array_equal(task.draw_truth(Record(IMAGE, truth)), expected)


def test_rows_and_words_of_classes():
    """By hand: labels as they are; the likeliest class is named in any case."""
    task = ClassificationTask(CLASSES)
    assert task.rows(NAMED, "a.jpg") == [
        {"image_id": "a.jpg", "labels": [2, 0, 1], "scores": pytest.approx([0.6, 0.3, 0.1])}
    ]
    assert task.describe(NAMED, 0.2) == "cow 0.60, cat 0.30"
    assert task.describe(NAMED, 0.9) == "cow 0.60"
    expected = draw_lines(IMAGE, ["cow 0.60", "cat 0.30"])
    np.testing.assert_array_equal(task.draw(IMAGE, NAMED, 0.2), expected)
    np.testing.assert_array_equal(task.draw_truth(Record(IMAGE, label=1)), draw_lines(IMAGE, ["dog"]))


def test_rows_tell_their_task():
    """A law: each row of a task, with masks or without, has its mark, and none of a task before it."""
    masked = Detections(BOXES, FOUND.labels, FOUND.scores, RoIMasks(torch.ones(2, 28, 28), (40, 60)))
    class_map = torch.tensor([[0, 1], [2, 2]], dtype=torch.uint8)
    found = {"classification": [NAMED], "detection": [FOUND, masked], "semantic": [class_map]}
    assert found.keys() == TASKS.keys()
    for place, kind in enumerate(TASKS.values()):
        marks = [earlier.mark for earlier in TASKS.values()][: place + 1]
        for row in (row for each in found[kind.task] for row in kind(CLASSES).rows(each, 7)):
            assert [mark for mark in marks if mark in row] == marks[-1:]


def test_words_stand_below_an_image_wide_enough_for_them():
    """By hand: 60 pixels are drawn three times as wide, 400 as they are; below is ink on white."""
    assert draw_lines(IMAGE, ["dog"]).shape == (120 + 20, 180, 3)
    wide = np.full((50, 400, 3), 7, np.uint8)
    picture = draw_lines(wide, ["dog", "cat"])
    np.testing.assert_array_equal(picture[:50], wide)
    strip = picture[50:]
    assert len(strip) == 36 and strip.max() == 255 and strip[:18].min() < 50 and strip[18:].min() < 50


def test_masks_are_scored_where_the_data_has_them(shapes):
    """By hand: the truth as its own result is perfect by boxes, masks and outlines; data of boxes knows boxes only, and
    teaches no head with a mask branch."""
    files = CocoConfig(images=shapes / "val", annotations=shapes / "annotations" / "instances_val.json", masks=True)
    data = build_dataset(files)
    truth = data.ground_truth()
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    rows = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "score": 0.5, "bbox": each["bbox"],
         "segmentation": packed(each["segmentation"], sizes[each["image_id"]])}
        for each in truth["annotations"] if not each["iscrowd"]
    ]  # fmt: skip
    task = Detection(data.classes["detection"])
    scores = task.score(data, rows, "hotcoco")
    assert list(scores) == ["bbox", "segm", "boundary"]
    assert [each.summary["AP"] for each in scores.values()] == pytest.approx([1, 1, 1])
    boxes_only = build_dataset(files.replace(masks=False))
    assert list(task.score(boxes_only, rows, "hotcoco")) == ["bbox"]
    with pytest.raises(UsageError, match="the head learns masks, the data set gives boxes only: set masks=true"):
        require_targets(RCNNConfig(mask=MaskBranchConfig()), boxes_only)


def test_masks_come_in_the_form_that_the_head_learns_from(shapes):
    """Exit code 2, naming the setting; the pictures of the truth are the same in either form."""
    files = CocoConfig(images=shapes / "val", annotations=shapes / "annotations" / "instances_val.json", masks=True)
    bitmaps, polygons = (build_dataset(files.replace(mask_format=kind)) for kind in ("bitmaps", "polygons"))
    sharp, exact = (RCNNConfig(mask=MaskBranchConfig(truth=kind)) for kind in ("sharp", "polygons"))
    with pytest.raises(
        UsageError, match="learns masks from polygons, the data set gives bitmaps: set mask_format=poly"
    ):
        require_targets(exact, bitmaps)
    with pytest.raises(UsageError, match="learns masks from bitmaps, the data set gives polygons: set mask_format=bit"):
        require_targets(sharp, polygons)
    require_targets(exact, polygons)
    task = Detection(polygons.classes["detection"])
    for index in range(len(polygons)):
        pictures = [task.draw_truth(data.read(index)) for data in (bitmaps, polygons)]
        np.testing.assert_array_equal(*pictures)


def packed(polygons: list, size: tuple[int, int]) -> dict:
    encoded = rle.merge(rle.frPyObjects(polygons, *size))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def test_masks_are_drawn_under_their_boxes():
    """By hand: half of the class's colour inside; true masks and those found alike."""
    grids = RoIMasks(torch.ones(2, 28, 28), IMAGE.shape[:2])
    picture = Detection(CLASSES).draw(IMAGE, replace(FOUND, masks=grids), 0.5)
    expected = (200 + np.array(class_color(1)) + 1) // 2
    np.testing.assert_array_equal(picture[22, 15], expected)
    np.testing.assert_array_equal(picture[30, 45], [200] * 3)  # the other one is below the score
    masks = np.zeros((2, *IMAGE.shape[:2]), np.uint8)
    masks[0, 5:30, 5:30] = 1
    truth = Objects(BOXES.numpy(), FOUND.labels.numpy(), np.zeros((0, 4), np.float32), masks)
    np.testing.assert_array_equal(Detection(CLASSES).draw_truth(Record(IMAGE, truth))[22, 15], expected)


def test_rows_words_and_picture_of_a_map():
    """By hand: a row per class with the file's own ids; shares of the picture in words; colours above a legend."""
    classes = np.zeros(IMAGE.shape[:2], np.uint8)
    classes[:, 45:] = 2
    task, found = Semantic(Classes(("background", "dog", "cow"), ids=(0, 20, 30))), torch.from_numpy(classes)
    assert [row["category_id"] for row in task.rows(found, 7)] == [0, 30]
    assert task.describe(found, 0.5) == "background 75%, cow 25%"
    picture = task.draw(IMAGE, found, 0.5)
    assert picture.shape == (120 + 20, 180, 3)
    np.testing.assert_array_equal(picture[60, 10], [200] * 3)
    np.testing.assert_array_equal(picture[60, 170], (200 + np.array(class_color(2)) + 1) // 2)
    np.testing.assert_array_equal(picture[120 + 8, 8], class_color(2))
    classes[:, :20] = IGNORE
    np.testing.assert_array_equal(task.draw_truth(Record(IMAGE, semantic=classes)), picture)
