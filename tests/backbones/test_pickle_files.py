"""Reading of pickle files: the values that Python reads, and nothing that could run code."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from vertebra.backbones.pickle_files import PickleError, read_pickle, read_pickled_state_dict
from vertebra.backbones.weight_files import read_state_dict
from vertebra.structures import CheckpointError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def as_arrays(value):
    """Return a value with tensors replaced by arrays."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: as_arrays(item) for key, item in value.items()}
    return type(value)(map(as_arrays, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_are_those_that_python_reads(protocol, tmp_path):
    """Oracle: pickle.loads, for every protocol: containers, numbers, texts and arrays of several types and layouts."""
    rows = np.arange(6, dtype="float32").reshape(2, 3)
    shared = ["twice"]
    content = {
        "model": {"rows": rows, "columns": np.asfortranarray(rows), "big": rows.astype(">f8"), "none": np.zeros(0)},
        "numbers": [1, -(2**70), 2.5, True, None, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), shared, shared],
        "scalars": {"array": np.array(7), "number": np.float32(3), "flag": np.array([True, False]), 3: "three"},
        "text": ["name", "Straße", b"bytes"],
        "half": np.array([1, 2], "float16"),
    }  # fmt: skip
    file = tmp_path / "values.pkl"
    file.write_bytes(pickle.dumps(content, protocol))
    np.testing.assert_equal(as_arrays(read_pickle(file)), pickle.loads(file.read_bytes()))


def test_pickle_of_python_2_is_read(tmp_path):
    """By hand: a pickle in the form of Python 2 is read: the bytes of its array are a string (opcode BINSTRING)."""
    file = tmp_path / "python2.pkl"
    data = np.array([1.5, -2.0], "<f4").tobytes()
    file.write_bytes(
        b"\x80\x02}U\x07conv1_w"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"  # an empty array
        b"(K\x01K\x02\x85"  # its version and shape
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + data + b"tb"  # its order and values
        b"s."
    )
    assert read_pickle(file)["conv1_w"].tolist() == [1.5, -2.0]


class Command:
    """An object whose unpickling runs a command, which creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


class Expression:
    """An object whose unpickling evaluates an expression, through getattr."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return eval, (f"__import__('pathlib').Path({str(self.canary)!r}).touch()",)


class Attribute:
    """An object whose unpickling calls a method that it gets by name."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return getattr, (self.canary, "touch")


HARMFUL = {
    "command": Command,
    "expression": Expression,
    "attribute": Attribute,
    "nested in a dict": lambda canary: {"model": {"weight": np.ones(2), "more": [(1, Command(canary))]}},
    "array of objects": lambda canary: {"model": {"weight": np.array([Command(canary)], dtype=object)}},
    "key": lambda canary: {("a", Command(canary)): 1},
    "instance": lambda canary: {"model": canary},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("attack", HARMFUL)
def test_pickled_code_is_not_run(attack, protocol, tmp_path):
    """A file of weights with code is refused as a whole, and the code is not run (docs/faults.md row 100)."""
    canary = tmp_path / "canary"
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps(HARMFUL[attack](canary), protocol))
    with pytest.raises(PickleError, match=r"the pickle (names|has) .*(posix|nt|builtin|pathlib|'O8'|NEWOBJ)"):
        read_pickle(file)
    with pytest.raises(CheckpointError, match=r"model\.pkl: cannot be read: the pickle "):
        read_state_dict(file)
    assert not canary.exists()


def test_control_the_canary_is_created_by_pickle(tmp_path):
    """Control: Python's own reader runs the command."""
    pickle.loads(pickle.dumps(Command(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


OTHER_ARRAYS = {
    "texts": np.array(["a"]),
    "fields": np.zeros(1, dtype=[("a", "f4")]),
    "dates": np.zeros(1, dtype="M8[s]"),
    "complex numbers": np.zeros(1, dtype="c8"),
}


@pytest.mark.parametrize("array", OTHER_ARRAYS.values(), ids=OTHER_ARRAYS)
def test_arrays_of_other_things_than_numbers_are_refused(array, tmp_path):
    """By hand: arrays of strings, dates or records are refused, and the message names their type."""
    file = tmp_path / "array.pkl"
    file.write_bytes(pickle.dumps(array))
    with pytest.raises(PickleError, match=r"an array of type '\w+': only arrays of numbers are read"):
        read_pickle(file)


INVALID = {
    "too few values": pickle.dumps(np.zeros(3, "f4"), 4).replace(b"K\x03\x85", b"K\x04\x85"),
    "extension": b"\x80\x02\x82\x01.",
    "persistent id": b"Pname\n.",
    "old instance": b"(ios\nsystem\n.",
    "call of a type": b"\x80\x02cnumpy\nndarray\n)R.",
    "state of a dict": b"\x80\x02})b.",
    "name alone": b"\x80\x02cnumpy\nndarray\n.",
    "array without values": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.",
    "values that are a list": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01)cnumpy\ndtype\nU\x02f4\x85R"
    b"\x89]tb.",
    "empty stack": b"\x80\x02a.",
    "no mark": b"\x80\x02]t.",
    "unknown memo": b"\x80\x02h\x05.",
    "list in itself": b"\x80\x02]q\x00h\x00a.",
    "unhashable key": b"\x80\x02}]K\x01s.",
    "no end": b"\x80\x02]",
    "empty": b"",
    "torch file": b"PK\x03\x04rest",
    "truncated": pickle.dumps({"a": np.zeros(50)})[:-60],
}  # fmt: skip


@pytest.mark.parametrize("content", INVALID.values(), ids=INVALID)
def test_invalid_pickles_are_refused(content, tmp_path):
    """Pickles that are damaged, or hold other things than plain values and arrays (docs/faults.md row 156)."""
    file = tmp_path / "invalid.pkl"
    file.write_bytes(content)
    with pytest.raises(PickleError, match=r"^the pickle "):
        read_pickle(file)


def test_tensors_are_found_under_the_usual_keys(tmp_path):
    """By hand: the layouts of detectron2, of the first Detectron's models and of Caffe2's backbones."""
    weight = np.ones(2, "float32")
    layouts = {
        "detectron2": {"model": {"w": weight}, "__author__": "torchvision", "matching_heuristics": True},
        "detectron": {"blobs": {"w": weight, "w_momentum": weight}, "cfg": "MODEL: ..."},
        "caffe2": {"w": weight},
    }
    for author, content in layouts.items():
        file = tmp_path / "model.pkl"
        file.write_bytes(pickle.dumps(content))
        tensors, stated = read_pickled_state_dict(file)
        assert list(tensors) == ["w"]
        assert stated == ("torchvision" if author == "detectron2" else "")


@pytest.mark.parametrize("content", [[1], {"model": [1]}, {"a": 1}, {"model": {3: np.ones(1)}}], ids=str)
def test_pickles_without_tensors_are_refused(content, tmp_path):
    """Harmless pickles that hold no state dict are refused (docs/faults.md row 156)."""
    file = tmp_path / "other.pkl"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(PickleError, match="does not hold arrays by name"):
        read_pickled_state_dict(file)
