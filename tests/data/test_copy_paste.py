"""Copy-paste. The pixels of the test images say where they come from, so the expected masks, boxes and semantic maps
can be read off the mixed image."""

from dataclasses import replace

import numpy as np

from vertebra.data import CopyPasteConfig, Objects, Record, build_mix

from ..helpers.coordinate_dataset import (
    HEIGHT,
    WIDTHS,
    CoordinateDataset,
    boxes_of,
    ignored_of,
    masks_of,
    mix_sample,
    pixels_of,
    semantic_of,
)


def test_masks_and_boxes_cover_the_visible_pixels():
    """Law: the pixels of the other image are the union of the pasted masks, each at its place; the masks of the image
    lose exactly these pixels, and no mask is empty; every box fits its visible pixels."""
    dataset = CoordinateDataset("bitmaps", ("detection", "semantic"))
    counts, smaller = [], 0
    for epoch in range(40):
        index = epoch % 5
        sample = mix_sample(CopyPasteConfig(), dataset, epoch, index)
        if dataset.indices_read[-1] == index:  # an image on itself
            continue
        pixels, target = pixels_of(sample), sample.target["detection"]
        y, x = np.mgrid[:HEIGHT, : WIDTHS[index]]
        assert np.array_equal(pixels[..., 1:], np.stack([y, x], axis=2))
        labels, masks = target.labels.numpy(), target.masks.numpy().astype(np.uint8)
        foreign = labels // 10 != index
        covered = pixels[..., 0] != index
        assert np.array_equal(masks[foreign].any(axis=0), covered)
        assert np.array_equal(np.unique(labels), np.sort(labels))
        assert np.allclose(target.boxes, boxes_of(masks), atol=1e-4)
        for label, mask in zip(labels, masks, strict=True):
            source = np.zeros_like(mask)
            original = masks_of(label // 10)[label % 10][:, : source.shape[1]]
            source[:, : original.shape[1]] = original
            assert np.array_equal(mask, source & ~covered if label // 10 == index else source)
        left = masks_of(index) & ~covered
        assert labels[~foreign].tolist() == [10 * index + number for number in range(3) if left[number].any()]
        assert np.allclose(target.ignored, ignored_of(index))
        semantic = np.full(pixels.shape[:2], -1)
        for image in np.unique(pixels[..., 0]):
            rows, columns = np.nonzero(pixels[..., 0] == image)
            semantic[rows, columns] = semantic_of(image)[rows, columns]
        assert np.array_equal(sample.target["semantic"], semantic)
        counts.append(int(foreign.sum()))
        smaller += bool((left.sum(axis=(1, 2)) < masks_of(index).sum(axis=(1, 2))).any())
    assert smaller > 10 and set(counts) == {0, 1, 2, 3}


def test_hidden_object_is_dropped():
    """By hand: a small rectangle is dropped if the pasted one covers it, and only then; a larger one that is covered in
    part gets the box of its visible part."""
    large = np.zeros((1, 20, 30), np.uint8)
    large[0, 5:15, 10:20] = 1
    small, half = np.zeros_like(large), np.zeros_like(large)
    small[0, 8:10, 12:14] = 1
    half[0, 5:15, 2:15] = 1
    below = with_masks(CoordinateDataset().read(0), np.concatenate([small, half]), [1, 2])
    above = with_masks(CoordinateDataset().read(0), large, [3])
    mix = build_mix(CopyPasteConfig(), CoordinateDataset())
    results = set()
    for seed in range(10):
        objects = mix.join([below, above], np.random.default_rng(seed)).objects
        results.add(tuple(zip(objects.labels.tolist(), map(tuple, objects.boxes.tolist()), strict=True)))
    assert results == {
        ((1, (12, 8, 14, 10)), (2, (2, 5, 15, 15))),
        ((2, (2, 5, 10, 15)), (3, (10, 5, 20, 15))),
    }


def test_uncovered_object_keeps_its_annotated_box():
    """By hand: boxes are wider than their masks. The second object is covered in part and gets the box of its visible
    pixels; the first and the pasted object keep their annotated boxes."""
    masks = np.zeros((3, 20, 30), np.uint8)
    masks[0, 2:5, 2:28] = masks[1, 10:18, 2:10] = masks[2, 12:20, 6:12] = 1
    below, above = (
        with_masks(CoordinateDataset().read(0), masks[:2], [1, 2]),
        with_masks(CoordinateDataset().read(1), masks[2:], [3]),
    )
    below, above = (replace(record, objects=widen(record.objects)) for record in (below, above))
    mix = build_mix(CopyPasteConfig(), CoordinateDataset())
    results = [mix.join([below, above], np.random.default_rng(seed)).objects for seed in range(10)]
    boxes = [dict(zip(objects.labels.tolist(), objects.boxes.tolist(), strict=True)) for objects in results]
    first, second, pasted = [1.75, 1.75, 28.25, 5.25], [1.75, 9.75, 10.25, 18.25], [5.75, 11.75, 12.25, 20]
    possible = [{1: first, 2: second}, {1: first, 2: [2, 10, 10, 18], 3: pasted}]
    assert all(result in possible for result in boxes) and all(result in boxes for result in possible)


def widen(objects: Objects) -> Objects:
    """Return the objects with boxes that are a quarter of a pixel wider on each side, in an image of 20 x 30."""
    boxes = objects.boxes + np.array([-0.25, -0.25, 0.25, 0.25], np.float32)
    return objects.replace(boxes=boxes.clip(0, [30, 20, 30, 20]).astype(np.float32))


def test_object_with_empty_mask_keeps_its_box_and_is_not_pasted():
    """docs/faults.md row 58. By hand: nothing says which of its pixels would be hidden, or which to paste."""
    masks = np.zeros((2, 20, 30), np.uint8)
    masks[0, 5:15, 5:15] = 1
    boxes = np.array([[5, 5, 15, 15], [20, 2, 28, 8]], np.float32)
    below, above = (with_masks(CoordinateDataset().read(0), masks, [label, label + 1], boxes) for label in (10, 20))
    mix = build_mix(CopyPasteConfig(), CoordinateDataset())
    results = [mix.join([below, above], np.random.default_rng(seed)).objects for seed in range(10)]
    assert {tuple(objects.labels.tolist()) for objects in results} == {(10, 11), (11, 20)}
    assert all(objects.boxes[objects.labels == 11].tolist() == [[20, 2, 28, 8]] for objects in results)


def with_masks(record: Record, masks: np.ndarray, labels: list[int], boxes: np.ndarray | None = None) -> Record:
    """Return a black image with these objects; without ``boxes`` they have the boxes of the masks."""
    boxes = boxes_of(masks) if boxes is None else boxes
    objects = record.objects.replace(boxes=boxes, labels=np.array(labels), masks=masks)
    return replace(record, image=np.zeros((*masks.shape[1:], 3), np.uint8), objects=objects)


def test_every_number_of_objects_is_pasted_equally_often():
    """Law (5 sigma): none, one, two or three of three objects are pasted equally often, and so is each object."""
    mix, below, above = (
        build_mix(CopyPasteConfig(), CoordinateDataset()),
        CoordinateDataset().read(0),
        CoordinateDataset().read(1),
    )
    generator = np.random.default_rng(0)
    labels = [mix.join([below, above], generator).objects.labels for _ in range(200)]
    counts = np.bincount([int((result >= 10).sum()) for result in labels], minlength=4)
    assert len(counts) == 4 and abs(counts - 50).max() < 31
    chosen = np.bincount(np.concatenate(labels), minlength=13)[10:13]
    assert abs(chosen - 100).max() < 36
