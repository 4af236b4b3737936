"""The models that other libraries publish, by name: ``torchvision/fasterrcnn_resnet50_fpn``."""

import fnmatch
import importlib
from types import ModuleType

from ...structures import UsageError, suggest
from .cache import OFFLINE, cached_path, download
from .published import PublishedModel, PublishedWeights, load_converted, load_tensors

__all__ = [
    "LIBRARIES",
    "OFFLINE",
    "PublishedModel",
    "PublishedWeights",
    "cached_path",
    "download",
    "find_published",
    "is_published_name",
    "list_published",
    "load_converted",
    "load_tensors",
]

LIBRARIES = ("torchvision", "detectron2", "mmdet", "mmseg", "smp")
"""The libraries whose models are known; each is a module of this package."""


def _library(name: str) -> ModuleType:
    """Return the module of a library: it has ``NAMES``, ``NOT_COVERED`` (a phrase) and ``find(entry)``."""
    return importlib.import_module(f".{name}", __name__)


def list_published(pattern: str = "*") -> list[str]:
    """Return the names of published models that match a shell pattern, such as ``torchvision/*``."""
    names = [f"{library}/{name}" for library in LIBRARIES for name in _library(library).NAMES]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def is_published_name(source: str) -> bool:
    """Return whether a source begins with the name of a library, as the names of published models do."""
    return source.partition("/")[0] in LIBRARIES and "/" in source


def find_published(name: str) -> tuple[PublishedModel, str | None]:
    """Find a published model by ``LIBRARY/NAME`` or ``LIBRARY/NAME.TAG``; return it and the tag of its weights.

    The tag is None if the name has none. The path of a ``config.yaml`` of detectron2 stands for the model that it
    describes. Raises UsageError, suggesting the closest names, for an unknown name.
    """
    if name.endswith((".yaml", ".yml")):
        from .detectron2_config import published_from_config

        return published_from_config(name), None
    library, _, entry = name.partition("/")
    if library not in LIBRARIES:
        raise UsageError(f"there is no published model {name!r}", suggest(name, list_published()))
    found = _library(library).find(entry)
    if found is not None:
        return found, None
    model, _, tag = entry.rpartition(".")
    found = _library(library).find(model) if model else None
    if found is not None:
        found.find_weights(tag)
        return found, tag
    fix = f"{suggest(name, list_published(f'{library}/*'))}; {_library(library).NOT_COVERED}"
    raise UsageError(f"there is no published model {name!r}", fix)
