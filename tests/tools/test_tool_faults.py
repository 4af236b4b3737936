"""Errors of the machine and invalid settings on the command line: one line and an exit code."""

import json
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from vertebra.configs import load_config
from vertebra.data import CocoConfig
from vertebra.engine import DistributedContext, ExperimentConfig, override, train
from vertebra.formats import write_json
from vertebra.inference import open_checkpoint, write_image
from vertebra.structures import MemoryFullError, UsageError
from vertebra.tools.cli import main, run_command

from ..data.test_image_folder import write_folder
from ..engine.test_resume import folder_config
from ..helpers.tiny import tiny_classifier, tiny_config
from ..helpers.tiny_coco_file import tiny_content, write_tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a trained classifier."""
    output = tmp_path_factory.mktemp("faults") / "run"
    train(tiny_classifier(), output)
    return output


def allocate_on_host() -> None:
    torch.empty(10**15)


def allocate_on_device() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand more lines")


@pytest.mark.parametrize("tool", [allocate_on_host, allocate_on_device])
def test_out_of_memory_has_its_exit_code(tool, capsys):
    """docs/faults.md row 120. By hand: exit code 7 in any command, here from torch's own errors."""
    assert run_command(click.Command("tool", callback=tool), []) == 7
    assert capsys.readouterr().err.startswith("error: out-of-memory: ")


def test_unexpected_error_shows_its_traceback():
    """Control: an unexpected error is not hidden."""

    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_command(click.Command("tool", callback=fail), [])


def test_out_of_memory_names_the_images(tmp_path, monkeypatch):
    """docs/faults.md row 120. By hand: also if the state of the optimizer does not fit."""

    def run_out_of_memory(optimizer):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", run_out_of_memory)
    with pytest.raises(MemoryFullError, match="step 1 ran out of memory with images of 32x32, 32x32"):
        train(tiny_classifier(), tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.optimizer.momentum=-1", "momentum: input should be greater than or equal to 0, got -1"),
        ("recipe.optimizer.weight_decay=-1", "weight_decay: input should be greater than or equal to 0, got -1"),
        (
            "recipe.optimizer.norm_weight_decay=-1",
            "norm_weight_decay: input should be greater than or equal to 0, got -1",
        ),
        ("recipe.optimizer.lr=Infinity", "lr: input should be a finite number, got inf"),
        ("recipe.optimizer.lr=NaN", "lr: input should be a finite number, got nan"),
        ("recipe.schedule.gamma=-1", "gamma: input should be greater than or equal to 0, got -1"),
        ("val.transform.short_sides=[0]", "short_sides.0: input should be greater than 0, got 0"),
    ],
)
def test_invalid_setting_is_refused(setting, message):
    """By hand: exit code 2, from the config alone."""
    config = load_config("faster_rcnn_r50_fpn_1x_coco" if "momentum" in setting else "quickstart")
    with pytest.raises(UsageError, match=message):
        override(config, [setting])


def test_config_that_cannot_be_built_is_one_line(tmp_path, capsys):
    """By hand: exit code 2 with the part's own message, since only the part knows which levels there are."""
    config = tmp_path / "tiny.json"
    write_json(config, tiny_classifier().model_dump(mode="json"))
    arguments = ["train", str(config), "--set", 'model.head.levels=["c9"]', "--output", str(tmp_path / "run")]
    assert main([*arguments, "--device", "cpu"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: usage: the config cannot be built: ") and "c9" in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_unavailable_device_is_refused(run, capsys):
    """By hand: exit code 2."""
    assert main(["eval", str(run), "--device", "cuda"]) == 2
    assert "torch finds no CUDA device here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "RUN", "--json", "FILE/x.json"], "FILE: "),
        (["eval", "RUN", "--json", "FOLDER"], "FOLDER: this is a folder"),
        (["predict", "RUN", "FOLDER", "--output", "FILE"], "FILE: "),
        (["predict", "RUN", "FOLDER", "--output", "FILE/x"], "FILE/x: "),
        (["export-backbone", "RUN", "FILE/x"], "FILE: "),
        (["export-backbone", "RUN", "FOLDER"], "FOLDER: this is a folder"),
        (["make-shapes", "FILE/x"], "FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_unwritable_output_is_refused_before_the_work(arguments, message, run, tmp_path, capsys, monkeypatch):
    """By hand: exit code 2 naming the path, and no model was built."""
    monkeypatch.setattr("vertebra.inference.checkpoint.build_model", None)
    (tmp_path / "FILE").write_text("")
    (tmp_path / "FOLDER").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main([str(run) if word == "RUN" else word for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: usage: ") and message in error and error.count("\n") == 1


def test_setting_that_evaluation_ignores_is_refused(run, capsys):
    """By hand: exit code 2, since the setting would have no effect without the user noticing."""
    for setting in ("model.head.top=1", "recipe.optimizer.lr=1", "train.transform.size=64"):
        assert main(["eval", str(run), "--set", setting]) == 2
        assert f"--set {setting.split('=')[0]} has no effect on this evaluation" in capsys.readouterr().err
    assert main(["eval", str(run), "--set", "val.transform.size=16", "--set", "run.loader.workers=0"]) == 0


def test_semantic_inference_settings_are_refused_for_other_heads(run, capsys):
    """By hand: exit code 2: windows and scales have no effect on a classifier or a detector."""
    assert main(["eval", str(run), "--set", "evaluation.inference.window=64"]) == 2
    assert "a classification head cannot predict in windows or at several scales" in capsys.readouterr().err
    assert main(["eval", str(run), "--set", "evaluation.inference.scales=[1]"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "no-such-config"],
        ["train", "quickstart", "--set", "no.such=1"],
        ["train", "quickstart", "--device", "cuda"],
        ["eval", "RUN", "--device", "cuda"],
        ["eval", "RUN", "--json", "."],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("rank", "count", "local_rank"),
    [("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")],
    ids=["torchrun", "srun"],
)
def test_error_before_distributed_init_is_reported_once(arguments, rank, count, local_rank, run, capsys, monkeypatch):
    """By hand: of the two processes on the second machine the first reports it; all end with exit code 2."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[1-2]")
    monkeypatch.setenv(count, "4")
    for place in (0, 1):
        monkeypatch.setenv(rank, str(2 + place))
        monkeypatch.setenv(local_rank, str(place))
        assert main([str(run) if word == "RUN" else word for word in arguments]) == 2
        assert capsys.readouterr().err.count("error: ") == 1 - place


def test_error_after_distributed_init_reaches_all_processes(run, monkeypatch):
    """By hand: an error while opening data, and one about the heads' task."""
    heard = []
    monkeypatch.setattr(DistributedContext, "all_gather", lambda self, value: heard.append(str(value)) or [value])
    assert main(["eval", str(run), "--set", "val.dataset.count=0"]) == 2
    assert main(["eval", str(run), "--set", "evaluation.inference.window=64"]) == 2
    assert "val.dataset.count" in heard[0] and "cannot predict in windows or at several scales" in heard[1]


@pytest.mark.parametrize("score", ["nan", "7", "-0.1", "high", "inf"])
def test_invalid_score_option_is_refused(score, capsys):
    """By hand: exit code 2, naming the option."""
    assert main(["predict", "run", "photos", "--output", "out", "--score", score]) == 2
    assert f"Invalid value for '--score': '{score}' is not a number from 0 to 1" in capsys.readouterr().err


def test_path_setting_can_be_a_number(tmp_path, capsys):
    """By hand: ``2017`` is a path in a field for paths: exit code 3, since there is no such folder."""
    write_json(tmp_path / "mine.json", folder_config(tmp_path).model_dump(mode="json"))
    arguments = ["train", str(tmp_path / "mine.json"), "--set", "train.dataset.root=2017"]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 3
    assert "2017: the folder cannot be listed" in capsys.readouterr().err


def coco_config(train_data: CocoConfig, val_data: CocoConfig) -> ExperimentConfig:
    """Return a short training of a tiny Faster R-CNN on COCO files."""
    return tiny_config(
        Path(),
        train={"dataset": train_data},
        val={"dataset": val_data},
        recipe={"schedule": {"steps": 2, "warmup_steps": 0}},
        evaluation={"every": 1, "patience": 1},
    )


def test_training_on_nothing_is_refused(tmp_path, capsys):
    """docs/faults.md row 179. By hand: every object is a crowd; the report is written beside the message."""
    content = tiny_content()
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    config = coco_config(write_tiny(tmp_path / "train", content), write_tiny(tmp_path / "val"))
    write_json(tmp_path / "config.json", config.model_dump(mode="json"))
    arguments = ["train", str(tmp_path / "config.json"), "--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main(arguments) == 3
    assert "error: nothing-to-learn: " in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "data_report.json").read_text())["noted"]["crowd"]["count"] == 6


def test_validation_data_without_objects(tmp_path, capsys):
    """docs/faults.md row 182. By hand: the scores are null, patience does not end the run, and the best checkpoint is
    the newest."""
    config = coco_config(
        write_tiny(tmp_path / "train"), write_tiny(tmp_path / "val", tiny_content() | {"annotations": []})
    )
    train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["bbox"]["AP"] is None
    assert (
        open_checkpoint(tmp_path / "run").step == open_checkpoint(tmp_path / "run" / "checkpoints" / "best").step == 2
    )
    assert "warning: there are no objects to score: the scores are null" in capsys.readouterr().err


def test_predict_does_not_overwrite_its_images(run, tmp_path, capsys):
    """docs/faults.md row 187. By hand: exit code 2 before anything is drawn; the images are unchanged."""
    photos = write_folder(tmp_path / "photos")
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    (tmp_path / "same").symlink_to(photos)
    for output in (photos, tmp_path / "same"):
        for options in ([], ["--resume"]):
            assert main(["predict", str(run), str(photos), "--output", str(output), *options]) == 2
    errors = capsys.readouterr().err
    predict = ["predict", str(run), "--output", str(tmp_path / "out"), "--device", "cpu", "--resume"]
    assert main([*predict, str(photos)]) == 0
    mine = shutil.copy(photos / "cat" / "b.png", tmp_path / "out" / "mine.png")
    assert main([*predict, str(mine)]) == 2
    assert "mine.png: this file is in the output folder: choose another" in capsys.readouterr().err
    assert Path(mine).read_bytes() == (photos / "cat" / "b.png").read_bytes()
    assert "the output folder is not empty: continue its prediction with --resume, or choose another" in errors
    assert "this folder has files, but no prediction that could be resumed" in errors
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


def test_options_that_a_model_cannot_follow_are_refused(run, tmp_path, capsys):
    """docs/faults.md row 192. By hand: exit code 2: crops and tiles with a classifier, an overlap without tiles or of a
    whole tile, and a font that is none."""
    photos = write_folder(tmp_path / "photos")
    command = ["predict", str(run), str(photos), "--output", str(tmp_path / "out")]
    for options, message in (
        (["--save-crops"], "the model is not a detector: leave out --save-crops"),
        (["--tile", "64"], "a model for classification cannot predict an image in tiles"),
        (["--overlap", "0.5"], "--overlap is the overlap of tiles, but there are none: add --tile"),
        (["--tile", "64", "--overlap", "1"], "tiles that overlap completely"),
        (["--opacity", "2"], "'2' is not a number from 0 to 1"),
        (["--font", str(photos / "ant" / "1.png")], "1.png: this is not a font file"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err


def test_detection_inference_settings_are_refused_for_other_heads(run, capsys):
    """docs/faults.md row 192. By hand: exit code 2; the default has no effect and is accepted."""
    assert main(["eval", str(run), "--set", "evaluation.detection.flip=true"]) == 2
    assert "the model's task is classification, and evaluation.detection is for detectors" in capsys.readouterr().err
    assert main(["eval", str(run), "--set", "evaluation.detection.flip=false"]) == 0


@pytest.mark.parametrize("name", ["picture.xyz", "picture"])
def test_unknown_image_format_is_refused(name, tmp_path):
    """By hand: ValueError naming the suffix; nothing is written."""
    with pytest.raises(ValueError, match=f"cannot encode {name}: .* is not an image format"):
        write_image(tmp_path / name, np.zeros((4, 6, 3), np.uint8))
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("arguments", [["--debug"], ["--debug", "--help"], ["--help", "--debug"]])
def test_debug_alone_shows_the_help(arguments, capsys):
    """By hand: exit code 0."""
    assert main(arguments) == 0
    assert "Usage: vertebra" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--size", "800"], ["--size", "0x10"], ["--rounds", "0"], ["--batch", "-1"]])
def test_benchmark_without_images_or_rounds_is_refused(wrong, capsys):
    """By hand: exit code 2, naming the option."""
    assert main(["benchmark", *wrong]) == 2
    assert f"Invalid value for '{wrong[0]}'" in capsys.readouterr().err
