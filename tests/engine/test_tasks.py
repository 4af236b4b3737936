"""Tasks: results rows, scores, descriptions and pictures of each kind of prediction, and which data a head needs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hotcoco import mask as rle

from vertebra.data import CocoConfig, CocoSemanticConfig, JointConfig, Objects, Record, ShapeCropsConfig, build_dataset
from vertebra.engine import (
    TASKS,
    ClassificationTask,
    DetectionTask,
    EvaluationConfig,
    SemanticTask,
    Task,
    pick_task,
    require_targets,
    train,
)
from vertebra.engine.tasks import MultiTask, results_files, task_of_results
from vertebra.engine.tasks.multi_task import TaskOfHead
from vertebra.heads import (
    HEADS,
    ClassificationConfig,
    ClassificationHead,
    Head,
    HeadConfig,
    MaskBranchConfig,
    MultiHeadConfig,
    RCNNConfig,
    SemanticFPNConfig,
    target_task_of_head,
    task_of_head,
)
from vertebra.inference import DrawingConfig, class_color, draw_boxes, draw_lines, render_text
from vertebra.structures import (
    IGNORE,
    Classes,
    Classification,
    DataError,
    Detections,
    FeatureInfo,
    RoIMasks,
    UsageError,
)

from ..helpers.tiny import tiny_classifier, tiny_config

NAMES = ("cat", "dog", "cow")
CLASSES = Classes(NAMES, ids=(10, 20, 30))
IMAGE = np.full((40, 60, 3), 200, np.uint8)
BOXES = torch.tensor([[5.0, 5.0, 30.0, 30.0], [20.0, 10.0, 50.0, 35.0]])
DETECTIONS = Detections(BOXES, torch.tensor([1, 2]), torch.tensor([0.9, 0.3]))
CLASSIFICATION = Classification(torch.tensor([2, 0, 1]), torch.tensor([0.6, 0.3, 0.1]))
LABEL_MAP = torch.tensor([[0, 1], [2, 2]], dtype=torch.uint8)


def test_every_head_has_a_registered_task():
    """Law: the task of every registered head is in the registry of tasks."""
    assert {HEADS[name].build.task for name in HEADS} <= {*TASKS, "multi_head"}
    assert {"classification", "detection", "semantic"} <= {*TASKS}


def test_head_on_data_of_another_task_is_refused():
    """By hand: exit code 2, naming the heads that fit; data of the head's own task is accepted."""
    data = build_dataset(ShapeCropsConfig(split="val", count=1))
    require_targets(ClassificationConfig(), data)
    head = ClassificationHead.__new__(ClassificationHead)
    assert isinstance(pick_task(head, data.classes), ClassificationTask)
    with pytest.raises(
        UsageError, match=r"head is for detection, but the data set is for classification: .* classification$"
    ):
        require_targets(RCNNConfig(), data)


def test_head_of_an_unknown_task_is_refused():
    """By hand: exit code 2, naming the known tasks and how to register one."""

    class Counter(Head):
        task = "tally"
        loss = predict = None

    with pytest.raises(UsageError, match=r"no task 'tally': known: .*semantic.*; .* TASKS.register\('tally'\)"):
        pick_task(Counter.__new__(Counter), {"tally": CLASSES})


def test_head_registered_as_a_function_is_refused():
    """By hand: exit code 2 when its task is asked for, which a function cannot state."""
    HEADS.register("function_of_test_tasks", HeadConfig)(lambda feature_info, num_classes, config: None)
    try:
        for ask in (task_of_head, target_task_of_head):
            with pytest.raises(UsageError, match=r"registered as <function .*register a subclass of"):
                ask("function_of_test_tasks")
    finally:
        del HEADS._entries["function_of_test_tasks"]


def test_task_name_is_registered_once():
    """By hand: ValueError for another class under a taken name; a definition that runs again replaces the one
    before."""
    before = TASKS["detection"]
    with pytest.raises(ValueError, match="the task name 'detection' is taken"):
        TASKS.register("detection")(ClassificationTask)
    assert TASKS.register("detection")(DetectionTask) is before is TASKS["detection"]


@pytest.mark.parametrize("direction", ["boxes from labels", "labels from boxes"])
def test_training_on_data_of_another_task_stops_before_the_first_step(direction, shapes, tmp_path):
    """By hand: exit code 2, and no step is taken."""
    detector, classifier = tiny_config(shapes), tiny_classifier()
    if direction == "boxes from labels":
        config = classifier.replace(model=detector.model)
    else:
        config = detector.replace(model=classifier.model)
    with pytest.raises(UsageError, match=r"the head is for \w+, but the data set is for \w+") as caught:
        train(config, tmp_path / "run")
    assert caught.value.exit_code == 2 and not (tmp_path / "run" / "metrics.jsonl").exists()


def test_rows_description_and_picture_of_detections():
    """By hand: COCO's fields with the file's ids; detections below the score are counted and not drawn."""
    task = DetectionTask(CLASSES)
    rows = task.rows(DETECTIONS, 7)
    assert [(row["image_id"], row["category_id"], row["bbox"]) for row in rows] == [
        (7, 20, [5, 5, 25, 25]),
        (7, 30, [20, 10, 30, 25]),
    ]
    assert task.describe(DETECTIONS, 0.5) == "1 of 2 detections with a score >= 0.5"
    expected = draw_boxes(IMAGE, BOXES[:1], DETECTIONS.labels[:1], NAMES, DETECTIONS.scores[:1])
    np.testing.assert_array_equal(task.draw(IMAGE, DETECTIONS, 0.5), expected)
    truth = Objects(BOXES.numpy(), DETECTIONS.labels.numpy(), np.zeros((0, 4), np.float32))
    expected = draw_boxes(IMAGE, BOXES, DETECTIONS.labels, NAMES)
    np.testing.assert_array_equal(task.draw_truth(Record(IMAGE, truth)), expected)


def test_rows_description_and_picture_of_a_classification():
    """By hand: labels as they are; the likeliest class is described whatever its score."""
    task = ClassificationTask(CLASSES)
    assert task.rows(CLASSIFICATION, "a.jpg") == [
        {"image_id": "a.jpg", "labels": [2, 0, 1], "scores": pytest.approx([0.6, 0.3, 0.1])}
    ]
    assert task.describe(CLASSIFICATION, 0.2) == "cow 0.60, cat 0.30"
    assert task.describe(CLASSIFICATION, 0.9) == "cow 0.60"
    expected = draw_lines(IMAGE, ["cow 0.60", "cat 0.30"])
    np.testing.assert_array_equal(task.draw(IMAGE, CLASSIFICATION, 0.2), expected)
    np.testing.assert_array_equal(task.draw_truth(Record(IMAGE, label=1)), draw_lines(IMAGE, ["dog"]))


def test_rows_description_and_picture_of_a_label_map():
    """By hand: a row per class with the file's ids; fractions of the image in the description; colors above a
    legend."""
    labels = np.zeros(IMAGE.shape[:2], np.uint8)
    labels[:, 45:] = 2
    task, prediction = SemanticTask(Classes(("background", "dog", "cow"), ids=(0, 20, 30))), torch.from_numpy(labels)
    assert [row["category_id"] for row in task.rows(prediction, 7)] == [0, 30]
    assert task.describe(prediction, 0.5) == "background 75%, cow 25%"
    picture = task.draw(IMAGE, prediction, 0.5)
    assert picture.shape == (120 + len(render_text("", 12)) + 4, 180, 3)
    np.testing.assert_array_equal(picture[60, 10], [200] * 3)
    np.testing.assert_array_equal(picture[60, 170], (200 + np.array(class_color(2)) + 1) // 2)
    np.testing.assert_array_equal(picture[120 + 8, 8], class_color(2))
    labels[:, :20] = IGNORE
    np.testing.assert_array_equal(task.draw_truth(Record(IMAGE, semantic=labels)), picture)


PREDICTIONS = {
    "classification": [CLASSIFICATION],
    "detection": [DETECTIONS, replace(DETECTIONS, masks=RoIMasks(torch.ones(2, 28, 28), (40, 60)))],
    "semantic": [LABEL_MAP],
}


def test_row_field_identifies_the_task():
    """Law: the rows of a task have its ``row_field``, and none of the fields of tasks that are tried before it."""
    names = [name for name in TASKS if name in PREDICTIONS]
    assert names == list(PREDICTIONS)
    for number, name in enumerate(names):
        fields = [TASKS[earlier].row_field for earlier in names[: number + 1]]
        for row in (row for prediction in PREDICTIONS[name] for row in TASKS[name](CLASSES).rows(prediction, 7)):
            assert [field for field in fields if field in row] == fields[-1:]


def test_each_of_several_heads_has_a_results_file():
    """By hand: two heads on one image; a row names its head in the joint file, and not in the head's own file."""
    parts = {
        "boxes": TaskOfHead(DetectionTask(CLASSES), "detection"),
        "map": TaskOfHead(SemanticTask(CLASSES), "semantic"),
    }
    task = MultiTask(parts)
    rows = task.rows({"boxes": DETECTIONS, "map": LABEL_MAP}, 7)
    assert [row["head"] for row in rows] == ["boxes"] * 2 + ["map"] * 3
    files = results_files(task, rows)
    assert {name: list(rows_of_file) for name, rows_of_file in files.items()} == {
        "results_boxes.json": DetectionTask(CLASSES).rows(DETECTIONS, 7),
        "results_map.json": SemanticTask(CLASSES).rows(LABEL_MAP, 7),
    }
    assert {name: list(none) for name, none in results_files(task, []).items()} == {
        "results_boxes.json": [],
        "results_map.json": [],
    }
    assert results_files(DetectionTask(CLASSES), []) == {"results.json": []}


def test_results_file_of_one_head_is_recognized_by_its_first_row(shapes):
    """By hand: rows of boxes and of maps; no rows, and a row of neither, are refused."""
    files = {"images": shapes / "val", "annotations": shapes / "annotations" / "instances_val.json"}
    parts = {"detection": CocoConfig(**files), "semantic": CocoSemanticConfig(**files)}
    head, data = MultiHeadConfig(heads={"map": SemanticFPNConfig(), "boxes": RCNNConfig()}), JointConfig(parts=parts)
    dataset = build_dataset(data)
    for task, rows in (
        ("detection", DetectionTask(CLASSES).rows(PREDICTIONS["detection"][1], 7)),
        ("semantic", SemanticTask(CLASSES).rows(LABEL_MAP, 7)),
    ):
        known, part = task_of_results(rows, head, dataset)
        assert isinstance(known, TASKS[task]) and part.task == task
    with pytest.raises(DataError, match="the file has no rows, so its head is unknown"):
        task_of_results([], head, dataset)
    with pytest.raises(DataError, match="the first row is not a result of detection or semantic"):
        task_of_results([{"image_id": 7}], head, dataset)


def test_masks_are_scored_if_the_data_has_masks(shapes):
    """By hand: the ground truth as its own result is perfect by boxes, masks and boundaries.

    ``evaluation.boundary`` can leave out the boundaries. Data without masks has scores of boxes only, and cannot train
    a mask branch.
    """
    files = CocoConfig(images=shapes / "val", annotations=shapes / "annotations" / "instances_val.json", masks=True)
    data = build_dataset(files)
    truth = data.ground_truth()
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    rows = [
        {
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "score": 0.5,
            "bbox": annotation["bbox"],
            "segmentation": encode_polygons(annotation["segmentation"], sizes[annotation["image_id"]]),
        }
        for annotation in truth["annotations"]
        if not annotation["iscrowd"]
    ]
    task: Task = DetectionTask(data.classes["detection"])
    scores = task.score(data, rows, EvaluationConfig())
    assert list(scores) == ["bbox", "segm", "boundary"]
    assert [scored.summary["AP"] for scored in scores.values()] == pytest.approx([1, 1, 1])
    assert list(task.score(data, rows, EvaluationConfig(boundary=False))) == ["bbox", "segm"]
    boxes_only = build_dataset(files.replace(masks=False))
    assert list(task.score(boxes_only, rows, EvaluationConfig())) == ["bbox"]
    with pytest.raises(UsageError, match="the head needs masks, but the data set provides boxes only: set masks=true"):
        require_targets(RCNNConfig(mask=MaskBranchConfig()), boxes_only)


def encode_polygons(polygons: list, size: tuple[int, int]) -> dict:
    """Return polygons as compressed RLE."""
    encoded = rle.merge(rle.frPyObjects(polygons, *size))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def test_mask_format_of_data_and_head_must_match(shapes):
    """By hand: exit code 2, naming the setting; pictures of the ground truth are the same in either format."""
    files = CocoConfig(images=shapes / "val", annotations=shapes / "annotations" / "instances_val.json", masks=True)
    bitmaps, polygons = (build_dataset(files.replace(mask_format=form)) for form in ("bitmaps", "polygons"))
    sharp, exact = (RCNNConfig(mask=MaskBranchConfig(truth=truth)) for truth in ("sharp", "polygons"))
    with pytest.raises(
        UsageError, match="needs masks as polygons, but the data set provides bitmaps: set mask_format=poly"
    ):
        require_targets(exact, bitmaps)
    with pytest.raises(
        UsageError, match="needs masks as bitmaps, but the data set provides polygons: set mask_format=bit"
    ):
        require_targets(sharp, polygons)
    require_targets(exact, polygons)
    task = DetectionTask(polygons.classes["detection"])
    for index in range(len(polygons)):
        pictures = [task.draw_truth(data.read(index)) for data in (bitmaps, polygons)]
        np.testing.assert_array_equal(*pictures)


def test_drawing_options_reach_the_tasks_of_all_heads():
    """By hand: with opacity 1 a mask hides the image; each head of several has the options."""
    options, classes = DrawingConfig(opacity=1, text_size=1), {"detection": CLASSES, "semantic": CLASSES}
    heads = MultiHeadConfig(heads={"boxes": RCNNConfig(), "map": SemanticFPNConfig()})
    levels = {f"p{level}": FeatureInfo(8, 2**level) for level in range(2, 7)}
    task = pick_task(HEADS.build(heads, levels, {"detection": 3, "semantic": 3}), classes, drawing=options)
    assert isinstance(task, MultiTask) and all(part.task.drawing == options for part in task.parts.values())
    masks = RoIMasks(torch.ones(2, 28, 28), IMAGE.shape[:2])
    picture = task.parts["boxes"].task.draw(IMAGE, replace(DETECTIONS, masks=masks), 0.5)
    np.testing.assert_array_equal(picture[22, 15], class_color(1))


def test_masks_are_drawn_under_boxes():
    """By hand: half of the class's color inside, for predictions and for the ground truth."""
    masks = RoIMasks(torch.ones(2, 28, 28), IMAGE.shape[:2])
    task = DetectionTask(CLASSES)
    task.drawing = DrawingConfig(text_size=1)
    picture = task.draw(IMAGE, replace(DETECTIONS, masks=masks), 0.5)
    expected = (200 + np.array(class_color(1)) + 1) // 2
    np.testing.assert_array_equal(picture[22, 15], expected)
    np.testing.assert_array_equal(picture[30, 45], [200] * 3)  # the other detection is below the score
    bitmaps = np.zeros((2, *IMAGE.shape[:2]), np.uint8)
    bitmaps[0, 5:30, 5:30] = 1
    truth = Objects(BOXES.numpy(), DETECTIONS.labels.numpy(), np.zeros((0, 4), np.float32), bitmaps)
    np.testing.assert_array_equal(task.draw_truth(Record(IMAGE, truth))[22, 15], expected)
