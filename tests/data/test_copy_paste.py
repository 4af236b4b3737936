"""Copy-paste. What must have become of masks, boxes and maps is read off the mixed image itself, whose pixels say where
they come from."""

from dataclasses import replace

import numpy as np

from vertebra.data import CopyPasteConfig, Objects, Record, build_mix

from ..helpers.telltale import HEIGHT, WIDTHS, Telltale, boxes_of, ignored_of, masks_of, mixed, pixels_of, semantic_of


def test_pasted_objects_are_the_pixels_that_were_pasted():
    """A law: pixels of the other image are the union of masks with its labels, each where it was there; own objects
    lost exactly those, and none of them shows nothing; all boxes are those of what is seen."""
    dataset = Telltale("bitmaps", ("detection", "semantic"))
    counts, smaller = [], 0
    for epoch in range(40):
        index = epoch % 5
        read: list[int] = []
        dataset.read = lambda place, read=read: read.append(place) or Telltale.read(dataset, place)
        sample = mixed(CopyPasteConfig(), dataset, epoch, index)
        if read[1] == index:  # an image upon itself
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
            whole = masks_of(label // 10)[label % 10][:, : source.shape[1]]
            source[:, : whole.shape[1]] = whole
            assert np.array_equal(mask, source & ~covered if label // 10 == index else source)
        left = masks_of(index) & ~covered
        assert labels[~foreign].tolist() == [10 * index + number for number in range(3) if left[number].any()]
        assert np.allclose(target.ignored, ignored_of(index))
        classes = np.full(pixels.shape[:2], -1)
        for image in np.unique(pixels[..., 0]):
            rows, columns = np.nonzero(pixels[..., 0] == image)
            classes[rows, columns] = semantic_of(image)[rows, columns]
        assert np.array_equal(sample.target["semantic"], classes)
        counts.append(int(foreign.sum()))
        smaller += bool((left.sum(axis=(1, 2)) < masks_of(index).sum(axis=(1, 2))).any())
    assert smaller > 10 and set(counts) == {0, 1, 2, 3}


def test_an_object_that_is_hidden_whole_is_dropped():
    """By hand: of two disks the small one goes when the large one is pasted on it, and only then; what is left of the
    large one on itself has the box of a crescent."""
    large = np.zeros((1, 20, 30), np.uint8)
    large[0, 5:15, 10:20] = 1
    small, half = np.zeros_like(large), np.zeros_like(large)
    small[0, 8:10, 12:14] = 1
    half[0, 5:15, 2:15] = 1
    own, other = (Telltale().read(0) for _ in range(2))
    own_masks, other_masks = np.concatenate([small, half]), large
    own = with_masks(own, own_masks, [1, 2])
    other = with_masks(other, other_masks, [3])
    mix = build_mix(CopyPasteConfig(), Telltale())
    found = set()
    for seed in range(10):
        objects = mix.join([own, other], np.random.default_rng(seed)).objects
        assert objects is not None
        found.add(tuple(zip(objects.labels.tolist(), map(tuple, objects.boxes.tolist()), strict=True)))
    assert found == {
        ((1, (12, 8, 14, 10)), (2, (2, 5, 15, 15))),
        ((2, (2, 5, 10, 15)), (3, (10, 5, 20, 15))),
    }


def test_what_is_not_covered_keeps_its_box():
    """By hand: two objects whose boxes are wider than their masks, the lower one covered in part; the boxes are those
    of the file but for what was covered. What is pasted keeps its own too."""
    masks = np.zeros((3, 20, 30), np.uint8)
    masks[0, 2:5, 2:28] = masks[1, 10:18, 2:10] = masks[2, 12:20, 6:12] = 1
    own, other = with_masks(Telltale().read(0), masks[:2], [1, 2]), with_masks(Telltale().read(1), masks[2:], [3])
    own, other = (replace(each, objects=wider(each.objects)) for each in (own, other))
    mix, expected = (
        build_mix(CopyPasteConfig(), Telltale()),
        {1: [1.75, 1.75, 28.25, 5.25], 3: [5.75, 11.75, 12.25, 20]},
    )
    found = [mix.join([own, other], np.random.default_rng(seed)).objects for seed in range(10)]
    found = [dict(zip(each.labels.tolist(), each.boxes.tolist(), strict=True)) for each in found]
    assert all(each.items() <= (expected | {2: [2, 10, 10, 18]}).items() for each in found if 3 in each)
    assert {1: expected[1], 2: [1.75, 9.75, 10.25, 18.25]} in found and any(3 in each for each in found)


def wider(objects: Objects) -> Objects:
    """With boxes that reach a quarter of a pixel further, in an image of 20 x 30."""
    boxes = objects.boxes + np.array([-0.25, -0.25, 0.25, 0.25], np.float32)
    return objects.replace(boxes=boxes.clip(0, [30, 20, 30, 20]).astype(np.float32))


def test_an_object_with_an_empty_mask_keeps_its_box_and_is_not_pasted():
    """By hand (docs/faults.md row 58): nobody knows what of it would be hidden, or which pixels to paste."""
    masks = np.zeros((2, 20, 30), np.uint8)
    masks[0, 5:15, 5:15] = 1
    boxes = np.array([[5, 5, 15, 15], [20, 2, 28, 8]], np.float32)
    own, other = (with_masks(Telltale().read(0), masks, [10 * place, 10 * place + 1], boxes) for place in (1, 2))
    mix = build_mix(CopyPasteConfig(), Telltale())
    found = [mix.join([own, other], np.random.default_rng(seed)).objects for seed in range(10)]
    assert {tuple(each.labels.tolist()) for each in found} == {(10, 11), (11, 20)}
    assert all(each.boxes[each.labels == 11].tolist() == [[20, 2, 28, 8]] for each in found)


def with_masks(record: Record, masks: np.ndarray, labels: list[int], boxes: np.ndarray | None = None) -> Record:
    """A black image with these objects; their boxes are those of the masks unless they are given."""
    assert record.objects is not None
    boxes = boxes_of(masks) if boxes is None else boxes
    objects = record.objects.replace(boxes=boxes, labels=np.array(labels), masks=masks)
    return replace(record, image=np.zeros((*masks.shape[1:], 3), np.uint8), objects=objects)


def test_every_number_of_objects_is_pasted_equally_often():
    """A law (5 sigma): none, one, two or three of three, and each object as often as another."""
    mix, own, other = build_mix(CopyPasteConfig(), Telltale()), Telltale().read(0), Telltale().read(1)
    generator = np.random.default_rng(0)
    labels = [mix.join([own, other], generator).objects.labels for _ in range(200)]
    counts = np.bincount([int((each >= 10).sum()) for each in labels], minlength=4)
    assert len(counts) == 4 and abs(counts - 50).max() < 31
    chosen = np.bincount(np.concatenate(labels), minlength=13)[10:13]
    assert abs(chosen - 100).max() < 36
