"""Pickling of a large object for several processes, with its numpy arrays in memory that the processes share."""

import copyreg
import io
import itertools
import mmap
import pickle
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

T = TypeVar("T")

_ALIGNMENT = 64  # bytes; arrays start at multiples of this


class SharedPickle(Generic[T]):
    """Stand-in for an object that is sent to several processes: unpickling it returns the object.

    The object is pickled once, in the constructor. Its numpy arrays are copied to shared memory, which every process
    maps; read-only memory maps of a file are mapped from the file again. In the receiving processes the arrays are
    read-only.
    """

    def __init__(self, value: T) -> None:
        buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        pickler = pickle.Pickler(stream, protocol=5, buffer_callback=buffers.append)
        pickler.dispatch_table = copyreg.dispatch_table | {ndarray: _reduce_array, np.memmap: _reduce_array}
        pickler.dump(value)
        self._pickle = stream.getvalue()
        contents = [buffer.raw() for buffer in buffers]
        sizes = [-(-content.nbytes // _ALIGNMENT) * _ALIGNMENT for content in contents]
        starts = itertools.accumulate(sizes, initial=0)
        self._spans = [(start, start + content.nbytes) for start, content in zip(starts, contents, strict=False)]
        self._memory = torch.zeros(max(1, sum(sizes)), dtype=torch.uint8).share_memory_()
        shared = self._memory.numpy().data
        for (start, end), content in zip(self._spans, contents, strict=True):
            shared[start:end] = content

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self._pickle, self._spans, self._memory)


def _load(pickled: bytes, spans: Sequence[tuple[int, int]], memory: Tensor) -> Any:
    """Load a pickled object whose arrays are at ``spans`` (start, end), in bytes, of the shared memory."""
    shared = memory.numpy().data.toreadonly()
    return pickle.loads(pickled, buffers=[shared[start:end] for start, end in spans])


def _reduce_array(array: ndarray) -> Any:
    """Reduce an array in a memory-mapped file to the path and its position, and any other array as numpy does."""
    root = array
    while isinstance(root, ndarray) and not isinstance(root.base, mmap.mmap):
        root = root.base
    if not (isinstance(root, np.memmap) and root.mode == "r" and root.filename and array.flags.c_contiguous):
        return array.__reduce_ex__(5)
    position = root.offset + array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return _map_file, (str(root.filename), array.dtype, position, array.shape)


def _map_file(path: str, dtype: np.dtype, position: int, shape: tuple[int, ...]) -> ndarray:
    """Map a part of a file into memory as a read-only array."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="r", offset=position, shape=shape)
