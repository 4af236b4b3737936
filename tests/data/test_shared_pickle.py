"""SharedPickle: values for several processes, whose arrays are shared, read-only and equal to the originals."""

import multiprocessing
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

from vertebra.data.shared_pickle import SharedPickle


def pickled(value) -> bytes:
    """Return the bytes that are sent to a process, as ``multiprocessing`` pickles a value."""
    return bytes(ForkingPickler.dumps(value))


@pytest.fixture
def mapped(tmp_path) -> np.memmap:
    """Return a memory-mapped file with 10,000 rows of two numbers."""
    np.save(tmp_path / "rows.npy", np.arange(20_000).reshape(-1, 2))
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


def test_shared_arrays_equal_the_originals():
    """Law: any dtype, memory order and length; views, and arrays that two names share."""
    boxes = np.random.default_rng(0).random((50, 4), np.float32)
    value = {
        "boxes": boxes,
        "same": boxes,
        "columns": np.asfortranarray(boxes),
        "view": boxes[::2, 1:],
        "empty": np.empty((0, 4)),
        "names": np.array([b"a.jpg", b"bc.jpg"]),
        "objects": np.array([None, "text"], object),
        "scalar": np.array(3),
        "plain": [1, "two"],
    }
    again = pickle.loads(pickled(SharedPickle(value)))
    assert again.keys() == value.keys() and again["plain"] == value["plain"]
    for name in set(value) - {"plain"}:
        assert again[name].dtype == value[name].dtype and np.array_equal(again[name], value[name]), name
    assert again["same"] is again["boxes"]


def test_pickle_size_does_not_grow_with_the_arrays():
    """By hand: 8 MB of numbers in a few hundred bytes, twice; an ordinary pickle contains all of them."""
    numbers = np.arange(1_000_000)
    stand_in = SharedPickle({"numbers": numbers})
    for _ in range(2):
        assert len(pickled(stand_in)) < 2000
    assert len(pickled({"numbers": numbers})) > 8_000_000


def test_shared_arrays_are_read_only():
    """Law: no process can change what others read."""
    again = pickle.loads(pickled(SharedPickle(np.arange(5))))
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 7


def test_memory_mapped_file_is_mapped_again(mapped):
    """Oracle: numpy's own map of the same part of the file: all of it, a slice, and an array made from it."""
    value = (mapped, mapped[100:200], np.asarray(mapped[5:]), mapped[:0])
    stand_in = SharedPickle(value)
    assert len(stand_in._memory) == 1  # nothing is copied
    again = pickle.loads(pickled(stand_in))
    for before, after in zip(value, again, strict=True):
        assert np.array_equal(before, after) and before.dtype == after.dtype
    assert all(isinstance(part, np.memmap) for part in again[:3])


def test_strided_view_of_a_mapped_file_is_copied(mapped):
    """Law: it is equal, although its rows are not adjacent in the file."""
    again = pickle.loads(pickled(SharedPickle(mapped[::3, 1])))
    assert np.array_equal(again, mapped[::3, 1])


def _send_sum(value: np.ndarray, sender) -> None:
    sender.send((float(value.sum()), value.flags.writeable))


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_other_process_receives_an_equal_array(method, monkeypatch, request):
    """Law: for any start method the sum in the other process is the sum in this one."""
    monkeypatch.syspath_prepend(request.config.rootpath.parent)  # pytest names the module by the checkout's folder
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    value = np.arange(1000.0)
    process = context.Process(target=_send_sum, args=(SharedPickle(value), sender))
    if method == "fork":
        process = context.Process(target=_send_sum, args=(value, sender))
    process.start()
    assert receiver.poll(120)
    assert receiver.recv() == (value.sum(), method == "fork")
    process.join()
