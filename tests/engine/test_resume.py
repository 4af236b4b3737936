"""What may change when a run is resumed, and what is refused."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from vertebra.data import CenterCropConfig, ImageFolderConfig, RandomCropConfig, build_dataset
from vertebra.engine import ExperimentConfig, SplitConfig, train
from vertebra.engine.run import describe_data, require_same_data
from vertebra.inference import checkpoint_paths, open_checkpoint
from vertebra.structures import UsageError
from vertebra.tools.cli import main

from ..data.test_image_folder import write_folder
from ..helpers.runs import equal_tensors, newest_weights
from ..helpers.tiny import tiny_classifier


def folder_config(photos: Path) -> ExperimentConfig:
    """Return the tiny classifier's experiment on image folders."""
    train_split = SplitConfig(dataset=ImageFolderConfig(root=photos / "train"), transform=RandomCropConfig(size=32))
    val_split = SplitConfig(
        dataset=ImageFolderConfig(root=photos / "val"), transform=CenterCropConfig(resize=36, size=32)
    )
    return tiny_classifier(train=train_split, val=val_split)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a folder with images and a finished run on them."""
    root = tmp_path_factory.mktemp("resume")
    for split in ("train", "val"):
        write_folder(root / "photos" / split)
    train(folder_config(root / "photos"), root / "run")
    return root


def rename_class(photos: Path) -> None:
    for split in ("train", "val"):
        (photos / split / "ant").rename(photos / split / "emmet")


def add_image(photos: Path) -> None:
    shutil.copy(photos / "train" / "ant" / "1.png", photos / "train" / "ant" / "2.png")


def remove_val_image(photos: Path) -> None:
    (photos / "val" / "dog" / "a.png").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_class, r"the run and the data have different classes; only in the run: \['ant'\]"),
        (add_image, "the train image ids have changed since the run started"),
        (remove_val_image, "the val image ids have changed since the run started"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_resuming_on_other_data_is_refused(finished, tmp_path, change, message):
    """docs/faults.md row 110. By hand: exit code 2, although the config is the same."""
    photos, aside = finished / "photos", tmp_path / "photos"
    shutil.copytree(photos, aside)
    try:
        change(photos)
        with pytest.raises(UsageError, match=message):
            train(folder_config(photos), finished / "run", resume=True)
    finally:
        shutil.rmtree(photos)
        aside.rename(photos)
    train(folder_config(photos), finished / "run", resume=True)


def test_resuming_with_renumbered_categories_is_refused(finished):
    """docs/faults.md row 110. By hand: the results would have other ids than those that the run wrote before."""
    config, checkpoint = folder_config(finished / "photos"), open_checkpoint(finished / "run")
    data = describe_data(build_dataset(config.train.dataset), build_dataset(config.val.dataset))
    require_same_data(checkpoint, data)
    classes = data["classes"]["classification"]
    with pytest.raises(UsageError, match="the category ids have changed"):
        require_same_data(checkpoint, {**data, "classes": {"classification": replace(classes, ids=(1, 2, 3))}})


def test_evaluating_on_other_classes_is_refused(finished, tmp_path, capsys):
    """docs/faults.md row 97. By hand: exit code 2 with the difference; a renamed class would shift every label."""
    photos = shutil.copytree(finished / "photos" / "val", tmp_path / "photos")
    assert main(["eval", str(finished / "run"), "--set", f"val.dataset.root={photos}"]) == 0
    (photos / "ant").rename(photos / "emmet")
    assert main(["eval", str(finished / "run"), "--set", f"val.dataset.root={photos}"]) == 2
    error = capsys.readouterr().err
    assert "the model and the data have different classes; only in the model: ['ant']" in error


def test_resuming_without_a_run_is_refused(tmp_path):
    """By hand: exit code 2 for a mistyped --output, instead of a new run."""
    with pytest.raises(UsageError, match="there is no run here to resume"):
        train(tiny_classifier(), tmp_path / "rnu", resume=True)


def test_resuming_before_the_first_checkpoint_starts_again(finished, tmp_path):
    """Law: a run killed before its first checkpoint ends like an uninterrupted one.

    A line says that it starts from the beginning, since its config may be another (docs/faults.md row 110).
    """
    (tmp_path / "run").mkdir()
    shutil.copy(finished / "run" / "config.json", tmp_path / "run")
    printed = io.StringIO()
    train(folder_config(finished / "photos"), tmp_path / "run", resume=True, console=Console(file=printed))
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(finished / "run"))
    assert "there is no checkpoint yet, so the run starts from step 0, with this config" in printed.getvalue()


def test_resuming_on_another_type_of_device_is_logged(finished, tmp_path, monkeypatch):
    """docs/faults.md row 111. By hand: a GPU does not give the bits of a CPU."""
    shutil.copytree(finished / "run", tmp_path / "run")
    on_gpu = replace(open_checkpoint(tmp_path / "run"), device="cuda")
    monkeypatch.setattr("vertebra.engine.run.open_checkpoint", lambda *_: on_gpu)
    printed = io.StringIO()
    train(folder_config(finished / "photos"), tmp_path / "run", resume=True, console=Console(file=printed))
    assert "the run was trained on cuda and resumes on cpu" in printed.getvalue()


def test_resuming_does_not_need_the_initial_weights(finished, tmp_path):
    """Law: the file of the backbone's pretrained weights may be deleted, and the result is the same."""
    source = shutil.copy(checkpoint_paths(finished / "run" / "checkpoints")[-1] / "model.safetensors", tmp_path)
    base = tiny_classifier()
    config = base.replace(model=base.model.replace(weights=str(source)))
    train(config, tmp_path / "run")
    unbroken = newest_weights(tmp_path / "run")
    shutil.rmtree(checkpoint_paths(tmp_path / "run" / "checkpoints")[-1])
    Path(source).unlink()
    train(config, tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), unbroken)


def test_missing_picture_is_drawn_on_resume(tmp_path):
    """By hand: a picture that was deleted, as if the run had been killed between its scores and its picture."""
    train(tiny_classifier(), tmp_path / "run")
    picture = tmp_path / "run" / "predictions.png"
    before = picture.read_bytes()
    picture.unlink()
    train(tiny_classifier(), tmp_path / "run", resume=True)
    assert picture.read_bytes() == before
