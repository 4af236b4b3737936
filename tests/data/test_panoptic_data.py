"""Panoptic data sets: targets from the PNG files, and the faults of their JSON and PNG files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebra.data import (
    CocoPanopticConfig,
    ResizeConfig,
    ShapesPanopticConfig,
    build_dataset,
    build_transform,
)
from vertebra.data.coco_format import panoptic_opening
from vertebra.data.shapes import CLASS_NAMES, STUFF_NAMES, SceneConfig, draw_scene, folder, write_shapes
from vertebra.structures import DataError, UsageError
from vertebra.tools.cli import main

from ..helpers.panoptic import CLASSES, HEIGHT, IDS, WIDTH, change_json, write_tiny_panoptic


@pytest.fixture
def config(tmp_path) -> CocoPanopticConfig:
    return write_tiny_panoptic(tmp_path / "tiny")


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    """Return a folder of generated scenes with stuff."""
    root = tmp_path_factory.mktemp("panoptic") / "shapes"
    write_shapes(root, train=4, val=2, config=SceneConfig(size=80, stuff=True))
    return root


def test_targets_by_hand(config):
    """By hand: one cat with its box and mask, a crowd of dogs as an ignore region, and the class map with the stuff
    first, one class for things, and 255 for void and the crowd."""
    data = build_dataset(config)
    assert data.task == "panoptic" and data.image_ids == [1, 2] and data.sizes.tolist() == [[HEIGHT, WIDTH]] * 2
    record = data.read(1)
    assert record.objects.boxes.tolist() == [[0, 1, 3, 3]] and record.objects.labels.tolist() == [0]
    assert record.objects.ignored.tolist() == [[2, 2, 3, 3]]
    np.testing.assert_array_equal(record.objects.masks, [IDS == 5])
    expected = [[255, 255, 0, 0, 0, 0], [2, 2, 2, 0, 0, 0], [2, 2, 255, 0, 0, 0], [1] * 6]
    assert record.semantic.tolist() == expected
    assert data.classes["panoptic"] == CLASSES
    assert data.classes["detection"].names == ("cat", "dog", "cow") and data.classes["detection"].ids == (3, 8, 20)
    assert data.classes["semantic"].names == ("sky", "road", "things") and data.classes["semantic"].ids == (100, 199, 0)
    assert data.image_labels().tolist() == [[0, 0], [0, 3], [0, 4], [1, 0], [1, 3], [1, 4]]


def test_class_map_with_a_class_for_each_thing(config):
    """By hand: with ``semantic_things="each"`` the thing classes follow the stuff; with ``crowd="class"`` crowds have
    their class."""
    data = build_dataset(config.replace(semantic_things="each", crowd="class"))
    assert data.classes["semantic"].names == ("sky", "road", "cat", "dog", "cow")
    expected = [[255, 255, 0, 0, 0, 0], [2, 2, 2, 0, 0, 0], [2, 2, 3, 0, 0, 0], [1] * 6]
    assert data.read(0).semantic.tolist() == expected
    assert data.part("semantic").image_labels().tolist()[:3] == [[0, 2], [0, 0], [0, 1]]


def test_chosen_classes_have_their_order_and_others_are_void(config):
    """By hand: the labels follow the config; sky is left out, and its pixels are void."""
    data = build_dataset(config.replace(things=("dog", "cat"), stuff=("road",)))
    assert data.classes["panoptic"].names == ("dog", "cat", "road") and data.classes["panoptic"].num_things == 2
    record, truth = data.read(0), data.ground_truth()[1]
    assert record.objects.labels.tolist() == [1]
    assert record.semantic.tolist()[0] == [255] * 6 and record.semantic.tolist()[3] == [0] * 6
    assert [segment.label for segment in truth.segments] == [1, 0, 2] and not (truth.ids == 7).any()
    names = CocoPanopticConfig(images=Path(), annotations=Path(), things=("a", "b"), stuff=("c",)).classes()
    assert names == {"panoptic": ("a", "b", "c"), "detection": ("a", "b"), "semantic": ("c", "things")}
    with pytest.raises(UsageError, match="there is no class 'catt' in the annotations: did you mean 'cat'"):
        build_dataset(config.replace(things=("catt",)))
    with pytest.raises(ValueError, match="these classes are named twice: cat"):
        config.replace(things=("cat",), stuff=("cat",))
    with pytest.raises(UsageError, match="the classes of coco_panoptic are in its files"):
        config.classes()


def test_parts_have_the_ground_truth_of_their_task(config):
    """Law: a part's record has the values of its task alone; COCO's entries of things are those of the PNG file."""
    data = build_dataset(config)
    boxes, maps = data.part("detection"), data.part("semantic")
    assert data.part("panoptic") is data and boxes.masks and not maps.masks
    assert boxes.read(0).semantic is None and maps.read(0).objects is None
    np.testing.assert_array_equal(maps.ground_truth()[2], data.read(1).semantic)
    truth = boxes.ground_truth()
    assert [image["id"] for image in truth["images"]] == [1, 2]
    first, crowd = truth["annotations"][:2]
    assert (first["bbox"], first["area"], first["iscrowd"], first["category_id"]) == ([0, 1, 3, 2], 5.0, 0, 3)
    assert crowd["iscrowd"] == 1 and [category["name"] for category in truth["categories"]] == ["cat", "dog", "cow"]
    assert boxes.image_labels().tolist() == [[0, 0], [1, 0]] and len(boxes) == 2
    with pytest.raises(UsageError, match="no annotations for classification, only for panoptic and detection and sem"):
        data.part("classification")


def test_objects_and_class_map_get_the_same_transform(generated):
    """Law: after a resize and a flip, the masks of things are where the class map has things."""
    files = generated / "coco"
    config = CocoPanopticConfig(images=files / "train", annotations=files / "annotations" / "panoptic_train.json")
    data = build_dataset(config.replace(crowd="class"))
    sample = build_transform(ResizeConfig(short_sides=(60,), flip=1.0))(data.read(0), 0, 0)
    things = sample.target["detection"].masks.any(dim=0)
    semantic = sample.target["semantic"]
    assert tuple(semantic.shape) == tuple(sample.image.shape[1:]) and things.any()
    assert ((semantic == len(STUFF_NAMES)) == things).float().mean() > 0.98


def test_generated_scenes_are_read_back(generated):
    """Law: the segments read are the objects and the stuff that were drawn, with the same ids as in the COCO file."""
    data = build_dataset(ShapesPanopticConfig(split="val", train=4, val=2, size=80, root=generated))
    assert data.classes["panoptic"].names == (*CLASS_NAMES, *STUFF_NAMES) and data.image_ids == [1000001, 1000002]
    assert ShapesPanopticConfig(split="val").classes() == {
        task: classes.names for task, classes in data.classes.items()
    }
    for index in range(2):
        scene = draw_scene(SceneConfig(size=80, stuff=True), 0, "val", index)
        record, truth = data.read(index), data.ground_truth()[data.image_ids[index]]
        np.testing.assert_array_equal(record.image, scene.image)
        objects = [obj for obj in scene.objects if not obj.crowd]
        np.testing.assert_array_equal(record.objects.masks, np.array([obj.mask for obj in objects]))
        assert record.objects.boxes.tolist() == [list(map(float, obj.box)) for obj in objects]
        hidden = np.any([obj.mask for obj in scene.objects], axis=0)
        stuff = np.where(hidden, 255, scene.stuff)
        drawn = {segment.label - 8: truth.mask(segment) for segment in truth.segments if not segment.is_thing}
        for label in range(len(STUFF_NAMES)):
            np.testing.assert_array_equal(drawn.get(label, np.zeros(stuff.shape, bool)), stuff == label)
        assert any(segment.crowd for segment in truth.segments) == any(obj.crowd for obj in scene.objects)


def test_command_writes_the_files_of_the_data_set(generated, tmp_path, capsys):
    """Law: ``make-shapes --stuff`` writes the files of the data set, byte for byte, and prints their folder."""
    arguments = ["--train", "4", "--val", "2", "--size", "80", "--stuff"]
    assert main(["make-shapes", str(tmp_path / "out"), *arguments]) == 0
    assert "COCO panoptic: " in capsys.readouterr().out
    files = [path for path in sorted(generated.rglob("*")) if path.is_file()]
    assert len(files) > 6 * 6
    assert all(path.read_bytes() == (tmp_path / "out" / path.relative_to(generated)).read_bytes() for path in files)


def test_checks_are_cached_until_a_file_changes(config, tmp_path, monkeypatch):
    """Law: opened again, a data set has the same arrays without reading the file; a changed PNG is checked again."""
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(panoptic_opening, "MIN_CACHED_BYTES", 0)
    first = build_dataset(config)
    with monkeypatch.context() as patched:
        patched.setattr(panoptic_opening, "_build", lambda *arguments: pytest.fail("built again"))
        again = build_dataset(config)
    assert again.classes == first.classes and again.image_ids == first.image_ids
    np.testing.assert_array_equal(again.read(0).semantic, first.read(0).semantic)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(config.folder / "1.png")
    with pytest.raises(DataError, match="empty-segment"):
        build_dataset(config)


def segments(content: dict) -> list[dict]:
    return content["annotations"][0]["segments_info"]


FAULTS = {
    "id 0": (lambda c: segments(c)[0].update(id=0), "bad-segment-id", "ann_id=0: has the segment id 0, which is not a"),
    "id too large": (lambda c: segments(c)[0].update(id=2**24), "bad-segment-id", "from 1 to 16777215"),
    "id as text": (lambda c: segments(c)[0].update(id="5"), "bad-segment-id", "has the segment id '5'"),
    "id twice": (lambda c: segments(c)[1].update(id=5), "duplicate-segment", "ann_id=5: has this segment id twice"),
    "category": (lambda c: segments(c)[0].update(category_id=4), "unknown-category", "ann_id=5: is about category 4"),
    "crowd": (lambda c: segments(c)[0].update(iscrowd="0"), "bad-crowd", "has the iscrowd '0'"),
    "area": (lambda c: segments(c)[0].update(area=float("nan")), "bad-area", "ann_id=5: has the area nan"),
    "box": (lambda c: segments(c)[0].update(bbox=[0, 0, float("inf"), 1]), "non-finite-box", "which is not finite"),
    "list": (lambda c: c["annotations"][0].update(segments_info={}), "bad-annotation", "not a list of objects"),
    "file name": (lambda c: c["annotations"][0].pop("file_name"), "bad-annotation", "has the file_name None"),
    "no entry": (lambda c: c["annotations"].pop(0), "missing-annotation", "image_id=1: the image has no entry in"),
    "no PNG": (lambda c: c["annotations"][0].update(file_name="9.png"), "missing-mask", "the image has no mask"),
    "outside": (lambda c: c["annotations"][0].update(file_name="../9.png"), "outside-root", "set allow_outside"),
    "size": (lambda c: c["images"][0].update(height=9), "wrong-size", "says 9x6 .height x width., the image is 4x6"),
    "missing segment": (lambda c: segments(c).pop(), "unlisted-segment", "ann_id=9: the pixel in row 3, column 0"),
    "empty segment": (
        lambda c: segments(c).append({"id": 12, "category_id": 3}), "empty-segment", "ann_id=12: the segment has no",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_bad_image_is_an_error_or_skipped_and_counted(name, config):
    """docs/faults.md row 146. By hand: one line with the file, the image and the segment; with ``skip`` the image is
    left out and counted."""
    change, case, message = FAULTS[name]
    change_json(config, change)
    with pytest.raises(DataError, match=message) as caught:
        build_dataset(config)
    assert caught.value.case == case and caught.value.exit_code == 3 and caught.value.image_id == 1
    assert "\n" not in str(caught.value) and caught.value.file.endswith((".json", ".png"))
    data = build_dataset(config, bad_data="skip")
    assert data.image_ids == [2] and data.report.as_json()["skipped"]["images"][case]["count"] == 1
    assert data.report.as_json()["totals"]["images"] == {"read": 2, "used": 1, "skipped": 1}


BROKEN = {
    "isthing": (lambda c: c["categories"][0].pop("isthing"), "bad-category", "the category 'cat' has the isthing None"),
    "no stuff": (lambda c: [each.update(isthing=1) for each in c["categories"]], "no-categories", "isthing of 0"),
    "no categories": (lambda c: c.pop("categories"), "no-categories", "there is no list 'categories'"),
    "no annotations": (lambda c: c.pop("annotations"), "no-annotations", "there is no list 'annotations'"),
    "two entries": (
        lambda c: c["annotations"].append(c["annotations"][0]), "duplicate-annotation", "is the second entry about",
    ),
}  # fmt: skip


@pytest.mark.parametrize("policy", ["error", "skip"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_an_error_even_with_skip(name, policy, config):
    """docs/faults.md rows 6, 7, 147. By hand: such a file cannot be used."""
    change, case, message = BROKEN[name]
    change_json(config, change)
    with pytest.raises(DataError, match=message) as caught:
        build_dataset(config, bad_data=policy)
    assert caught.value.case == case


def test_entry_of_an_unknown_image_is_an_error_or_counted(config):
    """docs/faults.md row 14. By hand."""
    change_json(config, lambda content: content["annotations"][0].update(image_id=3))
    with pytest.raises(DataError, match=r"unknown-image: .*image_id=3: is about image 3, which is not in the file"):
        build_dataset(config)
    data = build_dataset(config, bad_data="skip")
    assert data.image_ids == [2] and data.report.as_json()["noted"]["unknown-image"]["count"] == 1


def test_bad_pixels_that_were_not_decoded_at_the_start_are_found_when_read(config, monkeypatch):
    """docs/faults.md row 146. By hand: beyond the files that are decoded at the start, the error comes with the
    image."""
    monkeypatch.setattr(panoptic_opening, "DECODED_AT_START", 1)
    change_json(config, lambda content: content["annotations"][1].update(segments_info=[{"id": 5, "category_id": 3}]))
    data = build_dataset(config)
    data.read(0)
    with pytest.raises(DataError, match=r"unlisted-segment: .*2.png: image_id=2: ann_id=7: the pixel in row 0, col"):
        data.read(1)
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(config.folder / "2.png")
    with pytest.raises(DataError, match="bad-segment-png"):  # the headers of all files are read at the start
        build_dataset(config)


def test_generated_stuff_never_changes():
    """By hand: a digest of images and stuff. If it has to change, increase ``DRAWING_VERSION``."""
    digest, classes = hashlib.sha256(), set()
    for index in range(6):
        scene = draw_scene(SceneConfig(size=64, stuff=True), 0, "train", index)
        digest.update(scene.image.tobytes() + scene.stuff.tobytes())
        present = set(np.unique(scene.stuff).tolist())
        assert 1 <= len(present - {255}) <= 3 and (255 in present) == (len(present - {255}) > 1)
        classes |= present
    assert classes == {*range(len(STUFF_NAMES)), 255}
    assert (folder.DRAWING_VERSION, digest.hexdigest()[:16]) == (1, "9485c082c7f137f8")
