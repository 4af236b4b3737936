"""``benchmark-data``: the pipelines that it compares do the same work."""

import pytest

from vertebra.tools.benchmark_pipelines import build_pipelines
from vertebra.tools.cli import main

from ..data.test_reduced_decoding import write_files

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools


@pytest.mark.parametrize("policy", ["resize", "jitter"])
def test_all_pipelines_give_equivalent_samples(policy, shapes):
    """Oracle: torchvision and albumentations: images of the same size, up to rounding, as uint8, with as many masks
    as boxes, of the size of the image."""
    ours, others, count = build_pipelines(shapes / "train", shapes / "annotations" / "instances_train.json", policy)
    assert count > 1 and len(others) == 3
    for index in range(count):
        mine = ours(0, index)
        masks = {"ours": (mine.target.masks, mine.target.boxes)}
        images = {"ours": mine.image}
        for name, theirs in others.items():
            sample = theirs(0, index)
            if isinstance(sample, dict):
                images[name], masks[name] = sample["image"], (sample["masks"], sample["bboxes"])
            else:
                images[name], masks[name] = sample[0], (sample[1]["masks"], sample[1]["boxes"])
        for name, image in images.items():
            assert image.dtype == images["ours"].dtype, name
            assert all(abs(a - b) <= 1 for a, b in zip(image.shape, images["ours"].shape, strict=True)), name
            own, boxes = masks[name]
            assert len(own) >= len(boxes) and all(mask.shape == image.shape[1:] for mask in own), name


def test_decode_short_side_adds_a_pipeline(tmp_path):
    """By hand: the pipeline without reduced decoding is among the others: its image has the same size and other
    pixels."""
    given = write_files(tmp_path)  # four times the size that is decoded
    place = given["images"], given["annotations"], "resize"
    ours, others, _ = build_pipelines(*place, given["decode_short_side"])
    reduced, whole = ours(0, 0), others["ours, full decode"](0, 0)
    assert reduced.image.shape == whole.image.shape and not reduced.image.equal(whole.image)
    ours, others, _ = build_pipelines(*place)
    assert "ours, full decode" not in others and ours(0, 0).image.equal(whole.image)


def test_benchmark_data_prints_a_line_per_pipeline(shapes, capsys):
    """By hand: three others by name, and Vertebra's without reduced decoding."""
    paths = [str(shapes / "train"), str(shapes / "annotations" / "instances_train.json")]
    assert main(["benchmark-data", *paths, "--count", "2", "--rounds", "1", "--decode-short-side", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" images/s, ")[1].rpartition(" ratio")[0][:14].strip() for line in lines[1:]] == [
        "ours, full dec", "torchvision v2", "torchvision v2", "albumentations",
    ]  # fmt: skip
    assert main(["benchmark-data", paths[0]]) == 2
    assert "give both the folder" in capsys.readouterr().err
