"""Shipped experiments, one file each, and loading a config by name or from a file.

A config file defines ``CONFIG``, an :class:`~vertebra.engine.ExperimentConfig`. Its docstring is the lab note: the
command, the hardware, the expected score and time.
"""

import ast
import fnmatch
import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from ..engine import ExperimentConfig, parse_config
from ..models import Model, build_model
from ..structures import UsageError, revalidate, suggest, usage_error_from_validation

_HERE = Path(__file__).parent


def list_configs(pattern: str = "*") -> dict[str, str]:
    """Return the names of the shipped configs that match a shell pattern, each with the first line of its note."""
    return {
        path.stem: (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        for path in sorted(_HERE.glob("*.py"))
        if path.stem != "__init__" and fnmatch.fnmatchcase(path.stem, pattern)
    }


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that :func:`create_model` builds a model from, those that match a shell pattern."""
    return list(list_configs(pattern))


def load_config(source: str | os.PathLike[str]) -> ExperimentConfig:
    """Return the config with a shipped name (``quickstart``), in a Python file, or in a run's ``config.json``.

    A Python file may import modules that lie beside it. Whatever it defines is validated again. Raises UsageError that
    names the file and the line of a mistake.
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
        module = _run_config_file(path)
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, ExperimentConfig):
        raise UsageError("a config file defines CONFIG, an ExperimentConfig", file=path)
    try:
        return revalidate(config)
    except ValidationError as error:
        raise usage_error_from_validation(str(path), error) from error


def find_shipped_config(name: str) -> Path:
    """Return the file of the shipped config with this name; raise UsageError with the nearest names for another."""
    known = list_configs()
    if name not in known:
        raise UsageError(f"there is no config named {name!r}", suggest(name, known))
    return _HERE / f"{name}.py"


def _read_json_config(path: Path) -> ExperimentConfig:
    try:
        return parse_config(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be read: {error}", file=path) from error


def _run_config_file(path: Path) -> ModuleType:
    """Return the module that a user's config file makes; a mistake in it is a UsageError with its line."""
    folder = str(path.resolve().parent)
    # While it runs, its folder comes first on the module path, as for a script. Afterwards it stays as the last entry:
    # functions of the file may import later, and data-loading workers import the file's classes by its module name.
    sys.path.insert(0, folder)
    try:
        return _execute(path)
    except UsageError:
        raise
    except ValidationError as error:
        raise usage_error_from_validation(_locate(path, error), error) from error
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise UsageError(message, "correct the config file", file=_locate(path, error)) from error
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _execute(path: Path) -> ModuleType:
    """Import a config file under its own name, or under a longer one where a module of that name exists."""
    name = path.stem
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is not None and Path(loaded).resolve() == path.resolve():
        del sys.modules[name]  # loaded before; the file may have changed since
    elif name in sys.modules or name in sys.stdlib_module_names:
        name = f"vertebra_config_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py path always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and postponed annotations look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _locate(path: Path, error: Exception) -> str:
    """Return ``file:line`` of a mistake in a config file."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f"{path}:{lines[-1]}" if lines else str(path)


def create_model(name: str | os.PathLike[str], num_classes: int | None = None) -> Model:
    """Return the model of a config with random weights, for ``num_classes`` classes or those that the config names."""
    config = load_config(name)
    if num_classes is not None:
        return build_model(config.model, [f"class {label}" for label in range(num_classes)])
    return build_model(config.model, config.train.dataset.classes())
