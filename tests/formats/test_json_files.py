"""JSON files: the fast parser equals Python's, and errors name the file and the place in it."""

import json
import math
import random
import struct

import pytest

from vertebra.formats.json_files import add_file_to_error, parse_json, read_json, write_json, write_text
from vertebra.structures import DataError


def random_float(rng: random.Random) -> float:
    """Return any finite double; all bit patterns are equally likely."""
    while True:
        value = struct.unpack("<d", rng.randbytes(8))[0]
        if math.isfinite(value):
            return value


def random_value(rng: random.Random, depth: int = 4):
    """Return a value of any of JSON's types."""
    choice = rng.randrange(9 if depth else 7)
    if choice < 7:
        text = "".join(
            chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xA0, 0xD7FF), 10, 0x1F600])) for _ in "ab"
        )
        return [None, True, rng.randrange(-(2**70), 2**70), random_float(rng), text, rng.random(), rng.randrange(99)][
            choice
        ]
    values = [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return values if choice == 7 else {str(rng.randrange(5)): value for value in values}


@pytest.mark.parametrize("seed", range(3))
def test_values_equal_pythons_json(seed):
    """Oracle: Python's ``json``, to the last bit of every number and the type of every value."""
    rng = random.Random(seed)
    values = [random_value(rng) for _ in range(2000)]
    for ascii_only in (True, False):
        data = json.dumps(values, ensure_ascii=ascii_only).encode()
        assert repr(parse_json(data, "file")) == repr(json.loads(data)) == repr(values)


@pytest.mark.parametrize("text", ["[NaN, Infinity, -Infinity]", "[1e999, -1e999]", r'["\ud800"]', "[-0, -0.0]"])
def test_nan_and_lone_surrogates_are_accepted_as_in_python(text):
    """Oracle: Python's ``json``: NaN, infinities, and half of a surrogate pair."""
    assert repr(parse_json(text.encode(), "file")) == repr(json.loads(text))


def test_byte_order_mark_is_skipped(tmp_path):
    """docs/faults.md row 27. By hand: the mark that Windows editors write before the text."""
    (tmp_path / "file.json").write_text('{"a": [1]}', encoding="utf-8-sig")
    assert read_json(tmp_path / "file.json") == {"a": [1]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "bad-json: .*the file is empty"),
        (b" \n", "bad-json: .*the file is empty"),
        (b'{"a": 1,\n "b"', "bad-json: .*not valid JSON at line 2, column "),
        (b"[1, 2,]", "bad-json: .*line 1, column "),
        (b"[" * 100_000, "bad-json: .*nested too deeply"),
        (b"[" + b"1" * 5000 + b"]", "bad-json: .*not valid JSON: .*digits"),
        (b'["\xff"]', "bad-json: .*not valid UTF-8 at byte 2"),
    ],
)
def test_invalid_json_names_file_and_position(data, message, tmp_path):
    """docs/faults.md rows 2, 3, 27, 28. By hand: exit code 3, one line."""
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_json(path)
    assert caught.value.exit_code == 3 and caught.value.file == str(path) and "\n" not in str(caught.value)


def test_unreadable_file_is_named(tmp_path):
    """docs/faults.md row 1. By hand: exit code 3; for a folder too."""
    with pytest.raises(DataError, match=r"missing-file: .*gone\.json: the file does not exist"):
        read_json(tmp_path / "gone.json")
    with pytest.raises(DataError, match=r"unreadable-file: .*cannot be read"):
        read_json(tmp_path)


def test_written_json_is_read_back(tmp_path):
    """Law: for text and for values; no other file remains."""
    value = {"ä": [1, 0.1, None], "b": "line\nbreak"}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    write_text(tmp_path / "text", "größe\n")
    assert (tmp_path / "text").read_bytes() == "größe\n".encode()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["text", "value.json"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    """By hand: the disk is full."""
    write_text(tmp_path / "file", "before")

    def refuse(*_, **__) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "file", "after")
    assert (tmp_path / "file").read_text() == "before"


def test_file_is_added_to_an_error_without_one():
    """By hand: an error that already names a file keeps it."""
    with pytest.raises(DataError) as caught, add_file_to_error("outer"), add_file_to_error("inner"):
        raise DataError("broken")
    assert caught.value.file == "inner"
