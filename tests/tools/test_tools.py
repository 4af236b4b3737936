"""The command lines as a user types them: what they print and write, and what happens after a mistake."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from vertebra.engine import train
from vertebra.formats import write_json, write_results
from vertebra.inference import open_checkpoint
from vertebra.tools.cli import COMMANDS, LazyCommands, main

from ..helpers.tiny import tiny_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory) -> Path:
    """Return a trained run."""
    output = tmp_path_factory.mktemp("tools") / "run"
    train(tiny_config(shapes, val={"transform": {"short_sides": (64,)}}), output)  # as predict resizes photos
    return output


def test_train_script_and_installed_command_are_equal(shapes, tmp_path):
    """Law: a real process of ``tools/train.py``, with ``--set``, on a user's config, compared with the command."""
    config = tmp_path / "mine.py"
    config.write_text(
        "from pathlib import Path\n"
        "from vertebra.configs import load_config\n"
        f"CONFIG = load_config({str(tmp_path / 'base.json')!r})\n"
    )
    write_json(tmp_path / "base.json", tiny_config(shapes).model_dump(mode="json"))
    command = [
        sys.executable,
        "tools/train.py",
        str(config),
        "--set",
        "recipe.schedule.steps=1",
        "--output",
        str(tmp_path / "run"),
    ]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr
    assert "step 1/1" in result.stderr and "AP50" in result.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["schedule"]["steps"] == 1


def test_eval_command_equals_the_last_evaluation(run, tmp_path, capsys):
    """Law: evaluating a run again changes no digit, with either engine."""
    expected = json.loads((run / "eval.json").read_text())["bbox"]
    for engine in ("hotcoco", "pycocotools"):
        assert main(["eval", str(run), "--engine", engine, "--json", str(tmp_path / "again.json")]) == 0
        found = json.loads((tmp_path / "again.json").read_text())["bbox"]
        assert found == pytest.approx(expected, abs=1e-10, nan_ok=True)
    assert "AP50" in capsys.readouterr().out


def test_results_file_gives_the_scores_of_the_run(run, shapes, tmp_path):
    """docs/faults.md row 136. Law: the results file alone, without a model, gives the same numbers."""
    truth = shapes / "annotations" / "instances_val.json"
    arguments = ["eval", "--results", str(run / "results.json"), "--annotations", str(truth)]
    assert main([*arguments, "--json", str(tmp_path / "eval.json")]) == 0
    found = json.loads((tmp_path / "eval.json").read_text())["bbox"]
    assert found == pytest.approx(json.loads((run / "eval.json").read_text())["bbox"], abs=1e-10)


def test_results_file_of_a_run_is_in_canonical_form(run, tmp_path):
    """Law: read and written again it is the same, byte for byte, one row per line; no other file remains."""
    rows = json.loads((run / "results.json").read_text())
    write_results(tmp_path / "results.json", rows)
    written = (run / "results.json").read_bytes()
    assert written == (tmp_path / "results.json").read_bytes()
    assert written.count(b"\n") == len(rows) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_predict_draws_every_image_and_writes_results(run, shapes, tmp_path, capsys):
    """By hand: a folder and a file: a picture for each image, and COCO results with the ids of images.json."""
    photo = tmp_path / "a photo.png"
    cv2.imwrite(str(photo), np.full((40, 60, 3), 127, np.uint8))
    out = tmp_path / "found"
    assert main(["predict", str(run), str(shapes / "val"), str(photo), "--output", str(out), "--score", "0"]) == 0
    names = [image["file_name"] for image in json.loads((out / "images.json").read_text())]
    assert len(names) == 5 and names[-1] == "a photo.png"
    assert all((out / name).with_suffix(".png").exists() for name in names)
    results = json.loads((out / "results.json").read_text())
    assert {result["image_id"] for result in results} <= {1, 2, 3, 4, 5}
    assert "5 pictures" in capsys.readouterr().out


def test_benchmark_of_predictions_prints_both_sides(run, shapes, capsys):
    """By hand: a line for the plain loop, one for ``predict``, and their ratio."""
    assert main(["benchmark-prediction", str(run), str(shapes / "val"), "--rounds", "1", "--batch-size", "2"]) == 0
    first, second, ratio = capsys.readouterr().out.splitlines()
    assert first.startswith("plain loop: ") and second.startswith("predict: ") and ratio.startswith("ratio ")


def test_predict_writes_a_crop_of_every_object(run, shapes, tmp_path):
    """By hand: each crop is the part of the photo inside the box of a result, in the folder of its class."""
    out = tmp_path / "found"
    assert main(["predict", str(run), str(shapes / "val"), "--output", str(out), "--score", "0", "--save-crops"]) == 0
    photos = {row["id"]: row["file_name"] for row in json.loads((out / "images.json").read_text())}
    results = json.loads((out / "results.json").read_text())
    crops = sorted((out / "crops").rglob("*.png"))
    expected = []
    for image_id, name in photos.items():
        photo = cv2.imread(str(shapes / "val" / name))
        for result in (result for result in results if result["image_id"] == image_id):
            left, top, width, height = result["bbox"]
            bottom, right = math.ceil(round(top + height, 4)), math.ceil(round(left + width, 4))
            if (part := photo[int(top) : bottom, int(left) : right]).size:
                expected.append(part.shape)
    assert sorted(cv2.imread(str(path)).shape for path in crops) == sorted(expected) and len(crops) > 20
    names = open_checkpoint(run).classes["detection"].names
    assert {path.parent.name for path in crops} <= set(names)


def test_drawing_options_of_predict_change_pictures_only(run, shapes, tmp_path):
    """By hand: thick lines cover more of a picture; the results are the same."""
    pictures, results = [], []
    for number, options in enumerate(([], ["--thickness", "5", "--color-by", "object", "--opacity", "1"])):
        out = tmp_path / str(number)
        assert main(["predict", str(run), str(shapes / "val"), "--output", str(out), "--score", "0", *options]) == 0
        pictures.append([cv2.imread(str(path)) for path in sorted(out.glob("*.png"))])
        results.append((out / "results.json").read_bytes())
    assert results[0] == results[1]
    assert all((one != two).any() for one, two in zip(*pictures, strict=True))


def test_predict_in_tiles(run, tmp_path):
    """By hand: a photo of two by two tiles has more detections than fit into one, all over the photo."""
    photo, out = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8), tmp_path / "out"
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    arguments = ["predict", str(run), str(tmp_path / "photo.png"), "--output", str(out), "--tile", "80"]
    assert main([*arguments, "--overlap", "0.1"]) == 0
    results = json.loads((out / "results.json").read_text())
    centers = np.array([[row["bbox"][0] + row["bbox"][2] / 2, row["bbox"][1] + row["bbox"][3] / 2] for row in results])
    assert len({(x > 75, y > 75) for x, y in centers.tolist()}) == 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["backbones", "resnet50*"], ["resnet50d", "23.5", "4.1"]),
        (["necks"], ["fpn", "passthrough"]),
        (["heads"], ["rcnn"]),
        (["configs"], ["quickstart", "faster_rcnn_r50_fpn_1x_coco"]),
        (["models", "fcn*"], ["fcn_r50_voc12aug"]),
    ],
    ids=lambda value: value[0],
)
def test_list_shows_the_registries(arguments, expected, capsys, monkeypatch):
    """By hand: names and facts of backbones, necks, heads, configs and models."""
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["list", *arguments]) == 0
    output = capsys.readouterr().out
    assert all(word in output for word in expected)


def test_every_tool_is_a_command():
    """Law: every script in ``tools/`` is a command of the same name."""
    scripts = {path.stem for path in (ROOT / "tools").glob("*.py") if "run_command(command)" in path.read_text()}
    assert {name.replace("_", "-") for name in scripts} == set(COMMANDS)
    assert {name: command.name for name, command in LazyCommands().items()} == {name: name for name in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_page_with_an_example(command, capsys):
    """By hand: exit code 0; every option has a description, and every default is shown."""
    assert main([command, "--help"]) == 0
    page = capsys.readouterr().out
    assert "Example" in page
    for option in (parameter for parameter in LazyCommands()[command].params if isinstance(parameter, click.Option)):
        assert option.help and option.help.endswith("."), option.name
        has_default = option.default not in (None, False, ()) and "UNSET" not in repr(option.default)
        assert not has_default or str(option.default) in page, option.name


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "there is no command 'trian': did you mean 'train'?"),
        (["train", "quikstart"], 2, "there is no config named 'quikstart': did you mean 'quickstart'?"),
        (
            ["train", "quickstart", "--set", "recipe.optimizer.lrr=1"],
            2,
            "no field 'lrr' in recipe.optimizer: did",
        ),
        (["train", "quickstart", "--set", "recipe.optimizer.lr=fast"], 2, "lr: input should be a valid number"),
        (["train", "quickstart", "--set", "recipe.schedule.steps"], 2, "--set needs KEY=VALUE"),
        (["train", "quickstart", "--set", "recipe.seed.x=1"], 2, "seed has no fields"),
        (["train", "quickstart", "--set", "model.backbone.name=resnet5"], 2, "there is no backbone named 'resnet5'"),
        (["train", "faster_rcnn_r50_fpn_1x_coco"], 3, "missing-file: data/coco/annotations/instances_train2017.json"),
        (["eval", "nowhere"], 4, "checkpoint: nowhere: there is no checkpoint here"),
        (["predict", "RUN", "nowhere.jpg", "--output", "OUT"], 2, "nowhere.jpg: there is no such image or folder"),
        (["train"], 2, "usage: give exactly one of CONFIG and --data (see vertebra train --help)"),
        (["train", "quickstart", "--rezume"], 2, "--rezume"),
        (["train", "quickstart", "--device", "tpu"], 2, "usage: Invalid value for '--device': 'tpu' is not one of"),
        (["list", "colors"], 2, "'colors' is not one of"),
        (["eval"], 2, "usage: give MODEL, --data or --annotations (see vertebra eval --help)"),
        (["eval", "RUN", "--task", "segm"], 2, "usage: --task needs --annotations"),
        (["eval", "RUN", "--results", "x.json", "--device", "cpu"], 2, "usage: --device has no effect with --results"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistake_is_one_line_with_an_exit_code(arguments, code, message, run, tmp_path, capsys, monkeypatch):
    """By hand: the line says what is wrong and what to do; no traceback."""
    monkeypatch.chdir(tmp_path)
    arguments = [{"RUN": str(run), "OUT": str(tmp_path)}.get(word, word) for word in arguments]
    assert main(arguments) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and "Traceback" not in "\n".join(lines)
    assert message in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--debug", "eval", "nowhere"], 4),
        (["eval", "nowhere", "--debug"], 4),
        (["eval", "--debug", "--no-such-option"], 2),
    ],
)
def test_debug_adds_the_traceback(arguments, code, capsys):
    """By hand: at any position of the option."""
    assert main(arguments) == code
    assert "Traceback" in capsys.readouterr().err
