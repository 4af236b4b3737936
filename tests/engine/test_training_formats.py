"""Training on data in the formats of labeling tools, given by their path."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import vertebra
from vertebra.data import AnnotatedImagesConfig, AnnotatedSemanticConfig, DataPath, MaskFolderConfig, convert_data
from vertebra.engine import RecipeRequest, UserChanges, make_recipe
from vertebra.heads import MaskBranchConfig
from vertebra.tools.cli import main

from ..formats.test_labeling_tools import labelme_file, shape
from ..helpers.labeled_images import write_images, write_text
from ..helpers.tiny import tiny_config

CHANGES = {"recipe": {"schedule": {"steps": 2}, "batch_size": 2}, "run": {"loader": {"workers": 0}}}


@pytest.mark.parametrize(
    ("target", "masks"),
    [("yolo", False), ("voc", False), ("coco", False), pytest.param("yolo", True, marks=pytest.mark.slow)],
)
def test_converted_data_train(target, masks, shapes, tmp_path):
    """Learning: two steps and an evaluation on each format, also with the masks that a format holds."""
    for split in ("train", "val"):
        shutil.copytree(shapes / split, tmp_path / "shapes" / split)
        (tmp_path / "shapes" / "annotations").mkdir(exist_ok=True)
        shutil.copy(shapes / "annotations" / f"instances_{split}.json", tmp_path / "shapes" / "annotations")
    convert_data(DataPath(tmp_path / "shapes", "detection"), tmp_path / target, target)
    model = tiny_config(shapes)
    if masks:
        model = model.replace(model={"head": {"mask": MaskBranchConfig()}})
    scores = vertebra.train(
        data=tmp_path / target, model=model, changes=CHANGES, output=tmp_path / "run", device="cpu"
    )  # fmt: skip
    assert set(scores) >= ({"bbox", "segm"} if masks else {"voc12"} if target == "voc" else {"bbox"})


def test_command_prints_where_the_data_come_from(tmp_path, capsys):
    """By hand: a dry run on a YOLO data set, and the option that decides between formats."""
    write_images(tmp_path / "set", "images/train/a.png", "images/train/b.png", "images/val/c.png")
    for name in ("train/a", "train/b", "val/c"):
        write_text(tmp_path / "set" / "labels" / f"{name}.txt", "0 0.5 0.5 0.5 0.5\n1 0.3 0.3 0.2 0.2\n")
    write_text(tmp_path / "set" / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    output = ["--output", str(tmp_path / "run"), "--dry-run"]
    assert main(["train", "--data", str(tmp_path / "set"), *output]) == 0
    assert "set is a YOLO data set with the split train for training" in " ".join(capsys.readouterr().out.split())
    assert "AnnotatedImagesConfig" in (tmp_path / "run" / "recipe.py").read_text()
    assert main(["train", "--data", str(tmp_path / "set"), "--data-format", "voc8", *output]) == 2
    assert "no data format 'voc8'" in capsys.readouterr().err


def test_class_without_validation_objects(tmp_path):
    """By hand: the validation data of a format that declares no classes get those of the training data."""
    write_images(tmp_path / "train", "a.png", "b.png")
    write_images(tmp_path / "val", "c.png")
    box = [[10, 10], [40, 40]]
    write_text(tmp_path / "train/a.json", labelme_file(shape("cat", "rectangle", box), shape("dog", "rectangle", box)))
    write_text(tmp_path / "train/b.json", labelme_file(shape("cat", "rectangle", box), imagePath="b.png"))
    write_text(tmp_path / "val/c.json", labelme_file(shape("dog", "rectangle", box), imagePath="c.png"))
    recipe = make_recipe(RecipeRequest(tmp_path, changes=UserChanges.from_mapping({"recipe": {"batch_size": 1}})))
    val = recipe.config.val.dataset
    assert isinstance(val, AnnotatedImagesConfig) and val.class_names == ("cat", "dog") and val.split == "val"


def test_class_maps_from_masks_of_objects(tmp_path):
    """By hand: a semantic head gets class maps of polygons, with a background."""
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "a.json", labelme_file(shape("cat", "polygon", [[0, 0], [40, 0], [40, 24], [0, 24]])))
    dataset = vertebra.data.build_dataset(AnnotatedSemanticConfig(path=tmp_path, format="labelme"))
    assert dataset.class_names == ("background", "cat") and dataset.read(0).semantic.sum() == 40 * 24


def test_recipe_for_mask_folders(tmp_path):
    """By hand: a semantic model on ``images`` and ``masks``."""
    write_images(tmp_path / "images", *(f"{number}.png" for number in range(6)), size=(64, 64))
    (tmp_path / "masks").mkdir()
    for number in range(6):
        Image.fromarray(np.tri(64, dtype=np.uint8) * 255).save(tmp_path / "masks" / f"{number}.png")
    assert (
        main(
            [
                "train",
                "--data",
                str(tmp_path),
                "--model",
                "deeplabv3_r50_coco_voc_labels",
                "--dry-run",
                "--output",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )
    recipe = (tmp_path / "run" / "recipe.py").read_text()
    assert MaskFolderConfig.__name__ in recipe and json.dumps("foreground") in recipe
