"""Files of labeling tools, written by hand in the layouts that the tools document."""

import base64
import io
import json
import math
import zlib

import hotcoco
import numpy as np
import pytest
from PIL import Image

from vertebra.data import AnnotatedImagesConfig, CocoConfig, DataPath, build_dataset, pair_from_paths

from ..helpers.labeled_images import HEIGHT, WIDTH, objects_of, open_labels, write_images, write_text


def masks_of(dataset, index=0) -> list[np.ndarray]:
    """Return the masks of the objects of an image."""
    masks = dataset.read(index).objects.masks
    assert masks is not None
    return [np.asarray(mask).astype(bool) for mask in masks]


def png(mask: np.ndarray) -> bytes:
    """Return a mask as the bytes of a gray PNG file."""
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(stream, "PNG")
    return stream.getvalue()


def labelme_file(*shapes, **fields) -> str:
    """Return a file as LabelMe 5 writes it (``label_file.py``)."""
    content = {
        "version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "a.png", "imageData": None,
        "imageHeight": HEIGHT, "imageWidth": WIDTH,
    }  # fmt: skip
    return json.dumps(content | fields)


def shape(label, shape_type, points, **fields) -> dict:
    """Return a shape of LabelMe."""
    return {"label": label, "points": points, "group_id": None, "shape_type": shape_type, "flags": {}} | fields


def test_labelme_shapes(tmp_path):
    """By hand: each shape; LabelMe's own conversion to COCO gives rectangles an outline."""
    mask = np.zeros((4, 6), bool)
    mask[1:, 2:] = True
    write_images(tmp_path, "a.png", "unlabeled.png")
    write_text(
        tmp_path / "a.json",
        labelme_file(
            shape("cat", "polygon", [[0, 0], [40, 0], [40, 24], [0, 24]]),
            shape("dog", "rectangle", [[30, 40], [10, 20]]),
            shape("dog", "mask", [[50, 30], [55, 33]], mask=base64.b64encode(png(mask)).decode()),
            shape("cat", "point", [[3, 4]]),
            shape("cat", "circle", [[40, 24], [43, 28]]),
            shape("__ignore__", "rectangle", [[40, 24], [43, 28]]),
        ),
    )
    dataset = open_labels(tmp_path, "labelme", masks=True)
    assert objects_of(dataset) == {
        "a.png": [
            ("cat", [0, 0, 40, 24]), ("dog", [10, 20, 30, 40]), ("dog", [52, 31, 56, 34]), ("cat", [35, 19, 45, 29])
        ]
    }  # fmt: skip
    polygon, rectangle, bitmap, circle = masks_of(dataset)
    assert polygon[:24, :40].all() and polygon.sum() == 24 * 40 and rectangle[20:40, 10:30].all()
    assert (bitmap[30:34, 50:56] == mask).all() and bitmap.sum() == mask.sum()
    assert circle.sum() == pytest.approx(math.pi * 25, rel=0.1)
    report = dataset.report.as_json()
    assert report["skipped"]["annotations"]["point-or-line"]["ids"] == ["a.json shape 4"]
    assert report["skipped"]["annotations"]["ignored-label"]["ids"] == ["a.json shape 6"]
    assert report["noted"]["unlabeled-image"]["ids"] == ["unlabeled.png"]


def test_labelme_groups_are_one_object(tmp_path):
    """By hand: two polygons of one ``group_id``, and an object that X-AnyLabeling marks as difficult."""
    write_images(tmp_path, "a.png")
    left, right = [[0, 0], [10, 0], [10, 10], [0, 10]], [[20, 0], [30, 0], [30, 10], [20, 10]]
    write_text(
        tmp_path / "a.json",
        labelme_file(
            shape("cat", "polygon", left, group_id=1), shape("cat", "polygon", right, group_id=1),
            shape("dog", "polygon", right, difficult=True),
        ),
    )  # fmt: skip
    dataset = open_labels(tmp_path, "labelme", masks=True)
    assert objects_of(dataset)["a.png"] == [("cat", [0, 0, 30, 10]), ("dog", [20, 0, 30, 10])]
    assert masks_of(dataset)[0].sum() == 200 and dataset.read(0).objects.ignored.tolist() == [[20, 0, 30, 10]]


def test_class_without_objects_is_counted(tmp_path):
    """By hand: a format that declares no classes takes the requested ones, and the report names those not found."""
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "a.json", labelme_file(shape("cat", "rectangle", [[1, 2], [3, 4]])))
    dataset = open_labels(tmp_path, "labelme", class_names=("cat", "cta"))
    assert dataset.class_names == ("cat", "cta")
    assert dataset.report.as_json()["noted"]["class-without-objects"]["ids"] == ["cta"]


def test_labelme_paths_of_another_machine(tmp_path):
    """By hand: a Windows path to an image that now lies beside the file."""
    write_images(tmp_path, "a.png")
    write_text(
        tmp_path / "labels" / "a.json",
        labelme_file(shape("cat", "rectangle", [[1, 2], [3, 4]]), imagePath="..\\x\\a.png"),
    )
    assert list(objects_of(open_labels(tmp_path, "labelme"))) == ["a.png"]


VIA_REGIONS = [
    {
        "shape_attributes": {"name": "rect", "x": 10, "y": 12, "width": 20, "height": 24},
        "region_attributes": {"type": "cat"},
    },
    {
        "shape_attributes": {"name": "polygon", "all_points_x": [0, 40, 40], "all_points_y": [0, 0, 24]},
        "region_attributes": {"type": {"dog": True}},
    },
    {"shape_attributes": {"name": "point", "cx": 1, "cy": 2}, "region_attributes": {"type": "cat"}},
    {
        "shape_attributes": {"name": "ellipse", "cx": 40, "cy": 24, "rx": 20, "ry": 10, "theta": math.pi / 2},
        "region_attributes": {"type": "cat"},
    },
]
VIA_OBJECTS = [("cat", [10, 12, 30, 36]), ("dog", [0, 0, 40, 24]), ("cat", [30, 4, 50, 44])]


def via_metadata(regions) -> dict:
    """Return the annotations of VIA 2 of one image."""
    return {"a.png1234": {"filename": "a.png", "size": 1234, "regions": regions, "file_attributes": {}}}


@pytest.mark.parametrize(
    "content",
    [
        via_metadata(VIA_REGIONS),
        via_metadata({str(index): region for index, region in enumerate(VIA_REGIONS)}),  # VIA 1
        {"_via_settings": {}, "_via_img_metadata": via_metadata(VIA_REGIONS), "_via_attributes": {}},
    ],
)
def test_via_regions(content, tmp_path):
    """By hand: exported annotations of VIA 1 and 2, and a project."""
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "via.json", json.dumps(content))
    dataset = open_labels(tmp_path / "via.json", "via")
    assert objects_of(dataset)["a.png"] == VIA_OBJECTS
    assert dataset.report.as_json()["skipped"]["annotations"]["point-or-line"]["ids"] == ["via.json a.png region 3"]
    assert pair_from_paths(DataPath(tmp_path / "via.json", "detection")).train.dataset.format == "via"


def test_via_csv(tmp_path):
    """By hand: annotations of VIA 2 exported as CSV; an image without regions has one line."""
    write_images(tmp_path, "a.png", "b.png")
    lines = ["filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
    for number, region in enumerate(VIA_REGIONS):
        attributes = [json.dumps(region[name]).replace('"', '""') for name in ("shape_attributes", "region_attributes")]
        lines.append(f'a.png,1,"{{}}",4,{number},"{attributes[0]}","{attributes[1]}"')
    write_text(tmp_path / "via.csv", "\n".join([*lines, 'b.png,1,"{}",0,0,"{}","{}"']))
    assert objects_of(open_labels(tmp_path / "via.csv", "via")) == {"a.png": VIA_OBJECTS, "b.png": []}
    assert pair_from_paths(DataPath(tmp_path / "via.csv", "detection")).train.dataset.format == "via"


CVAT_XML = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels>
    <label><name>dog</name></label><label><name>cat</name></label>
  </labels></task></meta>
  <image id="0" name="sub/a.png" width="80" height="48">
    <box label="cat" source="manual" occluded="0" xtl="10.50" ytl="12.25" xbr="30.00" ybr="36.00" z_order="0"/>
    <polygon label="dog" occluded="0" points="0.00,0.00;40.00,0.00;40.00,24.00;0.00,24.00" z_order="0"/>
    <mask label="dog" occluded="0" rle="1, 2, 1, 2" left="5" top="6" width="3" height="2" z_order="0"/>
    <box label="cat" occluded="0" xtl="30" ytl="20" xbr="50" ybr="24" rotation="90.0" z_order="0"/>
    <points label="cat" points="1.0,2.0"/>
    <box label="cat" outside="1" xtl="1" ytl="1" xbr="2" ybr="2"/>
  </image>
  <image id="1" name="b.png" width="80" height="48"></image>
</annotations>
"""


def test_cvat_shapes(tmp_path):
    """By hand: each shape; the runs of a mask begin with 0 and go along the rows. A turned box has its outline."""
    write_images(tmp_path / "images", "sub/a.png", "b.png")
    write_text(tmp_path / "annotations.xml", CVAT_XML)
    dataset = open_labels(tmp_path / "annotations.xml", "cvat")
    assert dataset.class_names == ("dog", "cat")
    assert objects_of(dataset) == {
        "sub/a.png": [
            ("cat", [10.5, 12.25, 30, 36]), ("dog", [0, 0, 40, 24]), ("dog", [6, 6, 8, 8]), ("cat", [38, 12, 42, 32])
        ],
        "b.png": [],
    }  # fmt: skip
    masks = open_labels(tmp_path / "annotations.xml", "cvat", "skip", masks=True)
    assert masks_of(masks)[1][6:8, 5:8].tolist() == [[False, True, True], [False, True, True]]
    skipped = dataset.report.as_json()["skipped"]["annotations"]
    assert {name: case["count"] for name, case in skipped.items()} == {"point-or-line": 1, "outside": 1}


def test_cvat_boxes_and_polygons_equal_those_of_another_reader(tmp_path):
    """Oracle: hotcoco's ``from_cvat``, which reads boxes and polygons."""
    write_images(tmp_path / "images", "sub/a.png", "b.png")
    lines = [
        line
        for line in CVAT_XML.splitlines(True)
        if not any(word in line for word in ("<mask", "rotation", "outside", "<points"))
    ]
    write_text(tmp_path / "annotations.xml", "".join(lines))
    other = hotcoco.COCO.from_cvat(str(tmp_path / "annotations.xml")).dataset
    truth = open_labels(tmp_path / "annotations.xml", "cvat").ground_truth()
    assert [entry["bbox"] for entry in truth["annotations"]] == [entry["bbox"] for entry in other["annotations"]]
    assert truth["annotations"][1]["segmentation"] == other["annotations"][1]["segmentation"]


LS_BOX = {"x": 12.5, "y": 25, "width": 25, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
LS_POLYGON = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["dog"]}
LS_TURNED = {"x": 50, "y": 50, "width": 10, "height": 50, "rotation": 90, "rectanglelabels": ["cat"]}
LS_SIZE = {"original_width": WIDTH, "original_height": HEIGHT}
LS_OBJECTS = [("cat", [10, 12, 30, 36]), ("dog", [0, 0, 40, 24]), ("cat", [16, 24, 40, 32])]


@pytest.mark.parametrize(
    "task",
    [
        {
            "image": "/data/upload/1/0a1b2c3d-a.png",
            "id": 1,
            "label": [value | LS_SIZE for value in (LS_BOX, LS_POLYGON, LS_TURNED)],
        },
        {
            "id": 1,
            "data": {"image": "/data/local-files/?d=photos/a.png"},
            "annotations": [
                {"was_cancelled": True, "result": []},
                {"result": [{"value": value, "type": "x", **LS_SIZE} for value in (LS_BOX, LS_POLYGON, LS_TURNED)]},
            ],
        },
    ],
)
def test_label_studio_exports(task, tmp_path):
    """By hand: JSON-MIN and JSON. A box is turned clockwise around its top left corner."""
    write_images(tmp_path / "images", "a.png")
    write_text(tmp_path / "project.json", json.dumps([task]))
    assert objects_of(open_labels(tmp_path / "project.json", "label_studio"))["images/a.png"] == LS_OBJECTS
    assert pair_from_paths(DataPath(tmp_path / "project.json", "detection")).train.dataset.format == "label_studio"


def test_label_studio_coco_export(tmp_path):
    """By hand: ``result.json`` with ids from 0 and the folder ``images``."""
    write_images(tmp_path, "images/a.png")
    content = {
        "images": [{"width": WIDTH, "height": HEIGHT, "id": 0, "file_name": "images/a.png"}],
        "categories": [{"id": 0, "name": "cat"}],
        "annotations": [
            {
                "id": 0,
                "image_id": 0,
                "category_id": 0,
                "segmentation": [],
                "bbox": [1, 2, 3, 4],
                "ignore": 0,
                "iscrowd": 0,
                "area": 12,
            }
        ],
    }
    write_text(tmp_path / "result.json", json.dumps(content))
    config = pair_from_paths(DataPath(tmp_path, "detection")).train.dataset
    assert (
        config == CocoConfig(images=tmp_path, annotations=tmp_path / "result.json") and len(build_dataset(config)) == 1
    )


@pytest.mark.parametrize(
    "text",
    [
        "a.png,10,12,30,36,cat\na.png,0,0,40.5,24,dog\nb.png,,,,,\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,80,48,cat,10,12,30,36\na.png,80,48,dog,0,0,40.5,24\nb.png,,,,,,,\n",
    ],
)
def test_csv_of_boxes(text, tmp_path):
    """By hand: keras-retinanet's columns, and those of TensorFlow's tutorials."""
    write_images(tmp_path, "a.png", "b.png")
    write_text(tmp_path / "boxes.csv", text)
    found = objects_of(open_labels(tmp_path / "boxes.csv", "csv"))
    assert found == {"a.png": [("cat", [10, 12, 30, 36]), ("dog", [0, 0, 40.5, 24])], "b.png": []}
    assert isinstance(
        pair_from_paths(DataPath(tmp_path / "boxes.csv", "detection")).train.dataset, AnnotatedImagesConfig
    )


def test_supervisely_geometries(tmp_path):
    """By hand: a rectangle of the pixels 10 to 29 and 12 to 35, a polygon with a hole and a bitmap with its origin."""
    mask = np.array([[True, False], [True, True]])
    square, hole = [[0, 0], [20, 0], [20, 20], [0, 20]], [[5, 5], [15, 5], [15, 15], [5, 15]]
    bitmap = base64.b64encode(zlib.compress(png(mask))).decode()
    objects = [
        {
            "classTitle": "cat",
            "geometryType": "rectangle",
            "points": {"exterior": [[10, 12], [29, 35]], "interior": []},
        },
        {"classTitle": "dog", "geometryType": "polygon", "points": {"exterior": square, "interior": [hole]}},
        {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": bitmap, "origin": [50, 30]}},
        {"classTitle": "dog", "geometryType": "point", "points": {"exterior": [[1, 1]], "interior": []}},
    ]
    write_images(tmp_path / "ds0" / "img", "a.png")
    write_text(tmp_path / "meta.json", json.dumps({"classes": [{"title": "dog"}, {"title": "cat"}]}))
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
    write_text(tmp_path / "ds0" / "ann" / "a.png.json", json.dumps(content))
    dataset = open_labels(tmp_path, "supervisely")
    assert objects_of(dataset)["ds0/img/a.png"] == [
        ("cat", [10, 12, 30, 36]), ("dog", [0, 0, 20, 20]), ("dog", [50, 30, 52, 32])
    ]  # fmt: skip
    ring, small = masks_of(open_labels(tmp_path, "supervisely", "skip", masks=True))
    assert ring.sum() == 400 - 100 and (small[30:32, 50:52] == mask).all()
    assert pair_from_paths(DataPath(tmp_path, "detection")).train.dataset.format == "supervisely"
