"""``vertebra predict``: results with the ids of a COCO file, or with ids that belong to no file."""

import json
import shutil
from pathlib import Path

import pytest

from vertebra.engine import train
from vertebra.engine.prediction.ids import ImageIds, find_category_ids
from vertebra.structures import Classes, UsageError
from vertebra.tools.cli import main

from ..helpers.runs import read_scores
from ..helpers.tiny import tiny_config

TRUTH = {
    "images": [{"id": 7, "file_name": "a/1.png"}, {"id": 8, "file_name": "b/1.png"}, {"id": 9, "file_name": "b/2.png"}],
    "categories": [{"id": 30, "name": "dog"}, {"id": 10, "name": "cat"}],
}
FILE = Path("truth.json")


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory) -> Path:
    """Return a finished run."""
    output = tmp_path_factory.mktemp("predict") / "run"
    train(tiny_config(shapes), output)
    return output


def renumber(source: Path, target: Path) -> Path:
    """Write a COCO file with other image and category ids."""
    content = json.loads(source.read_text())
    for image in content["images"]:
        image["id"] += 500
    for category in content["categories"]:
        category["id"] += 100
    for annotation in content["annotations"]:
        annotation["image_id"] += 500
        annotation["category_id"] += 100
    target.write_text(json.dumps(content))
    return target


def test_predictions_with_annotations_get_the_scores_of_the_run(run, shapes, tmp_path):
    """Law: with the ids of the COCO file, the predictions have the scores of the run; images.json says whose ids
    they are."""
    annotations = renumber(shapes / "annotations" / "instances_val.json", tmp_path / "val.json")
    out = tmp_path / "out"
    predict = ["predict", str(run), str(shapes / "val"), "--output", str(out), "--device", "cpu"]
    assert main([*predict, "--annotations", str(annotations)]) == 0
    ids = {image["file_name"]: image["id"] for image in json.loads(annotations.read_text())["images"]}
    assert {image["file_name"]: image["id"] for image in json.loads((out / "images.json").read_text())} == ids
    score = ["eval", "--annotations", str(annotations), "--results", str(out / "results.json")]
    assert main([*score, "--json", str(tmp_path / "scores.json")]) == 0
    scores = read_scores(tmp_path / "scores.json")["bbox"]
    assert scores == read_scores(run / "eval.json")["bbox"] and scores["AR100"] > 0


def test_predictions_without_annotations_number_the_images(run, shapes, tmp_path, capsys):
    """By hand: ids count from 1, and a line says that they belong to no file."""
    out = tmp_path / "out"
    assert main(["predict", str(run), str(shapes / "val"), "--output", str(out), "--device", "cpu"]) == 0
    assert [image["id"] for image in json.loads((out / "images.json").read_text())] == [1, 2, 3, 4]
    assert "image ids count from 1 and match no annotation file" in capsys.readouterr().out


def test_image_missing_from_the_annotations_is_refused(run, shapes, tmp_path, capsys):
    """By hand: exit code 2, naming image and file, before anything is predicted."""
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(next((shapes / "val").iterdir()), photos / "other.png")
    annotations = shapes / "annotations" / "instances_val.json"
    command = ["predict", str(run), str(photos), "--output", str(tmp_path / "out"), "--annotations", str(annotations)]
    assert main(command) == 2
    assert "instances_val.json: has no image with the file name 'other.png'" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_images_are_found_by_path_or_file_name():
    """By hand: the whole path first, then a file name that only one image has."""
    ids = ImageIds(TRUTH, FILE)
    assert [ids.find(name) for name in ("b/1.png", "2.png", "deep/b/2.png")] == [8, 9, 9]
    with pytest.raises(UsageError, match=r"truth\.json: has several images with the file name '1\.png': give"):
        ids.find("1.png")
    with pytest.raises(UsageError, match=r"the images '2\.png' and 'b/2\.png' would both have the id 9: predict one"):
        ids.require_different(["a/1.png", "2.png", "b/2.png"])


def test_categories_are_found_by_name():
    """By hand: a class that the file does not have is refused, with the nearest name."""
    assert find_category_ids(Classes(("cat", "dog"), (0, 1)), TRUTH, FILE) == Classes(("cat", "dog"), (10, 30))
    with pytest.raises(UsageError, match="has no category named 'dogs': did you mean 'dog'"):
        find_category_ids(Classes(("cat", "dogs"), (0, 1)), TRUTH, FILE)


def test_background_needs_no_category():
    """Symptom: ``vertebra predict --annotations`` failed for semantic models, since the file has no background. By
    hand: the background gets the id 0, or an unused id if 0 is taken."""
    classes = Classes(("background", "cat"), (0, 1))
    assert find_category_ids(classes, TRUTH, FILE).ids == (0, 10)
    cats = {"categories": [{"id": 0, "name": "cat"}, {"id": 3, "name": "dog"}]}
    assert find_category_ids(classes, cats, FILE).ids == (4, 0)
    assert find_category_ids(Classes(("cat", "things"), (1, 0), 1), TRUTH, FILE) == Classes(
        ("cat", "things"), (10, 0), 1
    )
