"""What the doctor finds: each fault in data that have it and no other, and nothing in data without faults."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from vertebra.data import CocoConfig, DataPath
from vertebra.data.voc_format import VocSegmentationConfig
from vertebra.engine import train
from vertebra.engine.doctor import DataSource, Diagnosis, Finding, describe_quickly, examine
from vertebra.engine.doctor.checks.boxes import overlapping_pairs
from vertebra.engine.doctor.checks.cost import measure_cost
from vertebra.engine.doctor.checks.images import near_pairs
from vertebra.engine.doctor.page import draw_object, render_page
from vertebra.engine.doctor.pixels import difference_hash
from vertebra.tools.cli import main

from ..helpers.tiny import tiny_config
from .test_doctor_fix import HEIGHT, WIDTH, add, change, make_content, write_images, write_source


def cases(diagnosis: Diagnosis) -> dict[str, Finding]:
    """Return the findings by case, without those about the small objects of the tiny images."""
    return {finding.case: finding for finding in diagnosis.findings if finding.case != "small-objects"}


def set_names(*names: str):
    """Return a fault: the classes have these names."""

    def apply(content, folder):
        content["categories"] = [{"id": number, "name": name} for number, name in zip((7, 90), names, strict=True)]

    return apply


def save(number: int, pixels: np.ndarray, **options: Any):
    """Return a fault: an image file has these pixels."""
    return lambda content, folder: Image.fromarray(pixels).save(folder / "images" / f"{number}.png", **options)


FAULTS: dict[str, tuple[Any, str, str]] = {
    "class names padded": (set_names("cat ", "dog"), "padded-class-name", "warning"),
    "class names alike": (set_names("traffic light", "Traffic_Light"), "similar-class-names", "warning"),
    "a class named background": (set_names("background", "dog"), "background-class", "warning"),
    "a root category": (add("categories", id=1, name="pets"), "class-without-objects", "warning"),
    "an object twice": (add("annotations", id=99), "repeated-object", "warning"),
    "an object of two classes": (add("annotations", id=99, category_id=7), "two-classes", "note"),
    "a box out of its image": (change(bbox=[90, 6, 30, 11]), "box-out-of-image", "warning"),
    "a box outside its image": (change(bbox=[120, 6, 30, 11]), "outside-box", "warning"),
    "an area above its box": (change(area=1000), "area-above-box", "warning"),
    "an unknown class": (change(category_id=8), "unknown-category", "error"),
    "a flat image": (save(11, np.full((HEIGHT, WIDTH, 3), 90, np.uint8)), "flat-image", "warning"),
    "a 16-bit image with little contrast": (
        save(11, np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) % 4096),
        "lost-gray-values",
        "warning",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_with_an_example(tmp_path, name):
    """By hand: data with one fault, which has the only error or warning."""
    fault, case, severity = FAULTS[name]
    content = make_content()
    write_images(tmp_path / "images")
    fault(content, tmp_path)
    diagnosis = examine(write_source(tmp_path, content))
    found = cases(diagnosis)
    assert found[case].severity == severity, diagnosis.describe()
    serious = {finding.case for finding in found.values() if finding.severity != "note"}
    assert serious - {"box-out-of-image"} <= {case}, diagnosis.describe()
    assert diagnosis.exit_code() == (severity != "note")
    assert all(len(finding.examples) <= 3 for finding in found.values())


def test_example_of_an_object_names_file_image_annotation_and_box(tmp_path):
    """By hand: the 33rd annotation repeats the 32nd."""
    content = make_content()
    add("annotations", id=99)(content, tmp_path)
    (example,) = cases(examine(write_source(tmp_path, content), with_images=False))["repeated-object"].examples
    assert Path(example.file).name == "14.png" and example.image_id == 14
    assert example.annotation_id in (32, 99) and example.box == (81, 6, 91, 17)


def test_data_that_cannot_be_used_have_exit_code_3(tmp_path):
    """By hand: boxes as fractions cannot be trained on; the other split is examined all the same."""
    content = make_content()
    write_source(tmp_path, content)
    for entry in content["annotations"]:
        entry["bbox"] = [0.1, 0.1, 0.2, 0.2]
    (tmp_path / "fractions.json").write_text(json.dumps(content))
    paths = {"train": tmp_path / "fractions.json", "val": tmp_path / "annotations.json"}
    configs = {name: CocoConfig(images=tmp_path / "images", annotations=path) for name, path in paths.items()}
    diagnosis = examine(DataSource("tiny", dict(configs)), with_images=False)
    assert diagnosis.exit_code() == 3 and diagnosis.findings[0].case == "fraction-boxes"
    assert diagnosis.splits[0].startswith("val: 4 images")


def test_class_of_validation_objects_that_is_absent_from_training(tmp_path):
    """By hand: the training objects are all cats, the validation objects cats and dogs."""
    content = make_content()
    write_source(tmp_path, content)
    for entry in content["annotations"]:
        entry["category_id"] = 7
    (tmp_path / "train.json").write_text(json.dumps(content))
    paths = {"train": tmp_path / "train.json", "val": tmp_path / "annotations.json"}
    configs = {name: CocoConfig(images=tmp_path / "images", annotations=path) for name, path in paths.items()}
    found = cases(examine(DataSource("tiny", dict(configs))))
    assert "dog" in found["class-absent-from-train"].what and "dog" in found["class-absent-from-train"].examples[0].text
    assert found["leaked-image"].count == 4 and found["leaked-image"].severity == "error"


def write_class_maps(folder: Path, values: tuple[int, int], classes: str) -> DataSource:
    """Write class maps with two values, the second on a fifth of the pixels, in VOC's layout."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (50, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{number}.png")
        mask = np.full((50, 40), values[0], np.uint8)
        mask[:11] = values[1]
        Image.fromarray(mask).save(folder / "SegmentationClass" / f"{number}.png")
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("0\n1\n2\n")
    config = VocSegmentationConfig(root=folder, splits=("train",), class_names=tuple(classes.split()))
    return DataSource("maps", {"train": config})


def test_foreground_hidden_behind_255_is_an_error(tmp_path):
    """By hand: 11 of 50 rows are 255."""
    diagnosis = examine(write_class_maps(tmp_path, (0, 255), "background thing"))
    assert "255 is 22% of the pixels, class 1 never occurs" in cases(diagnosis)["hidden-foreground"].what


def test_class_without_pixels(tmp_path):
    """By hand: of three classes the second never occurs."""
    (found,) = cases(examine(write_class_maps(tmp_path, (0, 2), "background a b"))).values()
    assert found.case == "class-without-pixels" and found.what.endswith(": a") and found.count == 1


def test_value_that_is_no_class_in_a_class_map(tmp_path):
    """docs/faults.md row 41. By hand: the value 7 of two classes; nothing can be trained on."""
    diagnosis = examine(write_class_maps(tmp_path, (0, 7), "background thing"))
    assert diagnosis.exit_code() == 3 and "3 mask-value" in diagnosis.findings[0].what


def test_pairs_of_overlapping_boxes_equal_those_of_all_pairs():
    """Oracle: a loop over all pairs of 300 random boxes in 5 groups."""
    generator = np.random.default_rng(0)
    corner, sides = generator.uniform(0, 20, (300, 2)), generator.uniform(4, 8, (300, 2))
    boxes, groups = np.concatenate([corner, corner + sides], axis=1), generator.integers(0, 5, 300)
    expected = []
    for i in range(300):
        for j in range(i + 1, 300):
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            inside = np.clip(high - low, 0, None).prod()
            if groups[i] == groups[j] and inside >= 0.7 * (sides[i].prod() + sides[j].prod() - inside):
                expected.append([i, j])
    assert len(expected) >= 10
    assert overlapping_pairs(groups, boxes, 0.7).tolist() == expected


def test_pairs_of_near_hashes_equal_those_of_all_pairs():
    """Oracle: a loop over all pairs of hashes, some of which are copies with up to 7 bits changed."""
    generator = np.random.default_rng(0)
    hashes: list[int | None] = [int(value) for value in generator.integers(0, 2**63, 200)]
    for number in range(100):
        flipped = sum(1 << int(bit) for bit in generator.choice(64, number % 8, replace=False))
        hashes.append((hashes[number] or 0) ^ flipped)
    hashes[5] = None
    expected = [
        [i, j]
        for i, first in enumerate(hashes)
        for j, second in enumerate(hashes)
        if i < j and first is not None and second is not None and (first ^ second).bit_count() <= 5
    ]
    assert len(expected) > 50
    assert near_pairs(hashes).tolist() == expected


def test_hash_of_an_image_survives_a_smaller_copy_and_differs_between_images():
    """Law: half the size and a gain change few of the 64 bits; another image changes many."""
    generator = np.random.default_rng(0)
    coarse = [np.kron(generator.integers(0, 200, (12, 12)), np.ones((16, 16))).astype(np.uint8) for _ in range(2)]
    smaller = (coarse[0][::2, ::2] * 1.2).astype(np.uint8)
    first, copy, other = map(difference_hash, (coarse[0], smaller, coarse[1]))
    assert (first ^ copy).bit_count() <= 5 < 12 < (first ^ other).bit_count()


def test_quick_checks_of_opened_data_are_one_line(shapes):
    """By hand: generated scenes have no error."""
    from vertebra.data import build_dataset

    experiment = tiny_config(shapes)
    datasets = [build_dataset(split.dataset) for split in (experiment.train, experiment.val)]
    line = describe_quickly(datasets[0], datasets[1], experiment)
    assert "\n" not in line and "error" not in line


def test_training_says_what_is_found(shapes, tmp_path):
    """By hand: the line is printed once, after the reports of both splits."""
    output = io.StringIO()
    train(tiny_config(shapes), tmp_path / "run", console=Console(file=output, width=1000))
    lines = [line for line in output.getvalue().splitlines() if line.startswith(("train: ", "val: ", "data: "))]
    assert [line.partition(":")[0] for line in lines] == ["train", "val", "data"]
    assert lines[2].endswith("; vertebra doctor says more")


def test_command_prints_findings_and_writes_json(tmp_path, capsys):
    """By hand: a warning gives exit code 1, none 0, and a note 1 with --strict."""
    content = make_content()
    write_source(tmp_path, content)
    arguments = ["doctor", str(tmp_path / "annotations.json"), "--quick", "--json", str(tmp_path / "report.json")]
    assert main(arguments) == 0
    assert main([*arguments, "--strict"]) == 1
    add("annotations", id=99)(content, tmp_path)
    write_source(tmp_path, content)
    capsys.readouterr()
    assert main(arguments) == 1
    output = capsys.readouterr().out
    assert "repeated-object: 1 of 33 (3.0%) objects are annotated twice" in output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"] == {"error": 0, "warning": 1, "note": 1}
    assert report["findings"][0]["examples"][0]["image_id"] == 14


def test_command_refuses_options_of_the_other_kind_of_source(tmp_path, capsys):
    """By hand: --set with a path, and --val with a config."""
    write_source(tmp_path, make_content())
    assert main(["doctor", str(tmp_path / "annotations.json"), "--set", "name=a"]) == 2
    assert main(["doctor", "quickstart", "--val", str(tmp_path)]) == 2
    assert main(["doctor", str(tmp_path / "nothing" / "here")]) == 2


def test_splits_that_data_list_are_examined(tmp_path, shapes):
    """By hand: a folder of COCO files for training and validation."""
    source = DataSource.of_path(DataPath(shapes, "detection"))
    assert list(source.configs) == ["train", "val"]


def test_cost_of_a_model_is_counted_from_its_shapes():
    """By hand: a convolution of 3 to 8 channels on 32 x 32 pixels, which keeps its input, and a ReLU its output."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    cost = measure_cost(model, model, (32, 32))
    assert cost.operations == 2 * 3 * 3 * 3 * 8 * 32 * 32
    assert cost.saved_bytes == 4 * (3 + 8) * 32 * 32
    assert cost.parameters == 8 * (3 * 3 * 3 + 1)


def test_experiment_gets_an_estimate_and_is_compared_with_its_anchors(shapes):
    """By hand: the tiny experiment takes 4 steps of 2 of the 8 images."""
    found = cases(examine(DataSource.of_experiment("tiny", tiny_config(shapes)), with_images=False))
    assert found["training-cost"].what.startswith("1.0 epochs of images of about 64 x 64")


def test_anchors_that_reach_few_objects_are_a_warning(shapes):
    """By hand: no anchor of 1000 pixels reaches an object of an image of 80."""
    experiment = tiny_config(shapes)
    rpn = {"anchor_sizes": ((1000.0,),) * 4}
    experiment = experiment.replace(model={"head": {"rpn": rpn}})
    finding = cases(examine(DataSource.of_experiment("tiny", experiment), with_images=False))["few-reached-by-anchors"]
    assert finding.severity == "warning" and finding.count == finding.total


def make_page(folder: Path) -> str:
    """Return the page of data with a repeated object and a long file name with markup."""
    content = make_content()
    write_images(folder / "images")
    name = "<b>" + "a" * 100 + ".png"
    shutil.copyfile(folder / "images" / "14.png", folder / "images" / name)
    (folder / "images" / "14.png").unlink()
    content["images"][-1]["file_name"] = name
    add("annotations", id=99)(content, folder)
    return render_page(examine(write_source(folder, content)))


def test_page_needs_no_network_and_escapes_names(tmp_path):
    """By hand: no address but those of pictures in the page, and no markup from a file name."""
    page = make_page(tmp_path)
    assert "http" not in page and "<b>" not in page and "&lt;b&gt;" in page
    assert page.count('src="data:image/jpeg;base64,') == page.count("src=") == 4


def test_page_fits_a_phone_and_filters_findings(tmp_path):
    """By hand, in headless Chromium: no sideways scrolling at 360 pixels, a dark background, and a working filter."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    (tmp_path / "page.html").write_text(make_page(tmp_path), encoding="utf-8")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 700}, color_scheme="dark")
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        page.goto((tmp_path / "page.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        assert page.locator("article.warning").is_visible() and page.locator("article.note").is_visible()
        page.uncheck("#show-note")
        assert page.locator("article.warning").is_visible() and not page.locator("article.note").is_visible()
        background = page.evaluate("getComputedStyle(document.documentElement).colorScheme")
        browser.close()
    assert "dark" in background and problems == []


def test_box_is_drawn_where_the_object_is():
    """By hand: a box of 20 pixels in the middle of 200 is drawn in a window of 80 pixels, enlarged by 4."""
    picture = draw_object(np.zeros((200, 200, 3), np.uint8), (90.0, 90.0, 110.0, 110.0))
    rows, columns = np.nonzero(picture[..., 0] > 200)
    assert picture.shape == (320, 320, 3)
    assert abs(columns.min() - 120) <= 2 and abs(columns.max() - 200) <= 2 and abs(rows.min() - 120) <= 2
