"""Files of image pairs in LFW's format: what is read, and what is refused with a line that says what is wrong."""

from pathlib import Path

import pytest

from vertebra.formats import ImagePair, read_pairs
from vertebra.structures import DataError

LFW = "2\t1\nAnn_Lee\t1\t3\nBob\t4\tAnn_Lee\t12\nBob\t10\t2\nCy\t1\tBob\t1\n"


def write(folder: Path, text: str) -> Path:
    (folder / "pairs.txt").write_text(text, encoding="utf-8")
    return folder / "pairs.txt"


def test_pairs_are_read_with_their_folds(tmp_path):
    """By hand: two folds of one pair of one class and one of two classes."""
    ann, bob, cy = "Ann_Lee/Ann_Lee_", "Bob/Bob_", "Cy/Cy_"
    assert read_pairs(write(tmp_path, LFW)) == [
        ImagePair(f"{ann}0001", f"{ann}0003", True, 0, 2),
        ImagePair(f"{bob}0004", f"{ann}0012", False, 0, 3),
        ImagePair(f"{bob}0010", f"{bob}0002", True, 1, 4),
        ImagePair(f"{cy}0001", f"{bob}0001", False, 1, 5),
    ]


@pytest.mark.parametrize(
    "text",
    [LFW.replace("\t", " "), LFW.replace("\n", "\r\n"), "\ufeff" + LFW, LFW.replace("\n", "\n\n"), LFW.rstrip("\n")],
    ids=["spaces", "windows", "byte order mark", "blank lines", "no last line break"],
)
def test_variants_of_a_text_file_are_read(text, tmp_path):
    """Law: the same pairs, whatever separates columns and lines."""
    expected = [(pair.first, pair.second, pair.same, pair.fold) for pair in read_pairs(write(tmp_path, LFW))]
    found = [(pair.first, pair.second, pair.same, pair.fold) for pair in read_pairs(write(tmp_path, text))]
    assert found == expected


def test_names_with_spaces_need_tabs(tmp_path):
    """By hand: in a line with tabs a space belongs to the name."""
    (pair, _) = read_pairs(write(tmp_path, "1\t1\nAnn Lee\t1\t2\nAnn Lee\t1\tBob\t1\n"))
    assert pair.first == "Ann Lee/Ann Lee_0001"


def test_development_view_has_one_fold(tmp_path):
    """By hand: pairsDevTest.txt has the number of pairs alone in its first line."""
    pairs = read_pairs(write(tmp_path, "2\nA 1 2\nA 2 3\nA 1 B 1\nA 1 C 1\n"))
    assert [(pair.same, pair.fold) for pair in pairs] == [(True, 0)] * 2 + [(False, 0)] * 2


# name: (text, case, the end of the message)
BAD = {
    "empty": ("", "bad-pairs", "line 1 is '', expected the numbers of folds and of pairs per fold"),
    "no header": (LFW.split("\n", 1)[1], "bad-pairs", "line 1 is 'Ann_Lee 1 3', expected the numbers of folds"),
    "zero folds": (LFW.replace("2\t1\n", "0\t1\n"), "bad-pairs", "line 1 is '0 1', expected"),
    "too few lines": (
        "10\t300\n" + LFW.split("\n", 1)[1],
        "bad-pair-count",
        "line 1 states 10 folds of 300 pairs of the same class and 300 of different classes, in total 6000",
    ),
    "too many lines": (LFW + "Bob\t1\t2\n", "bad-pair-count", "has 5 pairs, but line 1 states 2 folds of 1 pairs"),
    "two columns": (
        LFW.replace("Ann_Lee\t1\t3", "Ann_Lee\t1"),
        "bad-pairs",
        "line 2 has 2 columns, expected a name and",
    ),
    "five columns": (
        LFW.replace("Cy\t1", "Cy\t1\tx"),
        "bad-pairs",
        "line 5 has 5 columns, expected two names, each with",
    ),
    "order": (
        "1 1\nBob 4 Ann 1\nBob 1 2\n",
        "bad-pairs",
        "line 2 has 4 columns, expected a name and two numbers, for images of the same class",
    ),
    "not a number": (
        LFW.replace("Ann_Lee\t1\t3", "Ann_Lee\t1\tx"),
        "bad-pairs",
        "line 2 has the image numbers 1 and",
    ),
    "negative": (LFW.replace("Bob\t4", "Bob\t-4"), "bad-pairs", "line 3 has the image numbers -4 and 12"),
    "contradiction": (LFW.replace("Bob\t4", "Ann_Lee\t4"), "bad-pairs", "line 3 has two images of 'Ann_Lee', but is"),
    "itself": (LFW.replace("Bob\t10\t2", "Bob\t2\t02"), "bad-pairs", "line 4 compares image 2 of 'Bob' with itself"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pairs_file_is_refused_in_one_line(name, tmp_path):
    """docs/faults.md row 154. By hand: exit code 3, the file, the line and what is expected."""
    text, case, message = BAD[name]
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    assert caught.value.exit_code == 3 and caught.value.case == case
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_or_binary_pairs_file_is_refused(tmp_path):
    """docs/faults.md row 154. By hand: exit code 3 with the file."""
    with pytest.raises(DataError, match="missing-file"):
        read_pairs(tmp_path / "gone.txt")
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xfe1\x002")
    with pytest.raises(DataError, match="not valid UTF-8 at byte 0"):
        read_pairs(tmp_path / "pairs.txt")
