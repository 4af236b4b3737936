"""Shipped experiment configs, one per file, and functions to list and load them (layer 8).

A config file defines ``CONFIG``, an :class:`~vertebra.engine.ExperimentConfig`. Its docstring states the command, the
hardware, and the expected scores and time.
"""

import ast
import fnmatch
import importlib
import json
import os
from pathlib import Path

from pydantic import ValidationError

from ..engine import ExperimentConfig, parse_config
from ..formats import require_unique_keys
from ..heads import MultiHeadConfig, predicted_tasks_of_head
from ..inference import ExternalModel, import_user_code, open_model, run_file
from ..models import Model, ModelConfig, build_model, transfer_weights
from ..models.zoo import find_published, is_published_name, list_published
from ..structures import UsageError, revalidate, suggest, usage_error_from_validation

_HERE = Path(__file__).parent


def list_configs(pattern: str = "*") -> dict[str, str]:
    """Return the shipped configs whose names match a shell pattern, by name, with the first line of the docstring."""
    return {
        path.stem: (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        for path in sorted(_HERE.glob("*.py"))
        if path.stem != "__init__" and fnmatch.fnmatchcase(path.stem, pattern)
    }


def list_models(pattern: str = "*") -> list[str]:
    """Return the names for :func:`create_model` that match a shell pattern: published models and shipped configs."""
    return [*list_published(pattern), *list_configs(pattern)]


def load_config(source: str | os.PathLike[str]) -> ExperimentConfig:
    """Load a config: ``source`` is the name of a shipped config (``quickstart``), a Python file or a JSON file.

    A Python file defines ``CONFIG`` and may import modules from its folder; a JSON file is a run's ``config.json``. The
    config is validated again. Raises UsageError, naming the file and the line of the mistake.
    """
    path = Path(source)
    if path.suffix == ".json":
        return _read_json_config(path)
    if path.suffix != ".py":
        path = find_shipped_config(str(source))
    if not path.is_file():
        raise UsageError("there is no such config file", suggest(path.stem, list_configs()), file=path)
    if path.resolve().parent == _HERE.resolve():
        module = importlib.import_module(f".{path.stem}", __name__)
    else:
        module = run_file(path)
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, ExperimentConfig):
        raise UsageError("a config file must define CONFIG, an ExperimentConfig", file=path)
    try:
        return revalidate(config)
    except ValidationError as error:
        raise usage_error_from_validation(str(path), error) from error


def find_shipped_config(name: str) -> Path:
    """Return the file of a shipped config; raise UsageError, suggesting the nearest names, if there is none."""
    known = list_configs()
    if name not in known:
        raise UsageError(f"there is no config named {name!r}", suggest(name, known))
    return _HERE / f"{name}.py"


def _read_json_config(path: Path) -> ExperimentConfig:
    """Return the config in a JSON file, after importing the modules listed in its ``run.imports``."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=require_unique_keys)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot be read: {error}", file=path) from error
    run = values.get("run") if isinstance(values, dict) else None
    imports = run.get("imports") if isinstance(run, dict) else None
    for name in imports if isinstance(imports, list) else []:
        import_user_code(str(name))
    return parse_config(values, str(path))


def create_model(
    name: str | os.PathLike[str],
    num_classes: int | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Model:
    """Build a model by name, with random weights unless ``weights`` are given.

    ``name`` is one of

    - a published model, such as ``torchvision/maskrcnn_resnet50_fpn_v2``. ``weights`` is the tag of its weights
      (``COCO_V1``), ``default``, or a file of weights with the same tensor names;
    - a shipped config or a file, as for :func:`load_config`. ``weights`` is any trained model with the same parts that
      :func:`~vertebra.inference.open_model` finds, such as a run folder.

    The model has ``num_classes`` classes without names, or the classes of the published model or of the config's
    training data if that is None. With weights for other classes, the rows of the classes keep their random values, and
    all other tensors are loaded: see :func:`~vertebra.models.transfer_weights`. Raises UsageError if ``num_classes`` is
    given for a model that has the classes of several tasks.
    """
    if is_published_name(str(name)) and not Path(name).exists():
        return _create_published(str(name), num_classes, weights)
    config = load_config(name)
    class_names = config.train.dataset.classes() if num_classes is None else _numbered(config.model, num_classes, name)
    model = build_model(config.model, class_names)
    if weights is not None:
        transfer_weights(model, open_model(weights).load())
    return model


def _create_published(name: str, num_classes: int | None, weights: str | os.PathLike[str] | None) -> Model:
    """Build a published model, with the weights of a tag or of a file if they are given."""
    published, tag = find_published(name)
    if weights is None and tag is None:
        return published.build(None if num_classes is None else _numbered(published.model, num_classes, name))
    path = None
    if weights in published.weights:
        tag = str(weights)
    elif weights is not None and weights != "default":
        path = Path(weights).expanduser()
        if not path.exists():
            fix = suggest(str(weights), published.weights)
            raise UsageError(f"{name} has no weights {str(weights)!r}, and there is no such file", fix)
    trained = ExternalModel(published, tag, path)
    if num_classes is None or num_classes == len(trained.classes[published.task].names):
        return trained.load()
    model = published.build(_numbered(published.model, num_classes, name))
    transfer_weights(model, trained.load())
    return model


def _numbered(model: ModelConfig, num_classes: int, name: str | os.PathLike[str]) -> list[str]:
    """Return names for classes without names; raise UsageError if the model has the classes of several tasks."""
    if len(predicted_tasks_of_head(model.head.name)) > 1 or isinstance(model.head, MultiHeadConfig):
        raise UsageError(
            f"{name} has the classes of several tasks, and one num_classes={num_classes} does not say of which",
            "leave it out, or call vertebra.models.build_model(config.model, {task: class names})",
        )
    return [f"class {label}" for label in range(num_classes)]
