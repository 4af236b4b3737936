"""Experiments as typed values, one file each, and finding them by name.

A config file defines ``CONFIG``; its docstring is the lab note: the command, the hardware, the expected score and time.
"""

import ast
import fnmatch
import importlib
import importlib.util
import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from ..engine import ExperimentConfig, parse_config
from ..models import Model, build_model
from ..structures import Config, UsageError, suggest, usage_error_from_validation

_HERE = Path(__file__).parent


def list_configs(pattern: str = "*") -> dict[str, str]:
    """The shipped configs that match a shell pattern, with the first line of each one's note."""
    return {
        path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        for path in sorted(_HERE.glob("*.py"))
        if path.stem != "__init__" and fnmatch.fnmatchcase(path.stem, pattern)
    }


def load_config(source: str | os.PathLike[str]) -> ExperimentConfig:
    """A config by name (``quickstart``), from a Python file that defines ``CONFIG``, or from a run's JSON file."""
    path = Path(source)
    if path.suffix == ".json":
        try:
            return parse_config(json.loads(path.read_text()), str(path))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot be read: {error}", file=path) from error
    if path.suffix != ".py":
        if str(source) not in list_configs():
            raise UsageError(f"there is no config named {str(source)!r}", suggest(str(source), list_configs()))
        path = _HERE / f"{source}.py"
    if not path.is_file():
        raise UsageError("there is no such config file", suggest(path.stem, list_configs()), file=path)
    if path.resolve().parent == _HERE.resolve():
        module = importlib.import_module(f".{path.stem}", __name__)
    else:
        module = _run(path)
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, ExperimentConfig):
        raise UsageError("a config file defines CONFIG, an ExperimentConfig", file=path)
    return config


def _run(path: Path) -> ModuleType:
    """The module that a user's config file makes; a mistake in it is a UsageError with its line."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a .py path always has a loader"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UsageError:
        raise
    except ValidationError as error:
        kinds = {kind.__name__: kind for kind in _kinds(Config)}
        raise usage_error_from_validation(_place(path, error), kinds.get(error.title, Config), error) from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(what, "correct the config file", file=_place(path, error)) from error
    return module


def _kinds(kind: type[Config]) -> Iterator[type[Config]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)


def _place(path: Path, error: Exception) -> str:
    """The file and line of a mistake."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.absolute()]
    return f"{path}:{lines[-1]}" if lines else str(path)


def create_model(name: str | os.PathLike[str], num_classes: int | None = None) -> Model:
    """The model of a config, with random weights and, unless ``num_classes`` says otherwise, the config's classes."""
    config = load_config(name)
    if num_classes is not None:
        return build_model(config.model, [f"class {label}" for label in range(num_classes)])
    return build_model(config.model, config.train.dataset.classes())
