"""Reading pickle files of numpy arrays: only plain values and arrays of numbers are admitted.

A pickle can name any function and call it. The reader here admits a few names of numpy, for which it has stand-ins that
only keep the bytes of an array, and refuses every other name before anything is imported or called.
"""

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBERS = re.compile(r"[biuf][1248]")
_BYTE_ORDERS = ("<", ">", "=", "|")
_DAMAGED = (pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError)
_DAMAGED += (TypeError, ValueError)
"""The errors that reading a damaged pickle raises."""


class PickleError(ValueError):
    """A pickle that holds other things than plain values and arrays of numbers, or that is damaged."""


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain values and numpy arrays, which become tensors; objects with other types are refused.

    Raises PickleError for a pickle with anything else, before anything in it is called.
    """
    with path.open("rb") as file:
        try:
            return _to_tensors(_Reader(file, encoding="latin1").load())  # Python 2 wrote bytes as such a text
        except PickleError:
            raise
        except _DAMAGED as error:
            raise PickleError(f"the pickle is damaged: {error}") from None


def read_pickled_state_dict(path: Path) -> tuple[Mapping[str, Tensor], str]:
    """Return the tensors by name in a pickle of detectron2 or Caffe2, and the author that it states.

    detectron2's files hold the tensors under ``model``, those of the first Detectron under ``blobs``. The momentum of
    an optimizer is left out. The author is empty if none is stated. Raises PickleError as :func:`read_pickle` does.
    """
    content = read_pickle(path)
    author = content.get("__author__", "") if isinstance(content, dict) else ""
    tensors = content.get("model", content.get("blobs", content)) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise PickleError("the pickle does not hold arrays by name, alone or under 'model' or 'blobs'")
    return {name: value for name, value in tensors.items() if not name.endswith("_momentum")}, str(author)


class _Reader(pickle.Unpickler):
    """A reader of pickles that admits only the names of ``_STAND_INS``."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a function or class; raise PickleError for a name that has none."""
        full_name = f"{module}.{name}"
        if full_name not in _STAND_INS:
            raise PickleError(f"the pickle names {full_name}: only numpy arrays and plain values are read")
        return _StandIn(_STAND_INS[full_name])  # a new one each time, since a pickle may change the attributes of it

    def persistent_load(self, pid: Any) -> Any:
        """Refuse objects that are stored outside the pickle."""
        raise PickleError("the pickle refers to objects outside it")


@dataclass(frozen=True, slots=True)
class _StandIn:
    """A stand-in that a pickle calls in place of a function of numpy."""

    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class _DataType:
    """The data type of an array, such as ``f4``; ``order`` is its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        if _NUMBERS.fullmatch(_require(code, str)) is None:
            raise PickleError(f"the pickle has an array of type {code!r}: only arrays of numbers are read")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = _require(_require(state, tuple)[1], str)


class _Array:
    """An array, whose values follow later in the pickle unless they are given."""

    def __init__(self, values: Tensor | None = None) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        _, shape, data_type, by_columns, data = _require(state, tuple)
        self.values = _make_tensor(data, data_type, shape, "F" if by_columns else "C")


def _make_tensor(data: Any, data_type: Any, shape: Any, order: str) -> Tensor:
    """Return a tensor with the values of an array, given as bytes."""
    if isinstance(data, str):  # bytes in a pickle of Python 2
        data = data.encode("latin1")
    kind = _require(data_type, _DataType)
    if kind.order not in _BYTE_ORDERS or not all(
        isinstance(side, int) and side >= 0 for side in _require(shape, tuple)
    ):
        raise PickleError("the pickle has an array of unknown layout")
    values = np.frombuffer(_require(data, bytes | bytearray), dtype=kind.order.replace("|", "=") + kind.code)
    array = values.reshape(shape, order="F" if order == "F" else "C")
    return torch.from_numpy(np.array(array, dtype=kind.code, order="C"))


def _make_bytes(text: Any, encoding: Any) -> bytes:
    """Return the bytes that a text stands for, as Python 3 writes bytes for older protocols."""
    return _require(text, str).encode("latin1" if encoding == "latin1" else "utf-8")


def _refuse_call(*_: Any) -> Any:
    raise PickleError("the pickle calls numpy.ndarray: only numpy arrays and plain values are read")


_STAND_INS: Mapping[str, Callable[..., Any]] = {
    "numpy.ndarray": _refuse_call,  # named as an argument of _reconstruct
    "numpy.dtype": _DataType,
    "_codecs.encode": _make_bytes,
    "__builtin__.bytes": lambda: b"",  # how Python 3 writes empty bytes for older protocols
    "collections.OrderedDict": lambda items=(): dict(items),
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", lambda *_: _Array()),
            ("multiarray.scalar", lambda data_type, data: _Array(_make_tensor(data, data_type, (), "C"))),
            ("numeric._frombuffer", lambda data, *layout: _Array(_make_tensor(data, *layout))),
        )
    },
}
"""The functions that a pickle calls in place of numpy's and Python's, by the names of those; others are refused."""


def _to_tensors(value: Any) -> Any:
    """Return a value in which arrays are tensors; raise PickleError if it contains anything else than plain values."""
    if isinstance(value, dict):
        return {_require(key, str | int): _to_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_tensors(item) for item in value)
    if isinstance(value, _Array) and value.values is not None:
        return value.values
    return _require(value, str | bytes | bytearray | int | float | None)


def _require(value: Any, expected: Any) -> Any:
    """Return a value; raise PickleError if it has another type than ``expected``."""
    if not isinstance(value, expected):
        raise PickleError(f"the pickle has a value of type {type(value).__name__.strip('_')} in a wrong place")
    return value
