"""The generated shapes: what is written is what was drawn, in COCO's and in VOC's own terms."""

import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from vertebra.data import DATASETS, build_dataset
from vertebra.data.shapes import CLASS_NAMES, SceneConfig, ShapesConfig, draw_scene, write_shapes
from vertebra.data.shapes import folder as folder_module
from vertebra.data.shapes.polygons import mask_to_polygons
from vertebra.data.shapes.raster import FULL, fill
from vertebra.data.shapes.shape_polygons import place_shape
from vertebra.structures import UsageError
from vertebra.tools import make_shapes

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

TRAIN, VAL, SEED, CONFIG = 8, 4, 7, SceneConfig(size=96)
COUNTS = {"train": TRAIN, "val": VAL}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    assert write_shapes(root, TRAIN, VAL, SEED, CONFIG)
    return root


def drawn_scenes(split: str) -> list:
    return [draw_scene(CONFIG, SEED, split, index) for index in range(COUNTS[split])]


def open_coco(root: Path, split: str, capsys) -> COCO:
    coco = COCO(root / "coco" / "annotations" / f"instances_{split}.json")
    capsys.readouterr()
    return coco


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_cover_of_a_rectangle_by_hand():
    """Corners at half pixels: a corner pixel is a quarter covered, an edge pixel half."""
    patch = fill([np.array([[8, 8], [40, 8], [40, 40], [8, 40]])])
    share = np.array([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]])
    assert (patch.top, patch.left) == (0, 0)
    np.testing.assert_array_equal(patch.cover, share * FULL)


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_cover_adds_up_to_the_area_of_the_outline(label):
    """The shoelace formula; a second ring is a hole."""
    rings = place_shape(label, (1000, 777), 400, 100)
    areas = [abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 for x, y in (ring.T for ring in rings)]
    expected = (areas[0] - sum(areas[1:])) / 16**2
    patch = fill(rings)
    assert patch.cover.sum() / FULL == pytest.approx(expected, rel=2e-3)
    assert patch.mask.sum() == pytest.approx(expected, rel=2e-2)


def test_pictures_never_change():
    """The digest of this release's pictures; where it changes, ``DRAWING`` must be counted up."""
    digest = hashlib.sha256()
    for split, index in (("train", 0), ("train", 1), ("train", 17), ("val", 0)):
        scene = draw_scene(SceneConfig(), 0, split, index)
        digest.update(scene.image.tobytes())
        for thing in scene.objects:
            digest.update(bytes([thing.label]) + thing.mask.tobytes())
    assert (folder_module.DRAWING, digest.hexdigest()[:16]) == (1, "26ccae073f893dbf")


def test_every_object_is_visible_and_none_overlap():
    """A law of painting: each pixel shows one object, and two fifths of every object are seen."""
    config = SceneConfig(size=80, max_objects=12)
    labels = set()
    for index in range(25):
        things = draw_scene(config, 3, "train", index).objects
        labels |= {thing.label for thing in things}
        assert all(0.4 * thing.whole_area <= thing.area <= thing.whole_area for thing in things)
        assert np.sum([thing.mask for thing in things], axis=0).max(initial=0) <= 1
    assert labels == set(range(len(CLASS_NAMES)))


def test_splits_and_indices_give_different_pictures():
    """Train and val are separate streams, and so is every number in them."""
    pictures = {draw_scene(CONFIG, SEED, split, index).image.tobytes() for split in COUNTS for index in range(5)}
    assert len(pictures) == 10


def test_polygons_hold_exactly_the_mask():
    """pycocotools' rasteriser, on random masks full of holes and of pixels that touch at corners."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        height, width = (int(side) for side in generator.integers(1, 25, 2))
        mask = generator.random((height, width)) < generator.random()
        polygons = [[float(value) for value in polygon] for polygon in mask_to_polygons(mask)]
        back = np.zeros_like(mask)
        for runs in coco_mask.frPyObjects(polygons, height, width) if polygons else []:
            back |= coco_mask.decode(runs).astype(bool)
        np.testing.assert_array_equal(back, mask)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_truth_is_what_was_drawn(shapes, split, capsys):
    """pycocotools reads the file and rasterises its polygons and runs; PIL reads the pixels."""
    coco = open_coco(shapes, split, capsys)
    for scene, image in zip(drawn_scenes(split), coco.dataset["images"], strict=True):
        np.testing.assert_array_equal(Image.open(shapes / "coco" / split / image["file_name"]), scene.image)
        annotations = coco.imgToAnns[image["id"]]
        for thing, annotation in zip(scene.objects, annotations, strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation), thing.mask)
            runs = coco_mask.encode(np.asfortranarray(thing.mask, dtype=np.uint8))
            assert annotation["bbox"] == coco_mask.toBbox(runs).tolist()
            assert annotation["area"] == coco_mask.area(runs)
            assert coco.cats[annotation["category_id"]]["name"] == CLASS_NAMES[thing.label]


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_file_has_the_hard_cases(shapes, split, capsys):
    """COCO's own habits: sparse ids, a crowd as uncompressed RLE, an image without objects."""
    coco = open_coco(shapes, split, capsys)
    assert sorted(coco.cats) == [1, 3, 4, 7, 12, 18, 44, 90]
    crowds = [annotation for annotation in coco.anns.values() if annotation["iscrowd"]]
    assert len(crowds) == 1 and isinstance(crowds[0]["segmentation"]["counts"], list)
    assert [len(coco.imgToAnns[image]) == 0 for image in coco.imgs].count(True) == 1
    assert min(coco.anns) >= 1


def test_number_of_polygons_by_hand():
    """One for each part; two where a hole was cut; one where the hole is open at a corner."""
    ring = np.hypot(*np.mgrid[-20:21, -20:21])
    assert len(mask_to_polygons((ring < 18) & (ring > 8))) == 2
    assert len(mask_to_polygons(np.array([[True, False, True]]))) == 2
    assert len(mask_to_polygons(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=bool))) == 1
    assert mask_to_polygons(np.ones((2, 3), dtype=bool)) == [[3, 0, 3, 2, 0, 2, 0, 0]]


@pytest.mark.parametrize("split", ["train", "val"])
def test_voc_boxes_are_cocos_counted_from_one(shapes, split, capsys):
    """VOC's rule: 1-based, both ends included; crowds are left out."""
    coco, voc = open_coco(shapes, split, capsys), shapes / "voc"
    stems = (voc / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
    assert stems == (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    for stem, image in zip(stems, coco.dataset["images"], strict=True):
        root = ElementTree.parse(voc / "Annotations" / f"{stem}.xml").getroot()
        size = [int(root.findtext(f"size/{side}", "")) for side in ("width", "height", "depth")]
        assert size == [image["width"], image["height"], 3]
        found = []
        for thing in root.iter("object"):
            x1, y1, x2, y2 = (int(thing.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
            found.append((thing.findtext("name"), [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]))
        assert found == [
            (coco.cats[annotation["category_id"]]["name"], annotation["bbox"])
            for annotation in coco.imgToAnns[image["id"]]
            if not annotation["iscrowd"]
        ]


def test_voc_pictures_and_flags(shapes):
    """The drawn scenes: the JPEG differs by its compression only, the flags say how much of an object is seen."""
    for index, scene in enumerate(drawn_scenes("train")):
        stem = f"train_{index:06d}"
        picture = Image.open(shapes / "voc" / "JPEGImages" / f"{stem}.jpg")
        assert picture.format == "JPEG"
        assert np.abs(np.asarray(picture).astype(int) - scene.image).mean() < 4
        root = ElementTree.parse(shapes / "voc" / "Annotations" / f"{stem}.xml").getroot()
        assert root.findtext("filename") == f"{stem}.jpg"
        flags = [(thing.findtext("truncated"), thing.findtext("difficult")) for thing in root.iter("object")]
        shares = [thing.area / thing.whole_area for thing in scene.objects if not thing.crowd]
        assert flags == [(str(int(share < 1)), str(int(share < 0.5))) for share in shares]


def test_voc_masks_are_class_indices_with_a_void_border(shapes):
    """A slow loop: 255 where a pixel or one of its eight neighbours belongs to another object, and in crowds."""
    for index, scene in enumerate(drawn_scenes("train")[:4]):
        owner, label = (np.zeros(scene.image.shape[:2], dtype=int) for _ in range(2))
        for number, thing in enumerate(scene.objects, start=1):
            owner[thing.mask] = 255 if thing.crowd else number
            label[thing.mask] = 255 if thing.crowd else thing.label + 1
        padded = np.pad(owner, 1, mode="edge")
        for y, x in np.ndindex(owner.shape):
            if len(set(padded[y : y + 3, x : x + 3].flat)) > 1:
                owner[y, x] = label[y, x] = 255
        for kind, expected in (("SegmentationClass", label), ("SegmentationObject", owner)):
            mask = Image.open(shapes / "voc" / kind / f"train_{index:06d}.png")
            assert mask.mode == "P"
            np.testing.assert_array_equal(mask, expected)


def test_voc_palette_has_the_official_colours(shapes):
    """The colours of VOC2012's classes 0 to 4 and of void, as its development kit draws them."""
    palette = Image.open(shapes / "voc" / "SegmentationClass" / "train_000000.png").getpalette() or []
    colours = [tuple(palette[3 * index : 3 * index + 3]) for index in (0, 1, 2, 3, 4, 255)]
    assert colours == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (224, 224, 192)]
    assert tuple((shapes / "voc" / "class_names.txt").read_text().split()) == CLASS_NAMES


def test_same_seed_same_bytes(shapes, tmp_path):
    """A law: written twice, byte for byte the same; with another seed, no picture is."""
    again, other = tmp_path / "again", tmp_path / "other"
    write_shapes(again, TRAIN, VAL, SEED, CONFIG)
    write_shapes(other, 3, 2, SEED + 1, CONFIG)
    files = files_below(shapes)
    assert files_below(again) == files
    pictures = {content for name, content in files.items() if name.endswith((".png", ".jpg"))}
    assert not [name for name, content in files_below(other / "coco").items() if content in pictures]


def test_finished_folder_is_reused_and_another_refused(shapes, tmp_path, monkeypatch):
    """The stamp: equal parameters draw nothing anew, others raise and leave the folder as it is."""
    before = files_below(shapes)
    with monkeypatch.context() as patch:
        patch.delattr(folder_module, "draw_scene")
        assert not write_shapes(shapes, TRAIN, VAL, SEED, CONFIG)
    with pytest.raises(UsageError, match="'seed': 8"):
        write_shapes(shapes, TRAIN, VAL, 8, CONFIG)
    assert files_below(shapes) == before

    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a folder of generated shapes"):
        write_shapes(tmp_path, TRAIN, VAL, SEED, CONFIG)
    assert files_below(tmp_path) == {"thesis.txt": b"mine"}


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    """A run that ends in the middle: no folder that looks finished, no rest beside it, and the next run succeeds."""

    def interrupt(config, seed, split, index):
        if index == 2:
            raise KeyboardInterrupt
        return draw_scene(config, seed, split, index)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder_module, "draw_scene", interrupt)
        write_shapes(tmp_path / "new", 3, 1, SEED, CONFIG)
    assert not list(tmp_path.iterdir())
    assert write_shapes(tmp_path / "new", 3, 1, SEED, CONFIG)


def test_two_writers_at_once_agree(tmp_path, monkeypatch):
    """DistributedContext that start together: the slower one takes what the quicker one left."""
    write_split = folder_module._write_split

    def overtaken(folder, split, count, seed, config):
        write_split(folder, split, count, seed, config)
        if split == "val":
            monkeypatch.undo()
            assert write_shapes(tmp_path / "new", 3, 1, SEED, CONFIG)

    monkeypatch.setattr(folder_module, "_write_split", overtaken)
    assert not write_shapes(tmp_path / "new", 3, 1, SEED, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_shapes_data_set_reads_what_was_drawn(shapes):
    """The drawn scenes themselves; crowds are regions to ignore."""
    config = ShapesConfig(split="train", train=TRAIN, val=VAL, seed=SEED, size=CONFIG.size, root=shapes)
    dataset = build_dataset(DATASETS.resolve(config.model_dump(mode="json")))
    assert dataset.class_names == config.classes() == CLASS_NAMES
    assert len(dataset) == TRAIN
    for index, scene in enumerate(drawn_scenes("train")):
        record = dataset.read(index)
        assert Path(record.file).is_relative_to(shapes)
        np.testing.assert_array_equal(record.image, scene.image)
        objects = [thing for thing in scene.objects if not thing.crowd]
        assert record.objects.boxes.tolist() == [list(thing.box) for thing in objects]
        assert record.objects.labels.tolist() == [thing.label for thing in objects]
        assert record.objects.ignored.tolist() == [list(thing.box) for thing in scene.objects if thing.crowd]


def test_shapes_are_kept_in_the_cache(tmp_path, monkeypatch):
    """The environment: a folder for each set of parameters, shared by both splits."""
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path))
    for split, seed in (("train", 0), ("val", 0), ("val", 1)):
        dataset = build_dataset(ShapesConfig(split=split, train=3, val=2, size=64, seed=seed))
        assert len(dataset) == {"train": 3, "val": 2}[split]
    assert len(list(tmp_path.iterdir())) == 2


def test_tool_writes_and_says_where(tmp_path, capsys):
    """The files themselves."""
    out = tmp_path / "out"
    assert make_shapes.main([str(out), "--train", "3", "--val", "2", "--size", "64"]) == 0
    assert str(out / "coco") in capsys.readouterr().out
    assert json.loads((out / "shapes.json").read_text())["train"] == 3
    assert len(list((out / "coco" / "val").iterdir())) == 2
    with pytest.raises(SystemExit, match="2"):
        make_shapes.main([str(out), "--size", "ten"])
    assert "no whole number from 64 to 2048" in capsys.readouterr().err
