"""The generated shapes: the files hold exactly what was drawn, as pycocotools and VOC's rules read them."""

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
from vertebra.data.shapes.portable_generator import PortableGenerator
from vertebra.data.shapes.raster import FULL_COVER, fill
from vertebra.data.shapes.shape_polygons import place_shape
from vertebra.formats.mask_polygons import mask_to_polygons
from vertebra.structures import UsageError
from vertebra.tools.cli import main

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


def test_cover_of_a_rectangle_is_the_covered_fraction():
    """By hand: with corners at half pixels, a corner pixel is covered by a quarter and an edge pixel by half."""
    patch = fill([np.array([[8, 8], [40, 8], [40, 40], [8, 40]])])
    fraction = np.array([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]])
    assert (patch.top, patch.left) == (0, 0)
    np.testing.assert_array_equal(patch.cover, fraction * FULL_COVER)


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_cover_adds_up_to_the_area_of_the_polygon(label):
    """Oracle: the shoelace formula; a second ring is a hole."""
    rings = place_shape(label, (1000, 777), 400, 100)
    areas = [abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 for x, y in (ring.T for ring in rings)]
    expected = (areas[0] - sum(areas[1:])) / 16**2
    patch = fill(rings)
    assert patch.cover.sum() / FULL_COVER == pytest.approx(expected, rel=2e-3)
    assert patch.mask.sum() == pytest.approx(expected, rel=2e-2)


def test_generated_images_never_change():
    """By hand: a digest of images and masks. If it has to change, increase ``DRAWING_VERSION``."""
    digest = hashlib.sha256()
    for split, index in (("train", 0), ("train", 1), ("train", 17), ("val", 0)):
        scene = draw_scene(SceneConfig(), 0, split, index)
        digest.update(scene.image.tobytes())
        for obj in scene.objects:
            digest.update(bytes([obj.label]) + obj.mask.tobytes())
    assert (folder_module.DRAWING_VERSION, digest.hexdigest()[:16]) == (1, "26ccae073f893dbf")


def test_portable_generator_is_uniform_and_reproducible():
    """Law (5 sigma of a binomial): equal frequencies; equal seeds give equal numbers, other seeds others."""
    generator, again, other = PortableGenerator(1, 2), PortableGenerator(1, 2), PortableGenerator(1, 3)
    numbers = [generator.integer(3, 6) for _ in range(4000)]
    assert numbers == [again.integer(3, 6) for _ in range(4000)] != [other.integer(3, 6) for _ in range(4000)]
    assert sorted(set(numbers)) == [3, 4, 5, 6]
    assert all(abs(numbers.count(value) - 1000) < 5 * 750**0.5 for value in (3, 4, 5, 6))
    assert abs(sum(generator.bernoulli(30) for _ in range(4000)) - 1200) < 5 * 840**0.5
    assert {generator.choice("abc") for _ in range(100)} == set("abc")
    assert generator.bytes(3, 5).shape == (3, 5)
    assert abs(float(generator.bytes(100, 100).mean()) - 127.5) < 5 * 73.9 / 100


def test_every_object_is_visible_and_masks_do_not_overlap():
    """Law: a pixel shows at most one object, and at least 40 % of every object is visible."""
    config = SceneConfig(size=80, max_objects=12)
    labels = set()
    for index in range(25):
        objects = draw_scene(config, 3, "train", index).objects
        labels |= {obj.label for obj in objects}
        assert all(0.4 * obj.full_area <= obj.area <= obj.full_area for obj in objects)
        assert np.sum([obj.mask for obj in objects], axis=0).max(initial=0) <= 1
    assert labels == set(range(len(CLASS_NAMES)))


def test_splits_and_indices_give_different_pictures():
    """Law: the splits and the numbers in them all give different images."""
    pictures = {draw_scene(CONFIG, SEED, split, index).image.tobytes() for split in COUNTS for index in range(5)}
    assert len(pictures) == 10


def test_polygons_rasterise_back_to_the_mask():
    """Oracle: pycocotools' rasterizer, on random masks with holes and with pixels that touch at corners."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        height, width = (int(side) for side in generator.integers(1, 25, 2))
        mask = generator.random((height, width)) < generator.random()
        polygons = [[float(value) for value in polygon] for polygon in mask_to_polygons(mask)]
        rasterised = np.zeros_like(mask)
        for rle in coco_mask.frPyObjects(polygons, height, width) if polygons else []:
            rasterised |= coco_mask.decode(rle).astype(bool)
        np.testing.assert_array_equal(rasterised, mask)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_annotations_are_what_was_drawn(shapes, split, capsys):
    """Oracle: pycocotools reads the file and rasterises its polygons and RLE; PIL reads the pixels."""
    coco = open_coco(shapes, split, capsys)
    for scene, image in zip(drawn_scenes(split), coco.dataset["images"], strict=True):
        np.testing.assert_array_equal(Image.open(shapes / "coco" / split / image["file_name"]), scene.image)
        annotations = coco.imgToAnns[image["id"]]
        for obj, annotation in zip(scene.objects, annotations, strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation), obj.mask)
            rle = coco_mask.encode(np.asfortranarray(obj.mask, dtype=np.uint8))
            assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
            assert annotation["area"] == coco_mask.area(rle)
            assert coco.cats[annotation["category_id"]]["name"] == CLASS_NAMES[obj.label]


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_file_has_the_hard_cases(shapes, split, capsys):
    """By hand: as in COCO, sparse ids, a crowd as uncompressed RLE and an image without objects."""
    coco = open_coco(shapes, split, capsys)
    assert sorted(coco.cats) == [1, 3, 4, 7, 12, 18, 44, 90]
    crowds = [annotation for annotation in coco.anns.values() if annotation["iscrowd"]]
    assert len(crowds) == 1 and isinstance(crowds[0]["segmentation"]["counts"], list)
    assert [len(coco.imgToAnns[image]) == 0 for image in coco.imgs].count(True) == 1
    assert min(coco.anns) >= 1


def test_each_part_is_a_polygon_and_a_hole_cuts_it_in_two():
    """By hand: one polygon for each part, two where a hole was cut, one where the hole is open at a corner."""
    ring = np.hypot(*np.mgrid[-20:21, -20:21])
    assert len(mask_to_polygons((ring < 18) & (ring > 8))) == 2
    assert len(mask_to_polygons(np.array([[True, False, True]]))) == 2
    assert len(mask_to_polygons(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=bool))) == 1
    assert mask_to_polygons(np.ones((2, 3), dtype=bool)) == [[3, 0, 3, 2, 0, 2, 0, 0]]


@pytest.mark.parametrize("split", ["train", "val"])
def test_voc_boxes_are_one_based_and_inclusive(shapes, split, capsys):
    """Oracle: the boxes that pycocotools reads, by VOC's rule; crowds are left out."""
    coco, voc = open_coco(shapes, split, capsys), shapes / "voc"
    stems = (voc / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
    assert stems == (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    for stem, image in zip(stems, coco.dataset["images"], strict=True):
        root = ElementTree.parse(voc / "Annotations" / f"{stem}.xml").getroot()
        size = [int(root.findtext(f"size/{side}", "")) for side in ("width", "height", "depth")]
        assert size == [image["width"], image["height"], 3]
        boxes = []
        for element in root.iter("object"):
            x1, y1, x2, y2 = (int(element.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append((element.findtext("name"), [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]))
        assert boxes == [
            (coco.cats[annotation["category_id"]]["name"], annotation["bbox"])
            for annotation in coco.imgToAnns[image["id"]]
            if not annotation["iscrowd"]
        ]


def test_voc_images_and_flags_are_what_was_drawn(shapes):
    """By hand: a JPEG differs by its compression only; flags follow from the visible part of an object."""
    for index, scene in enumerate(drawn_scenes("train")):
        stem = f"train_{index:06d}"
        image = Image.open(shapes / "voc" / "JPEGImages" / f"{stem}.jpg")
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image).astype(int) - scene.image).mean() < 4
        root = ElementTree.parse(shapes / "voc" / "Annotations" / f"{stem}.xml").getroot()
        assert root.findtext("filename") == f"{stem}.jpg"
        flags = [(element.findtext("truncated"), element.findtext("difficult")) for element in root.iter("object")]
        visible = [obj.area / obj.full_area for obj in scene.objects if not obj.crowd]
        assert flags == [(str(int(fraction < 1)), str(int(fraction < 0.5))) for fraction in visible]


def test_voc_masks_are_class_indices_with_a_void_border(shapes):
    """Oracle: a slow loop over pixels: 255 in crowds and where one of the eight neighbors belongs to another object."""
    for index, scene in enumerate(drawn_scenes("train")[:4]):
        owner, label = (np.zeros(scene.image.shape[:2], dtype=int) for _ in range(2))
        for number, obj in enumerate(scene.objects, start=1):
            owner[obj.mask] = 255 if obj.crowd else number
            label[obj.mask] = 255 if obj.crowd else obj.label + 1
        padded = np.pad(owner, 1, mode="edge")
        for y, x in np.ndindex(owner.shape):
            if len(set(padded[y : y + 3, x : x + 3].flat)) > 1:
                owner[y, x] = label[y, x] = 255
        for folder, expected in (("SegmentationClass", label), ("SegmentationObject", owner)):
            mask = Image.open(shapes / "voc" / folder / f"train_{index:06d}.png")
            assert mask.mode == "P"
            np.testing.assert_array_equal(mask, expected)


def test_voc_palette_has_the_official_colors(shapes):
    """Oracle: the colors of classes 0 to 4 and of void in VOC2012's development kit."""
    palette = Image.open(shapes / "voc" / "SegmentationClass" / "train_000000.png").getpalette() or []
    colors = [tuple(palette[3 * index : 3 * index + 3]) for index in (0, 1, 2, 3, 4, 255)]
    assert colors == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (224, 224, 192)]
    assert tuple((shapes / "voc" / "class_names.txt").read_text().split()) == CLASS_NAMES


def test_same_seed_gives_the_same_bytes(shapes, tmp_path):
    """Law: a data set written twice is equal byte for byte; with another seed no image is equal."""
    again, other = tmp_path / "again", tmp_path / "other"
    write_shapes(again, TRAIN, VAL, SEED, CONFIG)
    write_shapes(other, 3, 2, SEED + 1, CONFIG)
    files = files_below(shapes)
    assert files_below(again) == files
    images = {content for name, content in files.items() if name.endswith((".png", ".jpg"))}
    assert not [name for name, content in files_below(other / "coco").items() if content in images]


def test_finished_folder_is_reused_and_another_refused(shapes, tmp_path, monkeypatch):
    """Law: equal parameters draw nothing again; others raise and leave the folder as it is."""
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
    """Law: after an interruption there is no folder and no temporary file, and the next call succeeds."""

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
    """Law: of two processes that write the same folder, the slower one takes the folder of the faster one."""
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
    """Law: records are the drawn scenes; crowds are regions to ignore."""
    config = ShapesConfig(split="train", train=TRAIN, val=VAL, seed=SEED, size=CONFIG.size, root=shapes)
    dataset = build_dataset(DATASETS.resolve(config.model_dump(mode="json")))
    assert dataset.class_names == config.classes() == CLASS_NAMES
    assert len(dataset) == TRAIN
    for index, scene in enumerate(drawn_scenes("train")):
        record = dataset.read(index)
        assert Path(record.file).is_relative_to(shapes)
        np.testing.assert_array_equal(record.image, scene.image)
        objects = [obj for obj in scene.objects if not obj.crowd]
        assert record.objects.boxes.tolist() == [list(obj.box) for obj in objects]
        assert record.objects.labels.tolist() == [obj.label for obj in objects]
        assert record.objects.ignored.tolist() == [list(obj.box) for obj in scene.objects if obj.crowd]


def test_generated_shapes_are_cached(tmp_path, monkeypatch):
    """By hand: one folder per set of parameters, shared by both splits."""
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path))
    for split, seed in (("train", 0), ("val", 0), ("val", 1)):
        dataset = build_dataset(ShapesConfig(split=split, train=3, val=2, size=64, seed=seed))
        assert len(dataset) == {"train": 3, "val": 2}[split]
    assert len(list(tmp_path.iterdir())) == 2


def test_make_shapes_writes_files_and_prints_where(tmp_path, capsys):
    """By hand: the files, and exit code 2 for a size that is no number."""
    out = tmp_path / "out"
    assert main(["make-shapes", str(out), "--train", "3", "--val", "2", "--size", "64"]) == 0
    assert str(out / "coco") in capsys.readouterr().out
    assert json.loads((out / "shapes.json").read_text())["train"] == 3
    assert len(list((out / "coco" / "val").iterdir())) == 2
    assert main(["make-shapes", str(out), "--size", "ten"]) == 2
    assert "'ten' is not" in capsys.readouterr().err
