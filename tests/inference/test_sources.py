"""Sources: the images and videos that paths, folders, patterns, lists and numbers stand for."""

from pathlib import Path

import pytest

from vertebra.inference import Sources, find_sources, listed_name
from vertebra.structures import UsageError

FILES = ("1.jpg", "2.PNG", "sub/3.bmp", "sub/deep/4.webp", "notes.md", "clip.mp4", "sub/out/5.jpg")


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Return a folder of empty files, inside the working directory."""
    for name in FILES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def names(sources: Sources) -> list[str]:
    return [file.name for file in sources.images]


def test_folder_stands_for_its_images(photos):
    """By hand: sorted, with or without subfolders, without the output folder; names are below the folder."""
    assert names(find_sources([photos])) == ["1.jpg", "2.PNG", "sub/3.bmp", "sub/deep/4.webp", "sub/out/5.jpg"]
    assert names(find_sources([photos], recursive=False)) == ["1.jpg", "2.PNG"]
    outside = Path.cwd() / "photos" / "sub" / "out"
    assert names(find_sources([photos], outside=outside)) == ["1.jpg", "2.PNG", "sub/3.bmp", "sub/deep/4.webp"]


def test_pattern_stands_for_its_files(photos):
    """By hand: names are below the part without wildcards, as those of a folder are."""
    assert names(find_sources(["photos/*.[jp]*g"])) == ["1.jpg"]
    found = find_sources([str(photos.resolve() / "**" / "*.*p*")])
    assert names(found) == ["1.jpg", "sub/3.bmp", "sub/deep/4.webp", "sub/out/5.jpg"]
    assert [file.name for file in found.videos] == ["clip.mp4"]


def test_file_whose_name_has_wildcards_is_a_file(photos):
    """By hand: a path that exists is no pattern."""
    (photos / "a[1].jpg").touch()
    assert names(find_sources(["photos/a[1].jpg"])) == ["a[1].jpg"]


def test_list_stands_for_its_paths(photos):
    """By hand: relative to the list or to the working directory; blank lines and line ends of Windows are ignored."""
    lines = ["1.jpg", "", "photos/sub/3.bmp", str(photos.resolve() / "2.PNG"), "  ../photos/sub/deep/4.webp ", "no.jpg"]
    (photos / "list.txt").write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    found = find_sources([photos / "list.txt"])
    absolute = "/".join((photos.resolve() / "2.PNG").parts[1:])
    assert names(found) == ["1.jpg", "photos/sub/3.bmp", absolute, "photos/sub/deep/4.webp", "no.jpg"]
    assert [file.path.exists() for file in found.images] == [True, True, True, True, False]


def test_image_that_is_given_twice_is_taken_once(photos):
    """By hand: with the name of its first source."""
    assert names(find_sources(["photos/sub/3.bmp", photos, photos / "1.jpg"])) == [
        *("3.bmp", "1.jpg", "2.PNG", "sub/deep/4.webp", "sub/out/5.jpg")
    ]


def test_videos_cameras_and_standard_input(photos):
    """By hand: by suffix, number and dash; a file with a number as its name is a file."""
    found = find_sources([photos / "clip.mp4", "0", "-"])
    assert (found.images, found.cameras, found.reads_input) == ((), (0,), True)
    assert [file.name for file in found.videos] == ["clip.mp4"]
    Path("0").touch()
    assert names(find_sources(["0"])) == ["0"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg: there is no such image or folder"),
        ("photos/empty", "there are no images in this folder"),
        ("photos/*.gif", "there are no images in this pattern"),
        ("photos/empty.txt", "there are no images in this list"),
        ("photos/latin.txt", "this list of paths cannot be read"),
    ],
)
def test_word_that_stands_for_nothing_is_refused(photos, word, message):
    """By hand: UsageError naming it."""
    (photos / "empty").mkdir()
    (photos / "empty.txt").write_text("\n \n")
    (photos / "latin.txt").write_bytes(b"\xe4.jpg\n")
    with pytest.raises(UsageError, match=message):
        find_sources([word])


@pytest.mark.parametrize(
    ("word", "name"),
    [("a/b.jpg", "a/b.jpg"), ("/a/b.jpg", "a/b.jpg"), ("../../a/./b.jpg", "a/b.jpg"), ("b.jpg", "b.jpg")],
)
def test_names_of_listed_files_stay_in_the_output_folder(word, name):
    """By hand: a root and ``..`` are left out."""
    assert listed_name(word) == name
