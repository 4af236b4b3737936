"""Image folders with a list of pairs in LFW's format."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebra.data import ImageFolder, ImageFolderConfig
from vertebra.data.subset import SubsetDataset
from vertebra.structures import DataError

PAIRS = "2\t1\nAnn\t1\t2\nAnn\t3\tBob\t1\nBob\t1\t2\nBob\t2\tAnn\t1\n"


def write_people(root: Path, pairs: str = PAIRS) -> Path:
    """Write three images of Ann and two of Bob, as JPEG and PNG, and a file of pairs beside the folder."""
    for number, name in enumerate(("Ann_0001.jpg", "Ann_0002.png", "Ann_0003.jpg", "Bob_0001.jpg", "Bob_0002.jpg")):
        path = root / name.partition("_")[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (root.parent / "pairs.txt").write_text(pairs)
    return root


def open_people(root: Path, policy="error") -> ImageFolder:
    return ImageFolder(policy, ImageFolderConfig(root=root, pairs=root.parent / "pairs.txt"))


def shown(dataset) -> list[tuple]:
    return [(pair.first, pair.second, pair.same, pair.fold) for pair in dataset.pairs]


def test_pairs_have_the_ids_of_the_images(tmp_path):
    """By hand: the names in the list become image ids: paths below the root, with the suffix of the file."""
    dataset = open_people(write_people(tmp_path / "people"))
    assert shown(dataset) == [
        ("Ann/Ann_0001.jpg", "Ann/Ann_0002.png", True, 0),
        ("Ann/Ann_0003.jpg", "Bob/Bob_0001.jpg", False, 0),
        ("Bob/Bob_0001.jpg", "Bob/Bob_0002.jpg", True, 1),
        ("Bob/Bob_0002.jpg", "Ann/Ann_0001.jpg", False, 1),
    ]
    labels = dataset.ground_truth()
    assert all((labels[pair.first] == labels[pair.second]) == pair.same for pair in dataset.pairs)


def test_subset_keeps_the_pairs_of_its_images(tmp_path):
    """By hand: only one pair has both of its images in a subset of three images."""
    dataset = open_people(write_people(tmp_path / "people"))
    subset = SubsetDataset(dataset, ["Bob/Bob_0002.jpg", "Ann/Ann_0001.jpg", "Ann/Ann_0003.jpg"])
    assert shown(subset) == [("Bob/Bob_0002.jpg", "Ann/Ann_0001.jpg", False, 1)]
    assert len(ImageFolder("error", ImageFolderConfig(root=dataset.config.root)).pairs) == 0


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_pair_with_a_missing_image_is_an_error_or_skipped_and_counted(fault, tmp_path):
    """docs/faults.md row 155. By hand: exit code 3 with the file, its line and the image; or the pair is left out."""
    root = write_people(tmp_path / "people", PAIRS.replace("Bob\t2\tAnn\t1", "Bob\t2\tAnn\t9"))
    if fault == "damaged":
        (root / "Ann" / "Ann_0009.jpg").write_text("no image")
    else:
        with pytest.raises(DataError) as caught:
            open_people(root)
        assert caught.value.exit_code == 3 and str(caught.value) == (
            f"missing-image: {tmp_path / 'pairs.txt'}: image_id=Ann/Ann_0009: line 5 names an image that is not in the "
            "data set: correct the line, or add the image"
        )
    for policy in ("skip", "skip-any"):
        dataset = open_people(root, policy)
        assert len(dataset.pairs) == 3
        assert dataset.report.as_json()["noted"]["pair-without-image"] == {"count": 1, "ids": ["Ann/Ann_0009"]}


def test_pair_of_an_image_in_two_files_is_an_error_or_skipped_and_counted(tmp_path):
    """Symptom: the file that came last was used without a message. docs/faults.md row 155. By hand: exit code 3 with
    both files; or the pair is left out."""
    root = write_people(tmp_path / "people")
    Image.new("RGB", (16, 12)).save(root / "Ann" / "Ann_0003.png")
    with pytest.raises(DataError) as caught:
        open_people(root)
    assert caught.value.exit_code == 3 and str(caught.value) == (
        f"ambiguous-pair: {tmp_path / 'pairs.txt'}: image_id=Ann/Ann_0003: line 3 names an image that is in several "
        "files, Ann/Ann_0003.jpg and Ann/Ann_0003.png: remove all but one of them"
    )
    dataset = open_people(root, "skip")
    assert len(dataset.pairs) == 3
    assert dataset.report.as_json()["noted"]["ambiguous-pair"] == {"count": 1, "ids": ["Ann/Ann_0003"]}


def test_pairs_of_other_images_are_an_error_even_with_skip(tmp_path):
    """docs/faults.md row 155. By hand: exit code 3, because no pair is left."""
    root = write_people(tmp_path / "people", "1 1\nCy 1 2\nCy 1 Di 1\n")
    with pytest.raises(DataError, match=r"no-pairs: .*pairs\.txt: no pair of the file has both its images") as caught:
        open_people(root, "skip")
    assert caught.value.exit_code == 3
