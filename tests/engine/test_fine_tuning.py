"""Fine-tuning on data given by their path, from the command line and from Python, with a tiny trained model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vertebra
from vertebra.configs import load_config
from vertebra.data import VocSegmentationConfig
from vertebra.engine import train
from vertebra.formats import write_json
from vertebra.tools.cli import main

from ..helpers.runs import equal_tensors, newest_weights, read_metrics, start_process
from ..helpers.tiny import tiny_classifier, tiny_config
from ..helpers.tiny_coco_file import tiny_content, write_tiny
from ..helpers.tiny_voc_folder import write_voc

SHORT = ("--set", "recipe.schedule.steps=4", "--set", "recipe.batch_size=2", "--set", "run.loader.workers=0")


@pytest.fixture(scope="module")
def start(shapes, tmp_path_factory) -> Path:
    """Return a run of a tiny detector of all shapes."""
    output = tmp_path_factory.mktemp("fine_tuning") / "start"
    train(tiny_config(shapes), output, device="cpu")
    return output


@pytest.fixture(scope="module")
def mine(shapes, tmp_path_factory) -> Path:
    """Return a folder with ``train.json`` and ``val.json``, their images, and two of the shapes and a new class."""
    folder = tmp_path_factory.mktemp("mine")
    for split in ("train", "val"):
        content = json.loads((shapes / "annotations" / f"instances_{split}.json").read_text())
        for category, name in zip(content["categories"], ("circle", "square", "newt"), strict=False):
            category["name"] = name
        kept = {category["id"] for category in content["categories"][:3]}
        content["categories"] = content["categories"][:3]
        content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] in kept]
        write_json(folder / f"{split}.json", content)
        shutil.copytree(shapes / split, folder / split)
    return folder


def tune(mine: Path, start: Path, output: Path, *arguments: str) -> int:
    """Run ``vertebra train`` on the data, starting from the run; return its exit code."""
    data = ["--data", str(mine / "train.json"), "--val", str(mine / "val.json"), "--weights", str(start)]
    return main(["train", *data, "--output", str(output), "--device", "cpu", *SHORT, *arguments])


def test_one_command_fine_tunes_a_model(mine, start, tmp_path, capsys):
    """Learning: the loss falls; classes are mapped by name, and each choice is printed with its reason."""
    steps = ("--set", "recipe.schedule.steps=60", "--set", "recipe.optimizer.lr=0.1", "--set", "run.log_every=10")
    data = ["--data", str(mine / "train.json"), "--val", str(mine / "val.json"), "--weights", str(start)]
    output = tmp_path / "run"
    assert main(["train", *data, "--output", str(output), "--device", "cpu", *SHORT[2:], *steps]) == 0
    losses = [record["loss"] for record in read_metrics(output) if record["group"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    printed = capsys.readouterr().err
    assert "recipe.schedule.steps" in printed and "90000 -> 60, set by you" in printed
    assert "is a COCO file" in printed and "8 training and 4 validation images" in printed
    assert "with rows per class: detection: circle, square mapped by name; newt initialized; " in printed
    assert f"the recipe is in {output / 'recipe.py'}" in printed
    assert json.loads((output / "eval.json").read_text())["bbox"]["AP"] is not None


def test_recipe_file_gives_the_same_training(mine, start, tmp_path, capsys):
    """Law: trained from ``recipe.py``, the resolved config is equal, and so is every bit of the weights."""
    assert tune(mine, start, tmp_path / "first") == 0
    file = str(tmp_path / "first" / "recipe.py")
    assert main(["train", file, "--output", str(tmp_path / "second"), "--device", "cpu"]) == 0
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "second")]
    assert configs[0] == configs[1]
    assert equal_tensors(newest_weights(tmp_path / "first"), newest_weights(tmp_path / "second"))
    assert tune(mine, start, tmp_path / "first", "--resume") == 0, "a finished run is resumed with the same recipe"


def test_dry_run_writes_the_recipe_only(mine, start, tmp_path, capsys):
    """By hand: the recipe is printed on stdout; the folder may be trained in afterwards."""
    output = tmp_path / "run"
    assert tune(mine, start, output, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "recipe.schedule.steps" in printed and f"train it with vertebra train {output / 'recipe.py'}" in printed
    assert {path.name for path in output.iterdir()} <= {"recipe.py", "run.lock"}
    config = load_config(output / "recipe.py")
    assert config.model.start_from == str(start) and config.recipe.schedule.steps == 4
    assert tune(mine, start, output) == 0


def test_another_run_is_not_overwritten(mine, start, tmp_path, capsys):
    """docs/faults.md row 161. By hand: exit code 2, and the recipe of the other run stays."""
    output = tmp_path / "run"
    assert tune(mine, start, output) == 0
    before = (output / "recipe.py").read_text()
    assert tune(mine, start, output, "--set", "recipe.seed=1") == 2
    assert "this folder holds a run already" in capsys.readouterr().err.splitlines()[-1]
    assert (output / "recipe.py").read_text() == before


def test_python_call_equals_the_command(mine, start, tmp_path):
    """Law: ``vertebra.train`` with the same data and changes gives the same resolved config, and returns the scores."""
    assert tune(mine, start, tmp_path / "command") == 0
    scores = vertebra.train(
        data=mine / "train.json",
        val=mine / "val.json",
        weights=start,
        changes={"recipe": {"schedule": {"steps": 4}, "batch_size": 2}, "run": {"loader": {"workers": 0}}},
        output=tmp_path / "call",
        device="cpu",
    )
    assert scores == json.loads((tmp_path / "call" / "eval.json").read_text())
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("command", "call")]
    assert configs[0] == configs[1]


@pytest.mark.slow
def test_two_processes_make_one_recipe(mine, start, tmp_path):
    """By hand: the recipe is printed and written once, and both processes train with it."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    data = ["--data", str(mine / "train.json"), "--val", str(mine / "val.json"), "--weights", str(start)]
    tool = ["-m", "vertebra.tools.train", *data, "--output", str(tmp_path / "run"), "--device", "cpu", *SHORT]
    process = start_process([*torchrun, *tool])
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 0, error
    assert error.count("the recipe is in") == 1 and (tmp_path / "run" / "eval.json").exists()


def test_model_of_a_config_is_trained_on_a_voc_folder(shapes, tmp_path, monkeypatch, capsys):
    """By hand: the architecture comes from a config; a fifth of the images is kept for validation; runs/NAME is the
    output."""
    write_voc(tmp_path / "pets")
    write_json(tmp_path / "tiny.json", tiny_config(shapes).model_dump(mode="json"))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "pets", "--model", "tiny.json", "--device", "cpu", *SHORT]) == 0
    assert "no validation data are given, so about 20% of the images" in capsys.readouterr().err
    config = load_config("runs/pets/config.json")
    assert config.model.head.rpn.pre_nms == tiny_config(shapes).model.head.rpn.pre_nms == (100, 100)
    assert config.model.backbone == tiny_config(shapes).model.backbone
    assert config.train.dataset.dataset.class_names == ("cat", "dog", "person")


def write_other_classes(folder: Path) -> Path:
    """Write a COCO data set with a class that the training data do not have."""
    content = tiny_content()
    content["categories"][0]["name"] = "lynx"
    return write_tiny(folder, content).annotations


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "gone.json"], 2, "gone.json: there is no such file or folder, but data are a COCO file"),
        (
            ["--data", "tiny/images", "--weights", "START"],
            2,
            "tiny/images: this folder holds 11.png, 12.png, 13.png, 14.png, but data are",
        ),
        (["--data", "tiny/annotations.json", "--weights", "gone"], 4, "gone: there is no checkpoint here"),
        (["--data", "empty/annotations.json"], 3, "empty-dataset: empty/annotations.json: no image is left to use"),
        (["--data", "bad.json"], 3, "bad-json: bad.json"),
        (
            ["--data", "tiny/annotations.json", "--val", "other/annotations.json"],
            2,
            "train and val have different classes; only in train: ['cat']; only in val: ['lynx']",
        ),
        (
            ["--data", "voc", "--model", "mask_rcnn_r50_fpn_1x_coco"],
            2,
            "the model has a mask branch, but data of the type 'voc' have no masks",
        ),
        (
            ["--data", "tiny/annotations.json", "--model", "mask_rcnn_r50_fpn_1x_coco"],
            3,
            "no-mask: tiny/annotations.json",
        ),
        (
            ["--data", "tiny/annotations.json", "--model", "resnet50_imagenet"],
            2,
            "the head 'classification' learns from data for classification, but recipes are for detection and semantic",
        ),
        (["--data", "voc", "--images", "voc/JPEGImages"], 2, "leave out --images"),
        (["--data", "tiny/annotations.json", "--set", "recipe.sead=1"], 2, "there is no field 'sead' in recipe"),
        (["--data", "tiny/annotations.json", "quickstart"], 2, "give exactly one of CONFIG and --data"),
        ([], 2, "give exactly one of CONFIG and --data"),
        (["quickstart", "--val", "x"], 2, "--val needs --data"),
        (["quickstart", "--dry-run"], 2, "--dry-run needs --data"),
        (["--data", "x", "--weights", "a", "--model", "b"], 2, "give --weights or --model, not both"),
        (["--data", "x", "--dry-run", "--resume"], 2, "there is nothing to --resume"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistake_is_one_line_before_the_training(arguments, code, message, start, tmp_path, capsys, monkeypatch):
    """docs/faults.md rows 156, 157, 159, 160 and 161. By hand: nothing is written."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "tiny")
    write_tiny(tmp_path / "empty", {**tiny_content(), "images": [], "annotations": []})
    write_other_classes(tmp_path / "other")
    write_voc(tmp_path / "voc")
    Path("bad.json").write_text("{")
    arguments = [{"START": str(start)}.get(word, word) for word in arguments]
    assert main(["train", *arguments, "--output", "run"]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1] and "Traceback" not in "".join(lines)
    assert not Path("run").exists()


def test_mistakes_in_the_python_call(shapes, tmp_path):
    """docs/faults.md row 161. By hand: UsageError that says what to change."""
    config = tiny_classifier()
    for options, message in (
        ({}, "train needs a config or data, not both"),
        ({"config": config, "data": "x"}, "train needs a config or data, not both"),
        ({"config": config, "weights": "x", "val": "y"}, "val and weights belong to data"),
        ({"data": shapes / "annotations" / "instances_train.json", "weights": "x", "model": config}, "leave one out"),
    ):
        with pytest.raises(vertebra.structures.UsageError, match=message):
            vertebra.train(output=tmp_path / "run", **options)


def test_other_order_of_categories_in_the_validation_file(mine, start, tmp_path):
    """By hand: the same classes under other ids are matched by name, since both files say their names."""
    content = json.loads((mine / "val.json").read_text())
    ids = {category["id"]: 50 - category["id"] for category in content["categories"]}
    for category in content["categories"]:
        category["id"] = ids[category["id"]]
    for entry in content["annotations"]:
        entry["category_id"] = ids[entry["category_id"]]
    write_json(mine / "reversed.json", content)
    shutil.copytree(mine / "val", mine / "reversed", dirs_exist_ok=True)
    arguments = ["--data", str(mine / "train.json"), "--val", str(mine / "reversed.json"), "--weights", str(start)]
    assert main(["train", *arguments, "--output", str(tmp_path / "run"), "--dry-run", *SHORT]) == 0
    assert load_config(tmp_path / "run" / "recipe.py").val.dataset.class_names == ("circle", "square", "newt")


def test_class_that_does_not_occur_in_the_validation_folder(tmp_path, monkeypatch):
    """By hand: a VOC folder without one of the classes is validated with the classes of the training folder."""
    monkeypatch.chdir(tmp_path)
    write_voc(Path("voc"))
    annotation = write_voc(Path("other")) / "Annotations" / "b.xml"
    annotation.write_text(annotation.read_text().replace("person", "dog"))
    assert main(["train", "--data", "voc", "--val", "other", "--output", "run", "--dry-run"]) == 0
    config = load_config("run/recipe.py")
    assert config.val.dataset.class_names == config.train.dataset.class_names == ("cat", "dog", "person")


def test_semantic_model_is_tuned_on_the_masks_of_a_voc_folder(tmp_path, monkeypatch, capsys):
    """By hand: class maps, crops of the size of the images, no anchors."""
    monkeypatch.chdir(tmp_path)
    write_voc(Path("voc"))
    arguments = ["--data", "voc", "--model", "deeplabv3plus_r50_camvid", "--output", "run", "--dry-run"]
    assert main(["train", *arguments]) == 0
    config = load_config("run/recipe.py")
    assert config.train.dataset.dataset == VocSegmentationConfig(root=Path("voc"), splits=("train",))
    assert config.train.transform.size == (64, 96) and "anchor" not in capsys.readouterr().out


OWN_HEAD = """
import torch

import vertebra
from vertebra.configs import load_config


class SumConfig(vertebra.HeadConfig):
    name: str = "sum"


@vertebra.HEADS.register("sum", SumConfig)
class SumHead(vertebra.Head):
    task = "detection"

    def loss(self, features, images, targets):
        return {"loss": features["p2"].sum()}

    def predict(self, features, images):
        return []


CONFIG = load_config("quickstart").replace(model={"head": SumConfig()}, run={"expected_ranges": {}})
"""


def test_recipe_with_the_user_s_own_head(mine, tmp_path, monkeypatch):
    """By hand: a head that learns from boxes gets a recipe; its file imports the user's module in a new process."""
    monkeypatch.chdir(tmp_path)
    Path("parts").mkdir()
    Path("parts/sums.py").write_text(OWN_HEAD)
    assert (
        main(["train", "--data", str(mine / "train.json"), "--model", "parts/sums.py", "--dry-run", "--output", "run"])
        == 0
    )
    command = [sys.executable, "-m", "vertebra.tools.cli", "config", "run/recipe.py", "--json"]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(shown.stdout)["model"]["head"] == {"name": "sum"}, shown.stderr
