"""JSON Lines files: appended line by line, and read again after a kill."""

import math

import pytest

from vertebra.formats import JsonLinesWriter, encode_json_line, read_json_lines, read_lines_at
from vertebra.structures import DataError


@pytest.mark.parametrize("length", [0, 1, 10, 70_000])
def test_torn_last_line_is_removed(tmp_path, length):
    """By hand: bytes after the last line break are not read, and are removed when the file is opened again; also many,
    and in a file without a whole line."""
    path = tmp_path / "lines.jsonl"
    for whole in (b"", b'{"a": 1}\n{"b": "\\ud800"}\n'):
        path.write_bytes(whole + b"x" * length)
        assert [record for _, record in read_json_lines(path)] == [{"a": 1}, {"b": "\ud800"}][: whole.count(b"\n")]
        with JsonLinesWriter(path) as lines:
            lines.append(encode_json_line({"c": [2.5]}))
        assert path.read_bytes() == whole + b'{"c": [2.5]}\n'


def test_lines_are_read_in_any_order(tmp_path):
    """Law: the position of a line leads to its object."""
    path = tmp_path / "lines.jsonl"
    with JsonLinesWriter(path) as lines:
        for number in range(5):
            lines.append(encode_json_line({"number": number, "text": "ü\n" * number}))
    positions = [position for position, _ in read_json_lines(path)]
    assert [record["number"] for record in read_lines_at(path, positions[::-1])] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("line", ["[1]", "{", "", "null"])
def test_line_that_is_no_object_is_named(tmp_path, line):
    """By hand: DataError with the file and the number of the line."""
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(DataError, match=r"bad-json: .*lines\.jsonl: line 2 is not a JSON object"):
        list(read_json_lines(path))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_number_that_json_cannot_hold_is_refused(number):
    """By hand: DataError, as for results files."""
    with pytest.raises(DataError, match="non-finite-result: a score, box or embedding is NaN or infinite"):
        encode_json_line({"score": number})
