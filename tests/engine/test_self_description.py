"""What a checkpoint says about itself: scores, data, origin of the weights, versions; and how resuming uses it."""

import datetime
import json
import platform
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from vertebra.backbones import weights_origin
from vertebra.data import VocConfig, build_dataset
from vertebra.data.voc_format import VocSegmentationConfig
from vertebra.engine import train
from vertebra.engine.run import describe_data, require_same_data
from vertebra.inference import checkpoint_paths, load_model, open_checkpoint
from vertebra.structures import CheckpointError, UsageError
from vertebra.tools.cli import main

from ..helpers.tiny import tiny_classifier
from ..helpers.tiny_coco_file import tiny_content, write_tiny
from ..helpers.tiny_voc_folder import save_mask, write_voc


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a finished run, evaluated at steps 2 and 4."""
    output = tmp_path_factory.mktemp("described") / "run"
    train(tiny_classifier(evaluation={"every": 2}), output)
    return output


def newest(run: Path) -> Path:
    return checkpoint_paths(run / "checkpoints")[-1]


def test_checkpoint_has_the_scores_of_its_step(run):
    """Law: the content of ``eval.json`` at that step, and at no other."""
    scores = json.loads((run / "eval.json").read_text())
    assert open_checkpoint(run).scores == scores and scores["step"] == 4
    assert open_checkpoint(checkpoint_paths(run / "checkpoints")[0]).scores["step"] == 2


@pytest.mark.parametrize("killed", ["before the scores", "before they are sealed"])
def test_resuming_adds_missing_scores_to_a_checkpoint(run, tmp_path, killed):
    """Law: the checkpoint is intact at any moment while scores are added, and resuming completes it."""
    broken = shutil.copytree(run, tmp_path / "run", symlinks=True)
    sums, scores = newest(broken) / "SHA256SUMS", newest(broken) / "scores.json"
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if "scores" not in line))
    scores.unlink() if killed == "before the scores" else scores.write_text("{")
    assert open_checkpoint(broken).scores is None
    train(tiny_classifier(evaluation={"every": 2}), broken, resume=True)
    assert open_checkpoint(broken).scores == open_checkpoint(run).scores


def test_checkpoint_has_versions_and_a_date(run):
    """Oracle: the packages' own metadata, and the clock."""
    checkpoint = open_checkpoint(run)
    packages = ("vertebra", "torch", "torchvision", "timm", "safetensors")
    assert checkpoint.versions == {name: version(name) for name in packages} | {"python": platform.python_version()}
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(checkpoint.saved_at)
    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)


def change_coco(root: Path) -> None:
    content = tiny_content()
    content["annotations"][4]["bbox"][0] += 1
    write_tiny(root, content)


def change_voc(root: Path) -> None:
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("41.5", "41.25"))


def change_mask(root: Path) -> None:
    """Change one pixel of one mask."""
    path = root / "SegmentationClass" / "b.png"
    labels = np.array(Image.open(path))
    labels[3, 3] = (labels[3, 3] + 1) % 21
    save_mask(path, labels)


@pytest.mark.parametrize("change", [change_coco, change_voc, change_mask])
def test_resuming_with_changed_annotations_is_refused(change, run, tmp_path):
    """docs/faults.md row 110. By hand: exit code 2 for the same images with other annotations.

    A copy of the data in another folder is accepted.
    """
    root = tmp_path / "data"
    if change is change_coco:
        config = write_tiny(root)
    else:
        config_type = VocConfig if change is change_voc else VocSegmentationConfig
        config = config_type(root=write_voc(root), splits=("train",))
    dataset = build_dataset(config, "skip")
    before = describe_data(dataset, dataset)
    checkpoint = with_data(open_checkpoint(run), before)
    again = build_dataset(config, "skip")
    require_same_data(checkpoint, describe_data(again, again))
    change(root)
    changed = build_dataset(config, "skip")
    with pytest.raises(UsageError, match=r"the train annotations and the val annotations have changed since the"):
        require_same_data(checkpoint, describe_data(changed, changed))


def with_data(checkpoint, data):
    """Return the checkpoint with the data of its config in another folder."""
    facts = {name: data[name] for name in ("classes", "image_id_digests", "annotation_digests")}
    return replace(checkpoint, **facts)


def test_licenses_of_torchvision_and_timm_weights_are_known():
    """Oracle: torchvision's and timm's own tables; both were trained on ImageNet."""
    ours = weights_origin("torchvision/IMAGENET1K_V1", "resnet50")
    assert ours.license.startswith("BSD-3-Clause") and "non-commercial" in ours.license
    assert ours.url == torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta["recipe"]
    ours, theirs = weights_origin("timm/a1_in1k", "resnet50"), timm.get_pretrained_cfg("resnet50.a1_in1k")
    assert ours.license.startswith(f"{theirs.license}; trained on ImageNet") and theirs.hf_hub_id in ours.url


@pytest.mark.parametrize(
    ("metadata", "license"),
    [
        (None, "unknown"),
        ({"license": "mit"}, "mit"),
        ({"vertebra": '{"origin": {"source": "a", "license": "b", "more": 1}}'}, "b"),
        ({"vertebra": '{"origin": {}}'}, "unknown"),
    ],
)
def test_license_of_a_weights_file_is_what_it_states(metadata, license, tmp_path):
    """By hand: files of other people may state anything."""
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "weights.safetensors", metadata)
    assert weights_origin(str(tmp_path / "weights.safetensors"), "resnet18").license == license


def test_origin_of_weights_is_passed_from_run_to_run(run, tmp_path):
    """Law: a run states where its initial weights came from, and so do its exported weights and runs that start from
    either."""
    base = tiny_classifier()
    weights = str(tmp_path / "first.safetensors")
    model = load_model(run)
    save_file(model.state_dict(), weights, {"license": "mit"})
    train(base.replace(model=base.model.replace(weights=weights)), tmp_path / "a")
    assert open_checkpoint(tmp_path / "a").origin == weights_origin(weights, "resnet10t")
    assert main(["export-backbone", str(tmp_path / "a"), str(tmp_path / "out.safetensors")]) == 0
    starts = {"b": str(tmp_path / "out.safetensors"), "c": str(newest(tmp_path / "a") / "model.safetensors")}
    for name, start in starts.items():
        config = base.replace(model=base.model.replace(weights=start))
        train(config, tmp_path / name)
    train(base.replace(model={"start_from": str(tmp_path / "a")}), tmp_path / "d")
    for name in "bcd":
        origin = open_checkpoint(tmp_path / name).origin
        assert origin.license == "mit" and weights in origin.source, name
    assert open_checkpoint(run).origin is None


def test_describe_prints_what_a_checkpoint_contains(run, tmp_path, capsys):
    """By hand: every fact; a step that was not evaluated says so."""
    assert main(["describe", str(run)]) == 0
    shown = capsys.readouterr().out
    scores = json.loads((run / "eval.json").read_text())
    for fact in (
        "step 4 of 4",
        "resnet10t",
        "8 of classification: circle",
        "initialized at random",
        f"torch {version('torch')}",
    ):
        assert fact in shown, fact
    assert f"top1 {scores[next(iter(scores))]['top1']:.3f}" in shown
    assert len(shown.splitlines()) < 12
    early = checkpoint_paths(shutil.copytree(run, tmp_path / "run") / "checkpoints")[0]
    sums = early / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if "scores" not in line))
    assert main(["describe", str(early)]) == 0
    assert "not evaluated at this step" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "fix"), [(2, "load it with vertebra 0.1.0, which wrote it"), (99, "upgrade vert")])
def test_other_checkpoint_format_is_an_error_with_advice(run, tmp_path, number, fix, capsys):
    """docs/faults.md row 104. By hand: exit code 4 with both formats, in one line."""
    old = shutil.copytree(newest(run), tmp_path / "old")
    state = json.loads((old / "state.json").read_text()) | {"format": number}
    (old / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=f"has format {number}, this version reads 4: {fix}") as caught:
        load_model(old)
    assert caught.value.exit_code == 4
    assert main(["describe", str(old)]) == 4
    assert capsys.readouterr().err.count("\n") == 1
