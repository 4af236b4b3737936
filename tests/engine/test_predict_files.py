"""``vertebra predict``: ids of a COCO file or of no file, names of pictures, class names, images that fail."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from unittest.mock import Mock

import cv2
import pytest
from filelock import FileLock

from vertebra.engine import ClassificationTask, DetectionTask, MultiTask, Task, train
from vertebra.engine.prediction.class_names import add_class_names, remove_class_names
from vertebra.engine.prediction.ids import ImageIds, find_category_ids
from vertebra.engine.prediction.output_folder import RESULTS
from vertebra.engine.tasks import TaskOfHead
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


def read_lines(path: Path) -> list[dict]:
    """Return the objects in a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_files_of_one_name_get_different_pictures(run, shapes, tmp_path):
    """docs/faults.md row 187. By hand: files that differ in their suffix or folder; the names do not change when the
    prediction is continued with more files."""
    photo, out = next((shapes / "val").iterdir()), tmp_path / "out"
    for name in ("a/x.png", "a/x.jpg", "a/x.bmp", "b/x.png", "b/X.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), cv2.imread(str(photo)))
    predict = ["predict", str(run), "--output", str(out), "--device", "cpu", "--resume"]
    assert main([*predict, str(tmp_path / "a"), str(tmp_path / "b" / "x.png")]) == 0
    assert main([*predict, str(tmp_path / "b"), str(tmp_path / "a")]) == 0
    pictures = {
        Path(line["source"]).relative_to(tmp_path).as_posix(): line["picture"] for line in read_lines(out / RESULTS)
    }
    digits = {name: hashlib.sha256(str(tmp_path / name).encode()).hexdigest()[:8] for name in pictures}
    assert pictures == {
        "a/x.bmp": "x.bmp.png",
        "a/x.jpg": "x.jpg",
        "a/x.png": "x.png",
        "b/x.png": f"x-{digits['b/x.png']}.png",
        "b/X.PNG": f"X-{digits['b/X.PNG']}.PNG",
    }
    names = {image["file_name"] for image in json.loads((out / "images.json").read_text())}
    assert names == {*pictures.values(), "x.bmp"} - {"x.bmp.png"}
    sizes = {name: cv2.imread(str(out / picture)).shape for name, picture in pictures.items()}
    assert len(set(sizes.values())) == 1


def test_results_lines_have_class_names(run, shapes, tmp_path):
    """Law: the lines are the rows of the results file with the name of each category; sizes are those of the images."""
    out = tmp_path / "out"
    assert main(["predict", str(run), str(shapes / "val"), "--output", str(out), "--device", "cpu"]) == 0
    truth = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    names = {category["id"]: category["name"] for category in truth["categories"]}
    lines = read_lines(out / RESULTS)
    rows = [row for line in lines for row in line["rows"]]
    assert [row.pop("class_name") for row in rows] == [names[row["category_id"]] for row in rows]
    assert rows == json.loads((out / "results.json").read_text()) and rows
    sizes = {image["file_name"]: (image["height"], image["width"]) for image in truth["images"]}
    assert {line["file_name"]: (line["height"], line["width"]) for line in lines} == sizes
    assert json.loads((out / "prediction.json").read_text())["class_names"] == {"detection": list(names.values())}


def test_class_names_are_added_to_every_type_of_row():
    """By hand: labels of a classifier, segments of a panoptic row, rows of one of several heads; the names are removed
    again, and a custom task without classes is left alone."""
    classes = Classes(("cat", "dog"), (7, 9))
    task = MultiTask(
        {"boxes": TaskOfHead(DetectionTask(classes), "detection"), "own": TaskOfHead(Mock(spec=Task), "detection")}
    )
    rows = [{"head": "boxes", "category_id": 9, "score": 0.5}, {"head": "own", "category_id": 9}]
    assert add_class_names(task, rows) == [rows[0] | {"class_name": "dog"}, rows[1]]
    (labels,) = add_class_names(ClassificationTask(classes), [{"image_id": 1, "labels": [1, 0], "scores": [0.9, 0.1]}])
    assert labels["class_names"] == ["dog", "cat"]
    row = {"segments_info": [{"id": 1, "category_id": 7}], "size": [4, 6]}
    (panoptic,) = add_class_names(DetectionTask(classes), [row])
    assert panoptic["segments_info"][0]["class_name"] == "cat" and remove_class_names(panoptic) == row


def test_option_without_pictures_writes_results_only(run, shapes, tmp_path, capsys):
    """By hand: no image file in the output folder."""
    out = tmp_path / "out"
    predict = ["predict", str(run), str(shapes / "val"), "--output", str(out), "--device", "cpu"]
    assert main([*predict, "--no-pictures", "--batch-size", "3", "--workers", "2"]) == 0
    assert {path.suffix for path in out.iterdir()} == {".json", ".jsonl", ".lock"}
    assert "4 images and results.json are in" in capsys.readouterr().out


def test_prediction_with_numbers_that_are_not_finite_is_listed(run, shapes, tmp_path, monkeypatch, capsys):
    """docs/faults.md row 186. By hand: the image is listed with the reason, and has no line in the results."""
    rows = DetectionTask.rows
    bad = [2]

    def with_nan(task, prediction, image_id):
        found = rows(task, prediction, image_id)
        return [row | {"score": math.nan} for row in found] if image_id in bad else found

    monkeypatch.setattr(DetectionTask, "rows", with_nan)
    out = tmp_path / "out"
    predict = ["predict", str(run), str(shapes / "val"), "--output", str(out), "--device", "cpu", "--resume"]
    assert main(predict) == 3
    assert "failed.jsonl: 1 of 4 files could not be predicted" in capsys.readouterr().err
    (failure,) = read_lines(out / "failed.jsonl")
    assert failure["reason"].startswith("non-finite-result: a score, box or embedding is NaN")
    assert [line["image_id"] for line in read_lines(out / RESULTS)] == [1, 3, 4]
    bad.clear()
    assert main(predict) == 0
    assert [line["image_id"] for line in read_lines(out / RESULTS)] == [1, 3, 4, 5]
    assert read_lines(out / "failed.jsonl") == []


def test_two_images_with_one_id_are_not_both_predicted(run, shapes, tmp_path, capsys):
    """docs/faults.md row 186. By hand: an image that is resumed under the id of another one, of the same file name, is
    listed as failed; before the start it is refused."""
    photo = sorted((shapes / "val").iterdir())[0]
    (tmp_path / "copy").mkdir()
    shutil.copy(photo, tmp_path / "copy")
    out, annotations = tmp_path / "out", shapes / "annotations" / "instances_val.json"
    predict = [
        "predict",
        str(run),
        "--annotations",
        str(annotations),
        "--output",
        str(out),
        "--device",
        "cpu",
        "--resume",
    ]
    assert main([*predict, str(photo), str(tmp_path / "copy")]) == 2
    assert "would both have the id" in capsys.readouterr().err
    assert main([*predict, str(photo)]) == 0
    assert main([*predict, str(tmp_path / "copy")]) == 3
    assert "another image has the id" in read_lines(out / "failed.jsonl")[0]["reason"]
    assert len(json.loads((out / "images.json").read_text())) == 1


def test_two_processes_do_not_write_to_one_folder(run, shapes, tmp_path, capsys):
    """docs/faults.md row 187. By hand: exit code 2 while another process holds the lock."""
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".predict.lock"):
        assert main(["predict", str(run), str(shapes / "val"), "--output", str(out), "--device", "cpu"]) == 2
    assert "another process is predicting into this folder" in capsys.readouterr().err
