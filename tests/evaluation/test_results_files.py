"""Results files of every task, scored without a model: the ground truth as its own result is perfect, and bad rows
are named."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hotcoco import mask as rle

from vertebra.data import (
    CocoConfig,
    Dataset,
    DatasetConfig,
    ImageFolderConfig,
    VocConfig,
    VocSegmentationConfig,
    build_dataset,
)
from vertebra.engine import SplitConfig
from vertebra.evaluation import to_semantic_results
from vertebra.formats import write_json, write_results
from vertebra.tools.cli import main

from ..data.test_image_folder import write_folder
from ..helpers.tiny import tiny_config


def rows_of_objects(dataset: Dataset) -> list[dict]:
    """Return the objects, except crowds, as results rows, with masks if the data set has masks."""
    truth = dataset.ground_truth()
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    rows = []
    for each in truth["annotations"]:
        row = {"image_id": each["image_id"], "category_id": each["category_id"], "score": 0.5, "bbox": each["bbox"]}
        if "segmentation" in each:
            encoded = rle.merge(rle.frPyObjects(each["segmentation"], *sizes[each["image_id"]]))
            row["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode()}
        rows += [] if each["iscrowd"] else [row]
    return rows


def rows_of_maps(dataset: Dataset) -> list[dict]:
    """Return the semantic maps as results rows, with ignored pixels as background."""
    return [
        row
        for image_id, labels in dataset.ground_truth().items()
        for row in to_semantic_results(torch.from_numpy(np.where(labels == 255, 0, labels)), image_id, range(9))
    ]


def rows_of_labels(dataset: Dataset) -> list[dict]:
    """Return results rows with the label of each image first."""
    return [
        {"image_id": image_id, "labels": [label, (label + 1) % 3, (label + 2) % 3], "scores": [0.6, 0.3, 0.1]}
        for image_id, label in dataset.ground_truth().items()
    ]


def coco(folder: Path) -> DatasetConfig:
    return CocoConfig(
        images=folder / "shapes/val", annotations=folder / "shapes/annotations/instances_val.json", masks=True
    )


def voc(folder: Path) -> DatasetConfig:
    return VocConfig(root=folder / "voc", splits=("val",), metrics=("voc12", "coco"))


def maps(folder: Path) -> DatasetConfig:
    return VocSegmentationConfig(root=folder / "voc", splits=("val",), background=True)


def classes(folder: Path) -> DatasetConfig:
    return ImageFolderConfig(root=folder / "photos")


KINDS: dict[str, tuple[Callable[[Path], DatasetConfig], Callable[[Dataset], list[dict]], set[tuple[str, str]]]] = {
    "coco": (coco, rows_of_objects, {("bbox", "AP"), ("segm", "AP"), ("boundary", "AP")}),
    "voc": (voc, rows_of_objects, {("voc12", "AP50"), ("bbox", "AP")}),
    "maps": (maps, rows_of_maps, {("semantic", "mIoU"), ("semantic", "pixel_accuracy")}),
    "classes": (classes, rows_of_labels, {("classification", "top1"), ("classification", "top5")}),
}


@pytest.fixture(scope="module")
def folder(shapes, tmp_path_factory) -> Path:
    """Return a folder with a config and the ground truth as results for each kind of data."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "shapes").symlink_to(shapes)
    (folder / "voc").symlink_to(shapes.parent / "voc")
    write_folder(folder / "photos")
    for kind, (make, rows_of, _) in KINDS.items():
        data = make(folder)
        config = tiny_config(shapes, val=SplitConfig(dataset=data))
        write_json(folder / f"{kind}.json", config.model_dump(mode="json"))
        write_results(folder / f"{kind}-results.json", rows_of(build_dataset(data)))
    return folder


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """Let every test fail that builds a model, which scoring a results file does not need."""
    monkeypatch.setattr("vertebra.inference.checkpoint.build_model", None)


def score(folder: Path, kind: str, rows: list[dict], output: Path) -> dict:
    """Return the scores of results rows."""
    write_json(output / "rows.json", rows)
    arguments = ["--data", str(folder / f"{kind}.json"), "--results", str(output / "rows.json")]
    assert main(["eval", *arguments, "--json", str(output / "scores.json")]) == 0
    return json.loads((output / "scores.json").read_text())


def rows_in(folder: Path, kind: str) -> list[dict]:
    return json.loads((folder / f"{kind}-results.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_ground_truth_as_results_scores_one(kind, folder, tmp_path):
    """By hand: the main number of every metric of the data set is 1."""
    make, _, expected = KINDS[kind]
    scores = score(folder, kind, rows_in(folder, kind), tmp_path)
    counted = {"objects"} if kind in ("coco", "voc") else set()
    assert set(scores) == {name for name, _ in expected} | {"per_class", "images", "results"} | counted
    assert [scores[name][metric] for name, metric in expected] == pytest.approx([1] * len(expected))
    assert scores["images"] == len(build_dataset(make(folder)))


def test_metrics_follow_the_fields_of_the_rows(folder, tmp_path):
    """By hand: boxes alone, as of a detector without masks; masks alone, as in COCO's own results; always boxes for
    data without masks; everything, with scores of 0, for no rows at all."""
    rows = rows_in(folder, "coco")
    kinds = {"bbox", "segm", "boundary"}
    boxes = [{key: row[key] for key in row if key != "segmentation"} for row in rows]
    masks = [{key: row[key] for key in row if key != "bbox"} for row in rows]
    assert kinds & set(score(folder, "coco", boxes, tmp_path)) == {"bbox"}
    assert kinds & set(score(folder, "coco", masks, tmp_path)) == {"segm", "boundary"}
    nothing = score(folder, "coco", [], tmp_path)
    assert [nothing[kind]["AP"] for kind in sorted(kinds)] == [0, 0, 0]
    both = [row | {"segmentation": masks[0]["segmentation"]} for row in rows_in(folder, "voc")]
    assert kinds & set(score(folder, "voc", both, tmp_path)) == {"bbox"}


OTHER_SIZE = {"size": [2, 2], "counts": "04"}
# kind of data, changes of the second row, case, pattern of the message
SPOILT = [
    ("coco", {"segmentation": ...}, "no-shape", "entry 1 has no segmentation to score"),
    ("coco", {"bbox": ...}, "no-shape", "entry 1 has no bbox to score"),
    ("coco", {"segmentation": OTHER_SIZE}, "no-shape", r"entry 1 .*\[2, 2\] in an image of size \[\d+, \d+\]"),
    ("coco", {"segmentation": OTHER_SIZE | {"counts": "PPP"}}, "bad-mask", "entry 1 .*end within a number"),
    ("voc", {"image_id": "nowhere"}, "unknown-image", "image_id=nowhere: entry 1 is about image 'nowhere'"),
    ("voc", {"image_id": 1}, "image-id-type", "entry 1 .*type mismatch: int, where the ground truth has str"),
    ("voc", {"category_id": 99}, "unknown-category", "entry 1 is about category 99"),
    ("voc", {"score": float("nan")}, "bad-score", "entry 1 has the score nan"),
    ("voc", {"bbox": [5, 5, -1, 2]}, "bad-box", "entry 1 .*negative"),
    ("maps", {"image_id": "nowhere"}, "unknown-image", "entry 1 is about image 'nowhere'"),
    ("maps", {"category_id": 9}, "unknown-category", "entry 1 is about category 9"),
    ("maps", {"segmentation": OTHER_SIZE}, "bad-mask", r"entry 1 .* is 2x2 .* in an image of \d+x\d+"),
    ("maps", {"segmentation": ...}, "bad-results", "entry 1 has no segmentation"),
    ("classes", {"image_id": "nowhere"}, "unknown-image", "entry 1 is about image 'nowhere'"),
    ("classes", {"labels": [0, 1, 3]}, "bad-label", r"entry 1 .*not distinct in 0\.\.2"),
    ("classes", {"scores": [0.5]}, "bad-score", "entry 1 .*one per label"),
]


def assert_refused(folder: Path, kind: str, content: str, message: str, capsys) -> None:
    """Check that a file with this content ends the command with exit code 3 and one line; PATH in the message is the
    file."""
    path = folder / "spoilt.json"
    path.write_text(content)
    assert main(["eval", "--data", str(folder / f"{kind}.json"), "--results", str(path)]) == 3
    error = capsys.readouterr().err
    assert re.match(f"error: {message.replace('PATH', str(path))}", error) and error.count("\n") == 1


@pytest.mark.parametrize(("kind", "change", "case", "message"), SPOILT)
def test_bad_row_is_named_with_its_file(kind, change, case, message, folder, capsys):
    """docs/faults.md rows 49-53, 126-129. By hand: exit code 3, one line."""
    rows = rows_in(folder, kind)
    rows[1] = {key: value for key, value in (rows[1] | change).items() if value is not ...}
    assert_refused(folder, kind, json.dumps(rows), f"{case}: PATH: .*{message}", capsys)


def test_overlapping_semantic_rows_are_refused(folder, capsys):
    """By hand: two classes on the same pixels; the second row is named."""
    rows = rows_in(folder, "maps")
    rows[1]["segmentation"] = rows[0]["segmentation"]
    message = r"overlapping-classes: PATH: image_id=\w+: entry 1 covers \d+ pixels that another class covers"
    assert_refused(folder, "maps", json.dumps(rows), message, capsys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", ["{}", "[5]", "[{}]", ""])
def test_results_file_without_rows_is_refused(kind, content, folder, capsys):
    """By hand: exit code 3, one line with the path."""
    assert_refused(folder, kind, content, "(bad-results|bad-json): PATH: ", capsys)


def test_bad_annotation_names_the_annotation_file(folder, tmp_path, capsys):
    """By hand: the results row is correct, and the annotation that it is compared with is not."""
    truth = json.loads((folder / "shapes/annotations/instances_val.json").read_text())
    truth["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    (tmp_path / "annotations.json").write_text(json.dumps(truth))
    files = ["--annotations", str(tmp_path / "annotations.json"), "--results", str(folder / "coco-results.json")]
    assert main(["eval", *files, "--task", "bbox"]) == 0
    assert main(["eval", *files, "--task", "segm"]) == 3
    error = capsys.readouterr().err
    assert re.match(
        rf"error: bad-polygon: {tmp_path}/annotations.json: image_id=\d+: ann_id=\d+: .*of 4 numbers", error
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give MODEL, --data or --annotations"),
        (["--results", "r.json"], "give MODEL, --data or --annotations"),
        (["run", "--data", "quickstart", "--results", "r.json"], "--results needs one ground truth"),
        (["run", "--annotations", "a.json", "--results", "r.json"], "leave out MODEL and --data"),
        (["--data", "quickstart"], "are ground truth to score: add MODEL or --results"),
        (["--annotations", "a.json"], "are ground truth to score: add MODEL or --results"),
        (["run", "--results", "r.json", "--like", "torchvision/fcos_resnet50_fpn"], "it has no effect here"),
        (["run", "--results", "r.json", "--task", "segm"], "--task needs --annotations"),
        (["run", "--task", "segm"], "--task needs --annotations"),
        (
            ["run", "--results", "r.json", "--device", "cpu"],
            "--device has no effect with --results, which needs no model",
        ),
        (
            ["--annotations", "a.json", "--results", "r.json", "--bad-data", "skip"],
            "--bad-data has no effect with --annotations",
        ),
        (
            ["--annotations", "a.json", "--results", "r.json", "--task", "boundary", "--engine", "hotcoco"],
            "--engine has no effect with --task boundary",
        ),
        (
            ["--annotations", "a.json", "--results", "r.json", "--set", "val.dataset.masks=true"],
            "--set has no effect with --annotations",
        ),
    ],
    ids=" ".join,
)
def test_contradictory_options_are_refused(arguments, message, capsys):
    """By hand: exit code 2 with the reason."""
    assert main(["eval", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_settings_of_val_only_are_accepted(folder, capsys):
    """By hand: settings of ``val`` change the data; settings that only a model would use are refused with exit code
    2."""
    files = ["--data", str(folder / "coco.json"), "--results", str(folder / "coco-results.json")]
    assert main(["eval", *files, "--set", "val.dataset.masks=false"]) == 0
    assert "segm" not in capsys.readouterr().out
    assert main(["eval", *files, "--set", "evaluation.batch_size=2"]) == 2
    assert "--set evaluation.batch_size has no effect on this evaluation: it only reads val" in capsys.readouterr().err
    assert main(["eval", *files, "--engine", "pycocotools"]) == 0
