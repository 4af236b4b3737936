"""Faults of PASCAL VOC folders: each ends with an exit code and one line; what can be corrected is counted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vertebra.data import VocConfig, VocDetection
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import totals_add_up
from ..helpers.tiny_voc_folder import to_xml, write_voc

BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
LEAK = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><annotation><filename>&b;</filename></annotation>'


@pytest.fixture
def root(tmp_path) -> Path:
    return write_voc(tmp_path / "voc")


def open_voc(root: Path, policy="error", **changes) -> VocDetection:
    return VocDetection(policy, VocConfig(**({"root": root, "splits": ("train",)} | changes)))


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Return a change that overwrites a file."""
    return lambda root: (root / name).write_bytes(content.encode() if isinstance(content, str) else content)


def replace_in(name: str, old: str, new: str) -> Callable[[Path], object]:
    """Return a change that replaces the first occurrence of a text in a file."""
    return lambda root: (root / name).write_text((root / name).read_text().replace(old, new, 1))


def cut(name: str, share: float) -> Callable[[Path], object]:
    """Return a change that keeps the first part of a file."""
    return lambda root: (root / name).write_bytes(
        (root / name).read_bytes()[: int((root / name).stat().st_size * share)]
    )


XML, JPG = "Annotations/a.xml", "JPEGImages/a.jpg"
# name: (what is done to the valid folder, case, what the line says, objects of a that are counted)
BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str, str, int]] = {
    "cut annotation": (cut(XML, 0.6), "bad-xml", r"a\.xml: image_id=a: not valid XML at line \d+, column \d+", 0),
    "empty annotation": (write(XML, ""), "bad-xml", "not valid XML at line 1, column 1: no element found", 0),
    "a page": (write(XML, "<html><body></body></html>"), "bad-xml", "expected <annotation> .*, found <html>", 0),
    "zeros": (write(XML, b"\0" * 100), "bad-xml", "not valid XML at line 1", 0),
    "not UTF-8": (write(XML, b"<annotation>\xff</annotation>"), "bad-xml", "not valid XML at line 1, column 13", 0),
    "unknown encoding": (write(XML, '<?xml version="1.0" encoding="x"?><a/>'), "bad-xml", "unknown encoding: x", 0),
    "encoding of two bytes": (
        write(XML, '<?xml version="1.0" encoding="shift_jis"?><a/>'), "bad-xml", "XML cannot be read: multi-byte", 0,
    ),
    "very deep": (write(XML, "<annotation>" * 100_000), "bad-xml", "not valid XML at line 1", 0),
    "entity bomb": (write(XML, BOMB), "unsafe-xml", "declares XML entities", 0),
    "external entity": (write(XML, LEAK), "unsafe-xml", "declares XML entities", 0),
    "no annotation": (lambda root: (root / XML).unlink(), "missing-annotation", r"a\.xml: .*has no annotation file", 0),
    "a folder": (
        lambda root: ((root / XML).unlink(), (root / XML).mkdir()), "unreadable-file", "Is a directory: check", 0,
    ),
    "no image": (lambda root: (root / JPG).unlink(), "missing-image", r"JPEGImages/a: .*no such \.jpg, \.jpeg or", 2),
    "empty image": (write(JPG, ""), "not-an-image", "this is not an image file", 2),
    "cut image": (cut(JPG, 0.5), "damaged-image", "the image is damaged", 2),
    "other width": (replace_in(XML, ">96<", ">97<"), "wrong-size", "says 64x97 .*, the image is 64x96", 2),
    "swapped": (write(XML, to_xml([], "<size><width>64</width><height>96</height></size>")), "wrong-size", "EXIF", 0),
    "a link out": (
        lambda root: (root / JPG).rename(root / "a.jpg") and (root / JPG).symlink_to(root / "a.jpg"),
        "outside-root", "the file lies outside .*JPEGImages: set allow_outside", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_an_error_or_skipped_with_its_objects(name, root):
    """docs/faults.md rows 61-63, 68, 79, 83, 84. By hand: exit code 3 naming file and image; with skip its objects
    are counted too."""
    spoil, case, message, objects = BAD_IMAGES[name]
    spoil(root)
    with pytest.raises(DataError, match=rf"{case}: .*image_id=a: .*") as caught:
        open_voc(root)
    assert caught.match(message) and caught.value.exit_code == 3 and "\n" not in str(caught.value)
    dataset = open_voc(root, "skip")
    report = dataset.report.as_json()
    assert dataset.image_ids == ["b", "c"] and report["skipped"]["images"] == {case: {"count": 1, "ids": ["a"]}}
    assert report["totals"]["images"] == {"read": 3, "used": 2, "skipped": 1}
    assert report["totals"]["annotations"] == {"read": 2 + objects, "used": 2, "skipped": objects}
    assert {each["image_id"] for each in dataset.ground_truth()["annotations"]} == {"b"}


def test_links_out_of_the_folder_need_allow_outside(root):
    """docs/faults.md row 79. By hand: a linked image file; a linked folder of images needs no permission."""
    (root / "JPEGImages").rename(root / "elsewhere")
    (root / "JPEGImages").symlink_to(root / "elsewhere")
    assert len(open_voc(root)) == 3
    (root / JPG).rename(root / "a.jpg")
    (root / JPG).symlink_to(root / "a.jpg")
    assert len(open_voc(root, allow_outside=True)) == 3


@pytest.mark.parametrize(
    ("line", "case"),
    [("../b", "outside-root"), ("/etc/hostname", "missing-annotation"), ("../../x", "missing-annotation")],
)
def test_image_list_cannot_lead_out_of_the_folder(line, case, root):
    """docs/faults.md row 78. By hand: exit code 3, whether the files exist or not."""
    (root / "b.jpg").write_bytes((root / "JPEGImages" / "b.jpg").read_bytes())
    (root / "b.xml").write_bytes((root / "Annotations" / "b.xml").read_bytes())
    (root / "ImageSets" / "Main" / "train.txt").write_text(line)
    with pytest.raises(DataError, match=case) as caught:
        open_voc(root)
    assert caught.value.exit_code == 3 and caught.value.image_id == line


BOX = "<xmin>41.5</xmin><ymin>9</ymin><xmax>70</xmax><ymax>38</ymax>"
# name: (what of the second object of a is replaced, by what, case, what the line says)
BAD_OBJECTS: dict[str, tuple[str, str, str, str]] = {
    "unknown name": ("dog", "dgo", "unknown-category", "is a 'dgo', which is not one of .*: did you mean 'dog'"),
    "empty name": ("dog", " ", "no-name", "has no name"),
    "no name": ("<name>dog</name>", "", "no-name", "has no name"),
    "no box": (f"<bndbox>{BOX}</bndbox>", "", "malformed-box", "has no xmin and no ymin and no xmax and no ymax"),
    "no ymax": ("<ymax>38</ymax>", "", "malformed-box", "the bndbox has no ymax"),
    "empty ymax": ("<ymax>38</ymax>", "<ymax/>", "malformed-box", "the bndbox has no ymax"),
    "text": ("41.5", "left", "malformed-box", r"must be four numbers, found \['left', '9', '70', '38'\]"),
    "NaN": ("41.5", "nan", "non-finite-box", r"\(nan, 9, 70, 38\) is not finite"),
    "infinite": ("<xmax>70", "<xmax>1e999", "non-finite-box", r"\(41.5, 9, 1e999, 38\) is not finite"),
    "ends before it begins": ("<xmax>70", "<xmax>40", "negative-box", r"\(41.5, 9, 40, 38\) ends before it begins"),
    "upside down": ("<ymax>38", "<ymax>-38", "negative-box", "ends before it begins"),
    "difficult in words": ("<difficult>0", "<difficult>maybe", "bad-difficult", "difficult is 0 or 1, found 'maybe'"),
}


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_bad_object_is_an_error_or_skipped_and_counted(name, root):
    """docs/faults.md rows 29-32, 37, 85, 87. By hand: exit code 3 naming file, image, object and the numbers in the
    file; with skip it is counted."""
    old, new, case, message = BAD_OBJECTS[name]
    first, dog = to_xml([("cat", (11, 11, 30, 40), 0)]), to_xml([("dog", (41.5, 9, 70, 38), 0)])
    dog = dog[dog.index("<object>") : dog.index("</annotation>")]
    assert old in dog
    (root / XML).write_text(first.replace("</annotation>", dog.replace(old, new, 1) + "</annotation>"))
    with pytest.raises(
        DataError, match=rf"{case}: .*a\.xml: image_id=a: ann_id=a#2: .*{message}.*--bad-data=skip"
    ) as caught:
        open_voc(root)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    dataset = open_voc(root, "skip")
    report = dataset.report.as_json()
    assert report["skipped"]["annotations"] == {case: {"count": 1, "ids": ["a#2"]}}
    assert report["totals"]["annotations"] == {"read": 4, "used": 3, "skipped": 1}
    assert dataset.read(0).objects.boxes.tolist() == [[10, 10, 30, 40]]
    assert len(dataset.ground_truth()["annotations"]) == 3


@pytest.mark.parametrize(
    ("box", "case"),
    [((200, 200, 220, 220), "outside-box"), ((-30, 5, -10, 25), "outside-box"), ((40, 8, 39.5 + 0.6, 37), "tiny-box")],
)
def test_boxes_outside_or_tiny_are_skipped_in_training_only(box, case, root):
    """docs/faults.md rows 34, 35. By hand: skipped and counted with bad_data=error too; the evaluator still gets the
    object."""
    (root / XML).write_text(to_xml([("cat", (11, 11, 30, 40), 0), ("dog", box, 0)]))
    dataset = open_voc(root, min_box=1.2)
    assert dataset.report.as_json()["skipped"]["annotations"][case]["ids"][0] == "a#2"
    assert totals_add_up(dataset.report)
    assert len(dataset.ground_truth()["annotations"]) == 4 and len(dataset.read(0).objects.boxes) == 1


def test_box_partly_outside_is_clipped_and_counted(root):
    """docs/faults.md row 33. By hand: clipped for training; the evaluator gets the annotated box."""
    (root / XML).write_text(to_xml([("cat", (0, 11, 120, 40), 0)]))
    dataset = open_voc(root)
    assert dataset.report.as_json()["noted"]["clipped-box"] == {"count": 1, "ids": ["a#1"]}
    assert dataset.read(0).objects.boxes.tolist() == [[0, 10, 96, 40]]
    assert dataset.ground_truth()["annotations"][0]["bbox"] == [-1, 10, 121, 30]


LISTS = {
    "missing id": (
        b"a\nnot there\n",
        r"missing-annotation: .*not there\.xml: image_id=not there: .*from the list",
    ),
    "not UTF-8": (b"a\n\xff\n", r"bad-list: .*train\.txt: not valid UTF-8 at byte 2"),
    "empty": (b"", "empty-dataset: .*no image is left to use"),
    "blank": (b"\r\n \n", "empty-dataset: .*no image is left to use"),
}


@pytest.mark.parametrize("name", LISTS)
def test_unusable_image_list_is_an_error(name, root):
    """docs/faults.md rows 23, 91. By hand: exit code 3, naming the list or the missing file."""
    content, message = LISTS[name]
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_voc(root)
    assert caught.value.exit_code == 3


def test_missing_image_list_suggests_the_nearest(root):
    """docs/faults.md row 91. By hand: exit code 3, also if the whole folder is missing."""
    with pytest.raises(
        DataError, match=r"missing-list: .*Main/trian\.txt: there is no such list: did you mean 'train'"
    ):
        open_voc(root, splits=("trian",))
    with pytest.raises(DataError, match=r"missing-list: .*gone/ImageSets/Main/train\.txt: .*known: none"):
        open_voc(root, splits=("gone/train",))


@pytest.mark.parametrize(("content", "message"), [("\n", "no class is named"), ("cat\ndog\ncat\n", "named twice")])
def test_invalid_class_names_file_is_an_error(content, message, root):
    """By hand: exit code 3, naming the file."""
    (root / "class_names.txt").write_text(content)
    with pytest.raises(DataError, match=rf"bad-class-names: .*class_names\.txt: .*{message}") as caught:
        open_voc(root)
    assert caught.value.exit_code == 3


def test_empty_data_set_after_skipping_is_an_error_with_reasons(root):
    """docs/faults.md row 24. By hand: exit code 3 with the counts by reason."""
    for stem in "abc":
        (root / "Annotations" / f"{stem}.xml").write_text("")
    with pytest.raises(DataError, match=r"empty-dataset: .*skipped images: 3 bad-xml"):
        open_voc(root, "skip")


def test_images_without_objects_are_kept_and_counted(root):
    """docs/faults.md row 25. By hand: images of background alone are used."""
    dataset = open_voc(root)
    assert len(dataset.read(2).objects.boxes) == 0
    assert dataset.report.as_json()["noted"]["image-without-objects"] == {"count": 1, "ids": ["c"]}
