"""Division of a data set into training and validation images by a hash of the file names."""

import json
import shutil

import pytest

from vertebra.data import CocoConfig, HashSplitConfig, ShapeCropsConfig, ShapesPanopticConfig, build_dataset
from vertebra.data.hash_split import is_validation
from vertebra.structures import DataError, UsageError

from ..helpers.tiny_coco_file import tiny_content, totals_add_up, write_tiny


def file_names(dataset) -> list[str]:
    """Return the file names of all images of a data set."""
    return [dataset.file_name(index).rpartition("/")[2] for index in range(len(dataset))]


def open_parts(config, **options):
    """Return the training and the validation part of a data set."""
    return [build_dataset(HashSplitConfig(dataset=config, part=part, **options)) for part in ("train", "val")]


def test_parts_are_disjoint_and_complete(shapes):
    """Law: every image is in one part, with the annotations and the ground truth that the whole data set has."""
    config = CocoConfig(images=shapes / "train", annotations=shapes / "annotations" / "instances_train.json")
    whole = build_dataset(config)
    parts = open_parts(config, val_fraction=0.4)
    assert sorted([*parts[0].image_ids, *parts[1].image_ids]) == whole.image_ids and all(map(len, parts))
    assert not set(parts[0].image_ids) & set(parts[1].image_ids)
    for part in parts:
        assert part.classes == whole.classes
        for index, image_id in enumerate(part.image_ids):
            record, expected = part.read(index), whole.read(whole.image_ids.index(image_id))
            assert record.objects.boxes.tolist() == expected.objects.boxes.tolist()
    counts = [len(part.ground_truth()["annotations"]) for part in parts]
    assert sum(counts) == len(whole.ground_truth()["annotations"])
    assert all(totals_add_up(part.report) for part in parts)


def test_added_images_change_no_part():
    """Law: the part of a name does not depend on the other names."""
    names = [f"{number}.jpg" for number in range(400)]
    chosen = is_validation(names, 0.2)
    assert is_validation(names[:100], 0.2).tolist() == chosen[:100].tolist()
    assert 0.15 < chosen.mean() < 0.25


def test_each_part_has_an_image():
    """Law: for any number of images from two."""
    for count in (2, 3, 5):
        for fraction in (0.001, 0.999):
            chosen = is_validation([f"{number}.jpg" for number in range(count)], fraction)
            assert 0 < chosen.sum() < count


def test_moved_folder_has_the_same_parts(tmp_path):
    """Law: parts depend on the file names only; with the same name in several folders, on the path below the images."""
    config = write_tiny(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second" / "deeper")
    moved = CocoConfig(
        **{
            field: tmp_path / "second" / "deeper" / name
            for field, name in (("images", "images"), ("annotations", "annotations.json"))
        }
    )
    assert file_names(open_parts(config)[1]) == file_names(open_parts(moved)[1])
    content = tiny_content()
    for image in content["images"]:
        (tmp_path / "first" / "images" / str(image["id"])).mkdir()
        (tmp_path / "first" / "images" / image["file_name"]).rename(
            tmp_path / "first" / "images" / str(image["id"]) / "image.png"
        )
        image["file_name"] = f"{image['id']}/image.png"
    (tmp_path / "first" / "annotations.json").write_text(json.dumps(content))
    train, val = open_parts(config)
    assert len(train) + len(val) == 4 and len(train) and len(val)


def test_data_without_files_are_divided_by_id():
    """By hand: generated crops have no files; each part has images of its own."""
    train, val = open_parts(ShapeCropsConfig(split="train", count=10, size=32), val_fraction=0.5)
    assert not set(train.image_ids) & set(val.image_ids) and len(train) + len(val) == 10


def test_ground_truth_of_a_panoptic_part(tmp_path):
    """Law: the segments of a part are those of the whole data set."""
    config = ShapesPanopticConfig(split="train", train=4, val=2, size=64, root=tmp_path)
    whole = build_dataset(config).ground_truth()
    truth = open_parts(config, val_fraction=0.5)[1].ground_truth()
    assert len(truth) and all((truth[key].ids == whole[key].ids).all() for key in truth)


def test_one_image_cannot_be_divided(tmp_path):
    """docs/faults.md row 158. By hand: exit code 3 and what to do."""
    content = tiny_content()
    content["images"], content["annotations"] = content["images"][:1], content["annotations"][:2]
    with pytest.raises(DataError, match=r"only one image, which cannot be divided.*give validation data of its own"):
        open_parts(write_tiny(tmp_path, content))


def test_groups_are_kept_together(tmp_path):
    """Law: images of one group are in one part, which does not depend on the images of other groups."""
    content = tiny_content()
    for image, name in zip(content["images"], ("a_1.png", "a_2.png", "b_1.png", "c.png"), strict=True):
        image["file_name"] = name
    config = write_tiny(tmp_path, content)
    for image, number in zip(content["images"], (11, 12, 13, 14), strict=True):
        shutil.copy(tmp_path / "images" / f"{number}.png", tmp_path / "images" / image["file_name"])
    for fraction in (0.01, 0.3, 0.6, 0.99):
        parts = [set(file_names(part)) for part in open_parts(config, group=r"^(.+)_\d", val_fraction=fraction)]
        assert all(parts) and len({"a_1.png", "a_2.png"} & parts[0]) in (0, 2)
        assert parts[0] | parts[1] == {"a_1.png", "a_2.png", "b_1.png", "c.png"}


def test_group_that_cannot_be_used_is_refused(tmp_path):
    """docs/faults.md row 207. By hand: not an expression, and one group of all images."""
    config = write_tiny(tmp_path)
    with pytest.raises((UsageError, ValueError), match="not a regular expression"):
        HashSplitConfig(dataset=config, part="train", group="(")
    with pytest.raises(DataError, match="all images are in one group"):
        open_parts(config, group="png")
