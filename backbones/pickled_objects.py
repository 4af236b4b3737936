"""Objects that training scripts save beside weights, and that reading a ``.pth`` file replaces by empty objects.

``torch.load(weights_only=True)`` refuses a file with any object that it does not know, even if only the weights are
wanted. The names below are those of common libraries. Whatever a file says of such an object, nothing is imported and
nothing is run: the class of every one of them is ``Placeholder`` or ``ListPlaceholder``.
"""

import re
from collections.abc import Callable
from typing import Any


class Placeholder:
    """An object without content, in place of an object of a file that is not needed."""

    def __new__(cls, *args: object, **kwargs: object) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Drop the content that the file gives the object."""


class ListPlaceholder(list[object]):
    """A list in place of an object of a file that has items."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()


_NAMES = {
    "argparse": ("Namespace",),
    # ``getattr`` is how Python 3.11 saves the members of an enum, and mmengine the functions of a HistoryBuffer.
    "builtins": ("bool", "complex", "dict", "float", "frozenset", "getattr", "int", "list", "object", "str", "tuple"),
    "datetime": ("date", "datetime", "timedelta", "timezone"),
    "pathlib": ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "pathlib._local": ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "types": ("SimpleNamespace",),
    "typing": ("Any",),
    "uuid": ("UUID",),
    "numpy": ("bool_", "dtype", "float32", "float64", "int32", "int64", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "lightning.fabric.utilities.data": ("AttributeDict",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "pytorch_lightning.utilities.parsing": ("AttributeDict",),
    "mmcv.utils.config": ("Config", "ConfigDict"),
    "mmengine.config.config": ("Config", "ConfigDict"),
    "mmengine.logging.history_buffer": ("HistoryBuffer",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": ("AnyNode", "BooleanNode", "FloatNode", "IntegerNode", "StringNode"),
    "torch.torch_version": ("TorchVersion",),
}
_LIST_NAMES = {"collections": ("deque",)}

PLACEHOLDERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (placeholder, f"{module}.{name}")
    for placeholder, names in ((Placeholder, _NAMES), (ListPlaceholder, _LIST_NAMES))
    for module, members in names.items()
    for name in members
]
"""Pairs of a class and the full name that it stands for, as ``torch.serialization.safe_globals`` takes them."""

_REFUSED = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)")


def refused_object(error: Exception) -> str | None:
    """Return the full name of the object for which torch refused to read a file; None for other errors."""
    found = _REFUSED.search(str(error))
    return None if found is None else found.group(1)
