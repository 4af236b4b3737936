"""The function ``vertebra.train``: train a config, or fine-tune a model on data that are given by their path."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...formats import write_text
from ...structures import UsageError
from ..config import ExperimentConfig
from ..distributed.context import read_launch
from ..loop.train import train
from ..run_folder import RunFolder
from .choices import UserChanges
from .make import FILE_NAME, Recipe, RecipeRequest, make_recipe


def train_run(
    config: ExperimentConfig | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    val: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    data_format: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    like: str | None = None,
    model: ExperimentConfig | None = None,
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
    device: torch.device | str = "auto",
    profile: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train the experiment of a config, or fine-tune a model on ``data``; return the scores of the last evaluation.

    With ``data`` (a COCO file, a VOC folder or data in another format of docs/data.md) no config is needed: a recipe is
    chosen from the data, printed field by field, and written to ``recipe.py`` in the run folder. ``val`` are the
    validation data, ``images`` is the folder of the images of a COCO file, ``data_format`` the name of the format if it
    is not clear from the path, ``weights`` a trained model to start from and ``like`` the published model that it is
    like (see :func:`vertebra.inference.open_model`); ``model`` is in place of it an experiment with the model to train,
    such as ``load_config("retinanet_r50_fpn_1x_coco")``. ``changes`` are fields
    that the recipe must not choose: ``{"recipe": {"batch_size": 4}}``. ``output`` is ``runs/NAME`` if it is not given.

    For the other arguments see :func:`vertebra.engine.train`.
    """
    if (config is None) == (data is None):
        raise UsageError("train needs a config or data, not both", "call train(config, output) or train(data=...)")
    if data is None:
        given = {
            "val": val,
            "images": images,
            "data_format": data_format,
            "weights": weights,
            "like": like,
            "model": model,
            "changes": changes,
        }
        if unused := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"{' and '.join(unused)} belong to data=..., but a config is given", "leave them out")
        assert config is not None, "checked above"
        folder = Path("runs") / config.name if output is None else output
        return train(config, folder, resume=resume, device=device, profile=profile, console=console)
    request = RecipeRequest(
        Path(data).expanduser(),
        *(None if path is None else Path(path).expanduser() for path in (val, images)),
        data_format=data_format,
        weights=None if weights is None else os.fspath(weights),
        like=like,
        model=model,
        changes=UserChanges.from_mapping(changes or {}),
    )
    recipe = make_recipe(request)
    folder = Path("runs") / recipe.config.name if output is None else Path(output).expanduser()
    announce_recipe(recipe, folder, resume, console)
    return train(recipe.config, folder, resume=resume, device=device, profile=profile, console=console)


def announce_recipe(recipe: Recipe, folder: Path, resume: bool = False, console: Console | None = None) -> Path:
    """Print a recipe and write it to the run folder, on rank zero; return the path of the file.

    Raises UsageError if a new run would overwrite another one.
    """
    path = folder / FILE_NAME
    launch = read_launch(os.environ)
    if launch is not None and launch.rank > 0:
        return path
    console = console or Console(stderr=True)
    console.print(recipe.describe(), markup=False, highlight=False, soft_wrap=True)
    if not resume:
        with RunFolder(folder) as run:
            run.require_unused()
            write_text(path, recipe.source())
        console.print(f"the recipe is in {path}", markup=False, highlight=False, soft_wrap=True)
    return path
