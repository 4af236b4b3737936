"""Reading pickle files of numpy arrays without unpickling them.

A pickle is a program for a stack machine, which can call any function. The machine here runs only the instructions for
plain values (dicts, lists, tuples, strings, numbers) and for numpy arrays of numbers, which it builds itself from their
bytes. No function that a file names is ever imported or called.
"""

import pickletools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MARK = object()
"""The marker on the stack before a sequence of values."""
_NUMBERS = re.compile(r"[biuf][1248]")
_BYTE_ORDERS = ("<", ">", "=", "|")


class PickleError(ValueError):
    """A pickle that holds other things than plain values and arrays of numbers, or that is damaged."""


@dataclass(frozen=True, slots=True)
class _Name:
    """The name of a function or class in a pickle, which is never imported."""

    name: str


@dataclass(slots=True)
class _DataType:
    """The data type of an array, such as ``f4``; ``order`` is its byte order."""

    code: str
    order: str = "="


@dataclass(slots=True)
class _Array:
    """An array whose values follow later in the pickle."""

    values: Tensor | None = None


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain values and numpy arrays, which become tensors; objects with other types are refused.

    Raises PickleError for a pickle with anything else, before anything in it is called.
    """
    with path.open("rb") as file:
        try:
            return _finish(_Machine().run(pickletools.genops(file)))
        except PickleError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
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


class _Machine:
    """A pickle machine that knows only plain values and arrays of numbers."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, instructions: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Any:
        """Run all instructions, and return the value on top of the stack."""
        for opcode, argument, _ in instructions:
            if opcode.name == "STOP":
                return self.stack.pop()
            self._run_instruction(opcode.name, argument)
        raise PickleError("the pickle has no end")

    def _run_instruction(self, instruction: str, argument: Any) -> None:
        """Run one instruction; raise PickleError for one that plain values and arrays do not need."""
        stack = self.stack
        match instruction:
            case "PROTO" | "FRAME":
                pass
            case _ if instruction in _NEW:
                stack.append(_NEW[instruction]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(int(instruction[-1]))))
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "LIST":
                stack.append(self._pop_to_mark())
            case "DICT":
                stack.append(_to_dict(self._pop_to_mark()))
            case "APPEND" | "APPENDS":
                values = self._pop(1) if instruction == "APPEND" else self._pop_to_mark()
                _require(stack[-1], list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = self._pop(2) if instruction == "SETITEM" else self._pop_to_mark()
                _require(stack[-1], dict).update(_to_dict(values))
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memo[len(self.memo) if argument is None else argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                stack.append(_check_name(self._pop(2) if argument is None else argument.split(" ", 1)))
            case "REDUCE":
                stack.append(_call(*self._pop(2)))
            case "BUILD":
                _set_state(stack[-2], *self._pop(1))
            case _ if instruction in _PUSH:
                stack.append(argument)
            case _:
                raise PickleError(f"the pickle has the instruction {instruction}, which plain values do not need")

    def _pop(self, count: int) -> list[Any]:
        """Remove the last ``count`` values and return them."""
        values = self.stack[len(self.stack) - count :]
        if len(values) < count:
            raise IndexError("its stack is empty")
        del self.stack[len(self.stack) - count :]
        return values

    def _pop_to_mark(self) -> list[Any]:
        """Remove the values above the last mark, and the mark, and return the values."""
        position = len(self.stack) - 1
        while self.stack[position] is not _MARK:
            position -= 1
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values


_NEW: Mapping[str, Callable[[], Any]] = {
    "MARK": lambda: _MARK,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
"""Instructions that push a new value."""
_PUSH = frozenset(
    """
    BINFLOAT BININT BININT1 BININT2 BINSTRING BINUNICODE BINUNICODE8 BINBYTES BINBYTES8 BYTEARRAY8 FLOAT INT LONG LONG1
    LONG4 SHORT_BINBYTES SHORT_BINSTRING SHORT_BINUNICODE STRING UNICODE
    """.split()  # noqa: SIM905
)
"""Instructions that push their argument."""


def _require(value: Any, expected: Any) -> Any:
    """Return a value; raise PickleError if it has another type than ``expected``."""
    if not isinstance(value, expected):
        raise PickleError(f"the pickle has a value of type {type(value).__name__.strip('_')} in a wrong place")
    return value


def _to_dict(values: Sequence[Any]) -> dict[str | int, Any]:
    """Return a dict of alternating keys and values."""
    return {_require(key, str | int): value for key, value in zip(values[::2], values[1::2], strict=True)}


def _check_name(parts: Sequence[Any]) -> _Name:
    """Return the name of a function or class, given as (module, name); raise PickleError unless it is a known one."""
    name = ".".join(_require(part, str) for part in parts)
    if name != "numpy.ndarray" and name not in _CALLS:
        raise PickleError(f"the pickle names {name}: only numpy arrays and plain values are read")
    return _Name(name)


def _call(called: Any, arguments: Any) -> Any:
    """Return what a function would return that a pickle names, without calling it."""
    name = _require(called, _Name).name
    if name not in _CALLS:
        raise PickleError(f"the pickle calls {name}: only numpy arrays and plain values are read")
    return _CALLS[name](*_require(arguments, tuple))


def _set_state(value: Any, state: Any) -> None:
    """Set the byte order of a data type, or the values of an array."""
    if isinstance(value, _DataType):
        value.order = _require(_require(state, tuple)[1], str)
    else:
        _, shape, data_type, by_columns, data = _require(state, tuple)
        _require(value, _Array).values = _make_tensor(data, data_type, shape, "F" if by_columns else "C")


def _make_data_type(code: Any, *_: Any) -> _DataType:
    """Return the data type with a code such as ``f4``; raise PickleError for one that does not stand for numbers."""
    if _NUMBERS.fullmatch(_require(code, str)) is None:
        raise PickleError(f"the pickle has an array of type {code!r}: only arrays of numbers are read")
    return _DataType(code)


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


def _make_scalar(data_type: Any, data: Any) -> _Array:
    """Return an array without dimensions."""
    return _Array(_make_tensor(data, data_type, (), "C"))


def _make_bytes(text: Any, encoding: Any) -> bytes:
    """Return the bytes that a text stands for, as Python 3 writes bytes for older protocols."""
    return _require(text, str).encode("latin1" if encoding == "latin1" else "utf-8")


_CALLS: Mapping[str, Callable[..., Any]] = {
    "numpy.dtype": _make_data_type,
    "_codecs.encode": _make_bytes,
    "__builtin__.bytes": lambda: b"",  # how Python 3 writes empty bytes for older protocols
    "collections.OrderedDict": lambda items=(): dict(items),
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", lambda *_: _Array()),
            ("multiarray.scalar", _make_scalar),
            ("numeric._frombuffer", lambda data, *layout: _Array(_make_tensor(data, *layout))),
        )
    },
}
"""Functions of this file that return what the functions of these names would return."""


def _finish(value: Any) -> Any:
    """Return a value in which arrays are tensors; raise PickleError if it contains parts of an array or names."""
    if isinstance(value, dict):
        return {key: _finish(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finish(item) for item in value)
    if isinstance(value, _Array) and value.values is not None:
        return value.values
    return _require(value, str | bytes | bytearray | int | float | None)
