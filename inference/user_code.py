"""Modules of the user's own: heads, tasks, transforms and whatever else an experiment has from outside the package.

**Code runs only where somebody names it**: a config file that is given to a command, ``--import``, ``imports=``. What a
run folder or a checkpoint holds is data. A run keeps copies of its user's modules in its folder ``code``, and nothing
imports them until they are named.
"""

import ast
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from ..structures import UsageError, usage_error_from_validation

_modules: dict[str, ModuleType] = {}
"""The modules that files were run as, by the digest of the file and of those that it imports from beside it."""
_contents: dict[Path, str] = {}
"""What each of these files held when it was last run or imported, as a digest."""


def import_user_code(name: str | os.PathLike[str]) -> ModuleType:
    """Import a module by its name, or a Python file by its path, and return the module.

    What it registers is known afterwards. A file may import modules that lie beside it. A file that is unchanged since
    it was imported, or a copy of one, is not run again. Raises UsageError that names the line of a mistake.
    """
    path = Path(name)
    if path.suffix != ".py" and len(path.parts) == 1:
        return _import_by_name(str(name))
    if not path.is_file():
        raise UsageError("there is no such Python file", "check the path", file=path)
    module = _modules.get(_digest(find_files_beside(path)))
    return run_file(path) if module is None else module


def run_file(path: Path) -> ModuleType:
    """Run a Python file as a module, also where it was run before; a mistake in it is a UsageError with its line."""
    folder = str(path.resolve().parent)
    files = find_files_beside(path)
    _forget_changed(files[1:])
    # While it runs, its folder comes first on the module path, as for a script. Afterwards it stays as the last entry:
    # functions of the file may import later, and data-loading workers import the file's classes by its module name.
    sys.path.insert(0, folder)
    try:
        module = _execute(path)
    except UsageError:
        raise
    except ValidationError as error:
        raise usage_error_from_validation(_locate(path, error), error) from error
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise UsageError(message, "correct the file", file=_locate(path, error)) from error
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)
    _modules[_digest(files)] = module
    return module


def _import_by_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise  # a module that it imports is missing
        fix = "install it, or give the path of its file, which ends in .py"
        raise UsageError(f"there is no module named {name!r}", fix) from error


def find_files_beside(path: Path, folder: Path | None = None) -> list[Path]:
    """Return a Python file and those that it imports, directly or through others, from its folder or below it.

    ``folder`` is another one to look in: for a module of a package the folder that the package is in.
    """
    folder = path.resolve().parent if folder is None else folder.resolve()
    files: dict[Path, None] = {}
    waiting = [path.resolve()]
    if waiting[0].parent != folder:
        waiting += _files_of_module(folder, waiting[0].relative_to(folder).parts[0])
    while waiting:
        file = waiting.pop(0)
        if file not in files:
            files[file] = None
            waiting += [found for name in _imported_names(file) for found in _files_of_module(folder, name)]
    return list(files)


def _imported_names(path: Path) -> list[str]:
    """Return the top-level names of the modules that a file imports; none where its syntax is wrong."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
    return [name.partition(".")[0] for name in names]


def _files_of_module(folder: Path, name: str) -> list[Path]:
    """Return the files of a module or a package in a folder; none where it is not there."""
    if (folder / f"{name}.py").is_file():
        return [folder / f"{name}.py"]
    package = folder / name
    return sorted(package.rglob("*.py")) if (package / "__init__.py").is_file() else []


def _digest(files: Sequence[Path]) -> str:
    """Return a digest of a file and of those beside it, the same wherever their folder is."""
    folder = files[0].parent
    lines = [f"{file.relative_to(folder).as_posix()} {_content_digest(file)}" for file in sorted(files)]
    return hashlib.sha256("\n".join([files[0].name, *lines]).encode()).hexdigest()


def _content_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _forget_changed(files: Sequence[Path]) -> None:
    """Let files that have changed since they were imported be imported again."""
    contents = {file: _content_digest(file) for file in files}
    changed = {file for file, content in contents.items() if _contents.get(file, content) != content}
    for name, module in list(sys.modules.items()):
        loaded = getattr(module, "__file__", None)
        if changed and loaded is not None and Path(loaded).resolve() in changed:
            del sys.modules[name]
    _contents.update(contents)


def _execute(path: Path) -> ModuleType:
    """Import a file under its own name, or under a longer one where another module has that name."""
    name = path.stem
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is not None and Path(loaded).resolve() == path.resolve():
        del sys.modules[name]  # it was loaded before, and has changed since
    elif name in sys.modules or name in sys.stdlib_module_names:
        name = f"vertebra_user_{path.stem}"
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
    """Return ``file:line`` of a mistake in a Python file."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f"{path}:{lines[-1]}" if lines else str(path)
