"""JSON files: the fast parser gives what Python's own gives, and errors name the file and the place in it."""

import json
import math
import random
import struct

import pytest

from vertebra.formats.json_files import add_file_to_error, parse_json, read_json, write_json, write_text
from vertebra.structures import DataError


def random_float(rng: random.Random) -> float:
    """Return any finite double: all bit patterns are as likely."""
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
def test_a_value_is_the_one_that_pythons_parser_gives(seed):
    """Python's ``json``, to the last bit of every number and the type of every value."""
    rng = random.Random(seed)
    values = [random_value(rng) for _ in range(2000)]
    for ascii_only in (True, False):
        data = json.dumps(values, ensure_ascii=ascii_only).encode()
        assert repr(parse_json(data, "file")) == repr(json.loads(data)) == repr(values)


@pytest.mark.parametrize("text", ["[NaN, Infinity, -Infinity]", "[1e999, -1e999]", r'["\ud800"]', "[-0, -0.0]"])
def test_what_only_pythons_parser_accepts_is_accepted(text):
    """Python's ``json``: numbers that are none, and half a surrogate pair."""
    assert repr(parse_json(text.encode(), "file")) == repr(json.loads(text))


def test_a_byte_order_mark_is_skipped(tmp_path):
    """By hand: what an editor on Windows puts before the text."""
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
def test_a_file_that_is_no_json_is_named_with_the_place_where_it_breaks(data, message, tmp_path):
    """docs/faults.md rows 2, 3, 27, 28: exit code 3, one line."""
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_json(path)
    assert caught.value.exit_code == 3 and caught.value.file == str(path) and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """docs/faults.md row 1: exit code 3; a folder is no file."""
    with pytest.raises(DataError, match=r"missing-file: .*gone\.json: the file does not exist"):
        read_json(tmp_path / "gone.json")
    with pytest.raises(DataError, match=r"unreadable-file: .*cannot be read"):
        read_json(tmp_path)


def test_what_is_written_is_read_back(tmp_path):
    """A law, for text and for values; the file appears under its name alone."""
    value = {"ä": [1, 0.1, None], "b": "line\nbreak"}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    write_text(tmp_path / "text", "größe\n")
    assert (tmp_path / "text").read_bytes() == "größe\n".encode()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["text", "value.json"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    """By hand: the disk is full."""
    write_text(tmp_path / "file", "before")

    def refuse(*_, **__) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "file", "after")
    assert (tmp_path / "file").read_text() == "before"


def test_an_error_gets_the_file_it_is_about():
    """By hand: an error that names a file keeps it."""
    with pytest.raises(DataError) as caught, add_file_to_error("outer"), add_file_to_error("inner"):
        raise DataError("broken")
    assert caught.value.file == "inner"
