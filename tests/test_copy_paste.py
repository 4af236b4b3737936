"""Copy-paste. What must have become of masks, boxes and maps is read off the mixed image itself, whose pixels say where
they come from."""

from dataclasses import replace

import numpy as np

from vertebra.data import CopyPasteConfig, Record, build_mix

from .telltale import HEIGHT, WIDTHS, Telltale, boxes_of, ignored_of, masks_of, mixed, pixels_of, semantic_of


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
        assert np.array_equal(np.unique(labels), np.sort(labels)) and np.array_equal(target.boxes, boxes_of(masks))
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


def with_masks(record: Record, masks: np.ndarray, labels: list[int]) -> Record:
    """A black image with these objects."""
    assert record.objects is not None
    objects = replace(record.objects, boxes=boxes_of(masks), labels=np.array(labels), masks=masks)
    return replace(record, image=np.zeros((*masks.shape[1:], 3), np.uint8), objects=objects)


def test_every_number_of_objects_is_pasted_equally_often():
    """A law (5 sigma): none, one, two or three of three, and each object as often as another."""
    mix, own, other = build_mix(CopyPasteConfig(), Telltale()), Telltale().read(0), Telltale().read(1)
    dice = np.random.default_rng(0)
    labels = [mix.join([own, other], dice).objects.labels for _ in range(200)]
    counts = np.bincount([int((each >= 10).sum()) for each in labels], minlength=4)
    assert len(counts) == 4 and abs(counts - 50).max() < 31
    chosen = np.bincount(np.concatenate(labels), minlength=13)[10:13]
    assert abs(chosen - 100).max() < 36
