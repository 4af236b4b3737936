"""Import of the user's own modules: heads, tasks, transforms and other custom parts of an experiment.

**Code runs only if the user names it**: as a config file given to a command, by ``--import`` or by ``imports=``. Run
folders and checkpoints are data. A run stores copies of the user's modules in its folder ``code``, but they are not
imported unless they are named.
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
"""The modules of the files that were run, by the digest of the file and of the files beside it that it imports."""
_contents: dict[Path, str] = {}
"""The digest of each imported file at the time of its last import."""


def import_user_code(name: str | os.PathLike[str]) -> ModuleType:
    """Import a module by its name, or a Python file by its path, so that the parts it registers can be used.

    A file may import modules beside it. A file that was imported before, or a copy of it, is not run again if nothing
    has changed. Raises UsageError for a missing module or file, and for an error in the file, with its line.
    """
    path = Path(name)
    if path.suffix != ".py" and len(path.parts) == 1:
        return _import_by_name(str(name))
    if not path.is_file():
        raise UsageError("there is no such Python file", "check the path", file=path)
    module = _modules.get(_digest(find_files_beside(path)))
    return run_file(path) if module is None else module


def run_file(path: Path) -> ModuleType:
    """Run a Python file as a module, even if it was run before; an error in it becomes a UsageError with its line."""
    folder = str(path.resolve().parent)
    files = find_files_beside(path)
    _forget_changed(files[1:])
    # While the file runs, its folder is the first entry of sys.path, as for a script. Afterwards it stays as the last
    # entry: functions of the file may import later, and data-loading workers import its classes by the module's name.
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
            raise  # the module exists, but a module that it imports is missing
        fix = "install it, or give the path of its file, which ends in .py"
        raise UsageError(f"there is no module named {name!r}", fix) from error


def find_files_beside(path: Path, folder: Path | None = None) -> list[Path]:
    """Return a Python file, and the files in its folder or below that it imports, directly or indirectly.

    ``folder`` is the folder to search instead: for a module in a package, the folder that contains the package.
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
    """Return the top-level names of the modules that a file imports; an empty list if it has a syntax error."""
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
    """Return the files of a module or a package in a folder; an empty list if the folder does not have it."""
    if (folder / f"{name}.py").is_file():
        return [folder / f"{name}.py"]
    package = folder / name
    return sorted(package.rglob("*.py")) if (package / "__init__.py").is_file() else []


def _digest(files: Sequence[Path]) -> str:
    """Return a digest of the names and contents of files, which does not depend on the path of their folder."""
    folder = files[0].parent
    lines = [f"{file.relative_to(folder).as_posix()} {_content_digest(file)}" for file in sorted(files)]
    return hashlib.sha256("\n".join([files[0].name, *lines]).encode()).hexdigest()


def _content_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _forget_changed(files: Sequence[Path]) -> None:
    """Remove modules whose files have changed from ``sys.modules``, so that they are imported again."""
    contents = {file: _content_digest(file) for file in files}
    changed = {file for file, content in contents.items() if _contents.get(file, content) != content}
    for name, module in list(sys.modules.items()):
        loaded = getattr(module, "__file__", None)
        if changed and loaded is not None and Path(loaded).resolve() in changed:
            del sys.modules[name]
    _contents.update(contents)


def _execute(path: Path) -> ModuleType:
    """Import a file as a module of its name, or with the prefix ``vertebra_user_`` if another module has that name."""
    name = path.stem
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is not None and Path(loaded).resolve() == path.resolve():
        del sys.modules[name]  # an earlier import of the same file, which may have changed
    elif name in sys.modules or name in sys.stdlib_module_names:
        name = f"vertebra_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py path always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # needed while it runs: dataclasses and postponed annotations look up their module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _locate(path: Path, error: Exception) -> str:
    """Return the location of an error in a Python file as ``file:line``."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f"{path}:{lines[-1]}" if lines else str(path)
