"""Published models in the commands and in Python, with a stand-in for torchvision's file of weights."""

import errno
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import vertebra
from vertebra.data import as_transform
from vertebra.engine import DetectionTask, config_for_data, override
from vertebra.engine.run import describe_model_changes
from vertebra.engine.tasks import pick_task
from vertebra.inference import ExternalModel, ModelFile, load_photo, open_model, preprocess_image
from vertebra.models.zoo import cached_path, find_published
from vertebra.structures import Classes, Detections, UsageError
from vertebra.tools.cli import main

from ..helpers.published_detectors import torchvision_model
from ..helpers.tiny import tiny_config

NAME = "torchvision/fasterrcnn_resnet50_fpn"


@pytest.fixture(scope="module")
def reference():
    return torchvision_model("fasterrcnn_resnet50_fpn")


@pytest.fixture(scope="module")
def weights_file(reference, tmp_path_factory):
    """Return a file with the state dict of torchvision's detector."""
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(reference.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """Return an image file."""
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC))
    return path


def test_published_weights_come_from_the_cache(weights_file, monkeypatch, tmp_path):
    """Law: the file in torch.hub's cache is loaded by name, tag, ``weights=`` and default; all give the same model."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published, _ = find_published(NAME)
    target = cached_path(published.find_weights("COCO_V1"))
    target.parent.mkdir(parents=True)
    target.symlink_to(weights_file)
    expected = open_model(weights_file, like=NAME).load().state_dict()
    for model in (
        vertebra.create_model(NAME, weights="COCO_V1"),
        vertebra.create_model(f"{NAME}.COCO_V1"),
        vertebra.load_model(NAME),
    ):
        assert model.class_names["detection"][0] == "person"
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    other = vertebra.create_model(NAME, num_classes=3, weights="default")
    assert other.class_names["detection"] == ("class 0", "class 1", "class 2")
    assert torch.equal(other.backbone.conv1.weight, expected["backbone.conv1.weight"])
    assert other.head.box.class_logits.out_features == 4


@torch.no_grad()
def test_prediction_of_a_file_equals_torchvisions(reference, weights_file, photo):
    """Oracle: torchvision's model and postprocessing on the image file, with our resized pixels."""
    found = vertebra.Predictor(weights_file, like=NAME)(photo)
    published, _ = find_published(NAME)
    resized = torch.from_numpy(preprocess_image(load_photo(photo), published.preprocessing)).permute(2, 0, 1)
    predictions = reference([resized / 255])
    (expected,) = reference.transform.postprocess(predictions, [tuple(resized.shape[1:])], [(120, 160)])
    assert len(found) == len(expected["boxes"]) == 100
    torch.testing.assert_close(found.boxes, expected["boxes"], atol=1e-3, rtol=0)
    torch.testing.assert_close(found.scores, expected["scores"], atol=1e-5, rtol=0)
    assert torch.equal(found.labels, expected["labels"] - 1)


def test_resized_pixels_are_torchvisions_rounded(photo):
    """Oracle: torchvision's resize, which keeps fractions of the 256 levels that Vertebra rounds."""
    transform = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3)
    image = load_photo(photo)
    images, _ = transform([torch.from_numpy(image).permute(2, 0, 1) / 255])
    height, width = images.image_sizes[0]
    published, _ = find_published(NAME)
    ours = torch.from_numpy(preprocess_image(image, published.preprocessing)).permute(2, 0, 1)
    assert (ours - 255 * images.tensors[0, :, :height, :width]).abs().max() < 1


@pytest.mark.parametrize("size", [(120, 160), (480, 640), (427, 640), (333, 500), (500, 375), (1080, 1920), (1, 9)])
def test_resized_size_equals_torchvisions(size):
    """Oracle: the size to which torchvision's detectors resize an image."""
    transform = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3)
    images, _ = transform([torch.zeros(3, *size)])
    published, _ = find_published(NAME)
    assert published.preprocessing.output_size(*size) == images.image_sizes[0]


def test_predict_and_convert_commands(weights_file, photo, tmp_path, capsys):
    """Law: predictions of a file with --like equal those of the model file that convert writes from it, and those after
    converting back; the tensors are bit-equal."""
    converted, back = tmp_path / "mine.safetensors", tmp_path / "back.pth"
    assert main(["convert", str(weights_file), str(converted), "--from", NAME]) == 0
    assert main(["convert", str(converted), str(back), "--to", NAME]) == 0
    assert "90 classes of detection: person, bicycle" in capsys.readouterr().out
    original, returned = torch.load(weights_file, weights_only=True), torch.load(back, weights_only=True)
    counters = {name for name in original if name.endswith("num_batches_tracked")}
    assert returned.keys() == original.keys() - counters
    assert all(torch.equal(tensor, original[name]) for name, tensor in returned.items())
    for index, arguments in enumerate(([str(weights_file), str(photo), "--like", NAME], [str(converted), str(photo)])):
        assert main(["predict", *arguments, "--output", str(tmp_path / str(index))]) == 0
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("0", "1"))
    assert first == second and len(first) == 100
    assert {row["category_id"] for row in first} <= set(range(1, 91))
    assert isinstance(open_model(converted), ModelFile)
    assert main(["convert", str(weights_file), str(converted), "--from", NAME]) == 2
    assert "exists already" in capsys.readouterr().err


def test_file_with_other_classes(weights_file, tmp_path):
    """By hand: a detector of two classes: their number is read from the tensors, their names are given or numbers."""
    tensors = dict(torch.load(weights_file, weights_only=True))
    for name, rows in (("cls_score", 3), ("bbox_pred", 12)):
        for kind in ("weight", "bias"):
            key = f"roi_heads.box_predictor.{name}.{kind}"
            tensors[key] = tensors[key][:rows]
    path = tmp_path / "mine.pth"
    torch.save(tensors, path)
    assert open_model(path, like=NAME).classes["detection"].names == ("class 0", "class 1")
    assert open_model(path, NAME, ["cat", "dog"]).load().class_names["detection"] == ("cat", "dog")
    with pytest.raises(UsageError, match="3 class names are given, but the weights have 2 classes"):
        open_model(path, NAME, ["cat", "dog", "bird"]).load()
    out = tmp_path / "mine.safetensors"
    assert main(["convert", str(path), str(out), "--from", NAME, "--classes", "cat, dog"]) == 0
    assert open_model(out).classes["detection"] == Classes(("cat", "dog"), (1, 2))
    assert open_model(out).inference == open_model(path, NAME).inference
    assert "head.box.class_logits.weight" in load_file(out)


def test_data_with_other_classes_are_matched_by_name():
    """By hand: a model with the classes a, N/A, b, c on data with c, a: labels follow the names, others are dropped."""
    task = DetectionTask(Classes(("c", "a"), (7, 3)))
    task.match_labels(("a", "N/A", "b", "c"))
    detections = Detections(torch.rand(4, 4), torch.tensor([3, 1, 0, 2]), torch.tensor([0.9, 0.8, 0.7, 0.6]))
    rows = task.rows(detections, 1)
    assert [(row["category_id"], round(row["score"], 3)) for row in rows] == [(7, 0.9), (3, 0.7)]
    with pytest.raises(UsageError, match="no class in common: x; c, a"):
        task.match_labels(("x",))


def test_published_model_is_scored_with_its_own_preprocessing(shapes):
    """Law: --data replaces the config's validation transform by the preprocessing of the model."""
    published, _ = find_published(NAME)
    config = config_for_data(ExternalModel(published), tiny_config(shapes))
    assert config.val.transform == as_transform(published.preprocessing)
    assert config.inference().preprocessing == published.preprocessing
    assert override(config, ["val.transform.short_sides=[64]"]).val.transform.output_short_side() == 64


def test_task_matches_labels_only_where_names_differ(reference):
    """Law: a model and data with the same names need no conversion."""
    classes = Classes(("a", "b"), (1, 2))
    head = find_published(NAME)[0].build(["a", "b"]).head
    detections = Detections(torch.rand(1, 4), torch.tensor([1]), torch.tensor([0.5]))
    for data, expected in ((classes, 2), (Classes(("b",), (9,)), 9)):
        (row,) = pick_task(head, {"detection": data}, {"detection": classes}).rows(detections, 1)
        assert row["category_id"] == expected


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predict", "FILE", "PHOTO", "--output", "OUT"], 2, "weights without a description of their model: name the"),
        (["predict", NAME, "PHOTO", "--output", "OUT", "--offline"], 4, "downloads are switched off (--offline)"),
        (["predict", "torchvision/ssd300_vgg16", "PHOTO", "--output", "OUT"], 2, "are not covered"),
        (["predict", "nowhere.pth", "PHOTO", "--output", "OUT", "--like", NAME], 2, "there is no such file of weights"),
        (["eval", NAME], 2, "this model has no data of its own: name a config"),
        (["convert", "FILE", "OUT.pth", "--from", "torchvision/fcos_resnet50_fpn"], 2, ""),
        (["convert", "FILE", "OUT.txt", "--from", NAME], 2, "ends in .safetensors"),
        (["convert", "FILE", "OUT.txt", "--from", NAME, "--to", NAME], 2, "use the suffix .pth"),
        (["convert", "FILE", "OUT.pth", "--from", NAME, "--to", "torchvision/fcos_resnet50_fpn"], 2, "is not a torch"),
    ],
)
def test_faults_get_one_line(arguments, code, message, weights_file, photo, tmp_path, capsys, monkeypatch):
    """By hand: docs/faults.md, published models."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("VERTEBRA_OFFLINE", "0")
    names = {"FILE": str(weights_file), "PHOTO": str(photo)}
    arguments = [names.get(word, str(tmp_path / word) if word.startswith("OUT") else word) for word in arguments]
    assert main(arguments) == code
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not list(tmp_path.glob("OUT.*"))


def test_start_from_a_published_model(weights_file, shapes, tmp_path):
    """Law: a run starts from a file of torchvision's weights by config: the classes are mapped by name, everything else
    is copied; a file that describes no model needs ``start_from_like``."""
    published, _ = find_published(NAME)
    config = tiny_config(shapes)
    config = config.replace(
        model=published.model.replace(start_from=str(weights_file), start_from_like=NAME),
        recipe=config.recipe.replace(schedule=config.recipe.schedule.replace(steps=1, warmup_steps=0)),
    )
    vertebra.train(config, tmp_path / "run")
    trained = vertebra.load_model(tmp_path / "run")
    assert trained.preprocess.config == published.model.input
    start = open_model(weights_file, NAME).load()
    assert torch.equal(trained.backbone.conv1.weight, start.backbone.conv1.weight)
    with pytest.raises(UsageError, match="--like"):
        open_model(weights_file)


def test_like_may_be_a_config_of_detectron2(tmp_path, capsys):
    """Law: a file with detectron2's names and the config.yaml of its training become a model file of Vertebra."""
    config = Path(__file__).parent.parent / "models" / "recorded" / "detectron2_config.yaml"
    published, _ = find_published(str(config))
    weights, out = tmp_path / "model_final.pth", tmp_path / "model.safetensors"
    model = published.build()
    torch.save({"model": published.keys.from_vertebra(model.state_dict())}, weights)
    assert main(["convert", str(weights), str(out), "--from", str(config)]) == 0, capsys.readouterr().err
    trained = open_model(out)
    assert trained.inference.model == published.model
    assert trained.classes == published.classes
    loaded = trained.load().state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())


def test_model_with_several_tasks_is_converted(tmp_path):
    """Law: detectron2's Panoptic FPN, whose classes belong to three tasks, goes to a model file and back."""
    name = "detectron2/COCO-PanopticSegmentation/panoptic_fpn_R_50_1x"
    published, _ = find_published(name)
    weights, out, back = tmp_path / "model_final.pth", tmp_path / "model.safetensors", tmp_path / "back.pth"
    torch.save(published.keys.from_vertebra(published.build().state_dict()), weights)
    assert main(["convert", str(weights), str(out), "--from", name]) == 0
    assert open_model(out).classes == published.classes
    assert main(["convert", str(out), str(back), "--to", name]) == 0
    original, returned = (torch.load(file, weights_only=True) for file in (weights, back))
    assert original.keys() == returned.keys()
    assert all(torch.equal(tensor, returned[key]) for key, tensor in original.items())


def test_settings_that_differ_from_the_weights_are_said():
    """By hand: detectron2's conventions on torchvision's weights; the number of frozen stages does not matter."""
    model = find_published(NAME)[0].model
    assert describe_model_changes(model, model.replace(backbone={"freeze_at": 0}, start_from="run")) is None
    changed = model.replace(head={"box": {"pool": {"aligned": True}}})
    assert describe_model_changes(model, changed) == "head.box.pool.aligned=True (was False)"


def test_describe_command(weights_file, capsys):
    """By hand: a published model, and a file of weights like it."""
    assert main(["describe", NAME]) == 0
    printed = capsys.readouterr().out
    assert "resnet50 + fpn + rcnn" in printed and "90 of detection: person, bicycle" in printed
    assert "short_side 800, long_side 1333" in printed and "BSD-3-Clause" in printed
    assert main(["describe", str(weights_file), "--like", NAME]) == 0
    assert f"from {weights_file}" in capsys.readouterr().out


def test_failed_conversion_leaves_no_file(weights_file, tmp_path, monkeypatch, capsys):
    """By hand: the disk is full while the file is written: exit code 4, and the folder stays empty."""

    def write_half(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", write_half)
    arguments = ["convert", str(weights_file), str(tmp_path / "out.pth"), "--from", NAME, "--to", NAME]
    assert main(arguments) == 4
    assert "free some space" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
