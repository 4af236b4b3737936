"""Copying the user's modules that define an experiment's custom parts into the run folder."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..backbones import BACKBONES
from ..data import DATASETS, MIXES
from ..data.transforms import TRANSFORMS
from ..heads import HEADS, HeadConfig, task_of_head
from ..inference import find_files_beside
from ..inference.checkpoint import USER_CODE
from ..necks import NECKS
from ..structures import Config, PartConfig, Registry
from .config import ExperimentConfig
from .tasks import TASKS

REGISTRIES: tuple[Registry, ...] = (BACKBONES, NECKS, HEADS, DATASETS, TRANSFORMS, MIXES)


def store_user_code(config: ExperimentConfig, folder: Path) -> dict[str, str]:
    """Copy the user's modules that define parts of the experiment to ``folder/code``.

    Files that a module imports from its own folder are copied too. Returns for each module the path of its copy
    relative to ``folder/code``; for a script run as the main program, which is not copied, its path from the current
    folder. Modules of installed packages are left out.
    """
    record: dict[str, str] = {}
    for name in sorted(set(_module_names(config))):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or is_installed(Path(file)):
            continue
        if name == "__main__":
            record[name] = os.path.relpath(file)
            continue
        root = Path(file).resolve().parents[name.count(".")]
        record[name] = Path(file).resolve().relative_to(root).as_posix()
        for source in find_files_beside(Path(file).resolve(), root):
            target = folder / USER_CODE / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source != target.resolve():
                shutil.copyfile(source, target)
    return record


def _module_names(config: ExperimentConfig) -> Iterator[str]:
    """Yield the names of the modules outside this package that define the experiment's configs, parts and tasks."""
    package = __name__.partition(".")[0]
    for value in _configs_in(config):
        defined_in = {type(value).__module__}
        if isinstance(value, PartConfig):
            entries = [registry[value.name] for registry in REGISTRIES if value.name in registry]
            defined_in |= {entry.build.__module__ for entry in entries if isinstance(value, entry.config)}
        if isinstance(value, HeadConfig) and (task := task_of_head(value.name)) in TASKS:
            defined_in.add(TASKS[task].__module__)
        yield from (name for name in defined_in if name.partition(".")[0] != package)


def _configs_in(value: Any) -> Iterator[Config]:
    """Yield a config and all configs nested in it."""
    if isinstance(value, Config):
        yield value
        for name in type(value).model_fields:
            yield from _configs_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _configs_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _configs_in(item)


def is_installed(file: Path) -> bool:
    """Return whether a file belongs to an installed package or to Python's standard library."""
    folders = (Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib"))
    return any(file.is_relative_to(folder) for folder in folders)
