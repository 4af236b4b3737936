"""Samples of several images. The pixels of the data say which image they are from and from where in it, so what must
have become of masks, boxes, outlines and maps is read off the mixed image itself."""

import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from vertebra.data import (
    CopyPasteConfig,
    LoaderConfig,
    MixupConfig,
    MosaicConfig,
    Record,
    ResizeConfig,
    Sample,
    ScaledCropConfig,
    build_mix,
    build_transform,
    train_loader,
)
from vertebra.engine import SplitConfig
from vertebra.ops import cut_outlines
from vertebra.structures import IGNORE, DataError, Instances, UsageError

from .telltale import HEIGHT, WIDTHS, Telltale, boxes_of, ignored_of, masks_of, semantic_of
from .tiny import tiny_config
from .tiny_coco_file import open_tiny

AS_IT_IS = ResizeConfig(short_sides=(HEIGHT,))
FILL = (124, 116, 104)
MOSAIC = MosaicConfig(size=(90, 130), middle=(0.3, 0.7))
MIXES = [CopyPasteConfig(), MOSAIC, MixupConfig()]


def mixed(config, dataset=None, epoch: int = 0, index: int = 0, transform=AS_IT_IS, seed: int = 0) -> Sample:
    dataset = dataset or Telltale()
    return build_mix(config, dataset)(dataset.read, build_transform(transform, seed), epoch, index)


def as_bytes(sample: Sample) -> list[bytes]:
    target = sample.target
    return [each.numpy().tobytes() for each in (sample.image, target.boxes, target.labels, target.masks)]


def pixels_of(sample: Sample) -> np.ndarray:
    return sample.image.permute(1, 2, 0).numpy().astype(int)


def drawn_masks(target: Instances, size: tuple[int, int]) -> np.ndarray:
    """The masks, whatever they came as, over the whole image."""
    if target.masks is not None:
        return target.masks.numpy()
    count, region = len(target), torch.tensor([[0.0, 0.0, size[1], size[0]]])
    return cut_outlines(target.outlines, torch.arange(count), region.expand(count, 4), size).numpy()


@dataclass
class Quarter:
    """One image as a mosaic shows it."""

    image: int
    place: np.ndarray  # where it is, h w
    left: int  # what was added to x
    top: int

    def seen(self, masks: np.ndarray) -> np.ndarray:
        """Masks, or a map, of the image where the mosaic shows them."""
        rows, columns = np.nonzero(self.place)
        shown = np.zeros((*masks.shape[:-2], *self.place.shape), masks.dtype)
        shown[..., rows, columns] = masks[..., rows - self.top, columns - self.left]
        return shown

    def seen_box(self, box: np.ndarray) -> np.ndarray:
        left, top, right, bottom = boxes_of(self.place[None])[0]
        return (box + [self.left, self.top] * 2).clip([left, top] * 2, [right, bottom] * 2)


def quarters_of(sample: Sample) -> list[Quarter]:
    """Pixels of one image that were moved by the same."""
    pixels = pixels_of(sample)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    keys = np.stack([pixels[..., 0], x - pixels[..., 2], y - pixels[..., 1]], axis=2)
    shown = ~(pixels == FILL).all(axis=2)
    return [
        Quarter(int(image), shown & (keys == (image, left, top)).all(axis=2), int(left), int(top))
        for image, left, top in np.unique(keys[shown], axis=0)
    ]


@pytest.mark.parametrize("index", range(5))
def test_a_mosaic_is_four_rectangles_around_a_point(index):
    """A law: every pixel is one of an image, at one shift for each of the four, or the mean colour; of what an image
    has, as much is shown as its quarter holds, and the point is where it may be."""
    for epoch in range(6):
        sample = mixed(MOSAIC, epoch=epoch, index=index)
        quarters = quarters_of(sample)
        assert sample.image.shape == (3, 90, 130) and sample.image_id == index and len(quarters) == 4
        corners = [boxes_of(quarter.place[None])[0] for quarter in quarters]
        assert all(
            quarter.place.sum() == (right - left) * (bottom - top)
            for quarter, (left, top, right, bottom) in zip(quarters, corners, strict=True)
        )
        first = min(range(4), key=lambda place: corners[place][0] + corners[place][1])
        assert index in [quarter.image for quarter in quarters] and quarters[first].image == index
        (middle_x,) = {x for x in range(39, 92) if sum(x in (box[0], box[2]) for box in corners) == 4}
        (middle_y,) = {y for y in range(27, 64) if sum(y in (box[1], box[3]) for box in corners) == 4}
        for quarter, (left, top, right, bottom) in zip(quarters, corners, strict=True):
            room = middle_x if right == middle_x else 130 - middle_x, middle_y if bottom == middle_y else 90 - middle_y
            assert (right - left, bottom - top) == (min(room[0], WIDTHS[quarter.image]), min(room[1], HEIGHT))


def test_any_part_of_an_image_may_be_seen():
    """A law (5 sigma): where a quarter has room for a part of an image, that is anywhere in it, as often as elsewhere;
    partners that are the image itself are seen in other parts."""
    shares = []
    for epoch in range(60):
        for quarter in quarters_of(mixed(MOSAIC, epoch=epoch)):
            left, top, right, bottom = boxes_of(quarter.place[None])[0]
            for start, seen, whole in (
                (left - quarter.left, right - left, WIDTHS[quarter.image]),
                (top - quarter.top, bottom - top, HEIGHT),
            ):
                if whole - seen > 5:
                    shares.append(start / (whole - seen))
    assert len(shares) > 100 and {0, 1} <= set(shares)
    assert np.mean(shares) == pytest.approx(0.5, abs=5 * (12 * len(shares)) ** -0.5)
    assert np.std(shares) == pytest.approx(12**-0.5, abs=0.06)


def test_every_image_of_a_mosaic_is_transformed_by_itself():
    """A law: of flips at random, the four of a mosaic have some and others not; in each place about half (5 sigma)."""
    flips = []
    for epoch in range(60):
        sample = mixed(MOSAIC, epoch=epoch, transform=AS_IT_IS.model_copy(update={"flip": 0.5}))
        blue, shown = pixels_of(sample)[..., 2], (pixels_of(sample) != FILL).any(axis=2)
        steps = np.where(shown[:, 1:] & shown[:, :-1], np.diff(blue, axis=1), 0)
        flips.append([steps[rows, columns].sum() < 0 for rows in (10, 80) for columns in (slice(38), slice(92, None))])
    assert abs(np.sum(flips, axis=0) - 30).max() < 20
    assert len(np.unique(flips, axis=0)) > 12  # of 16


@pytest.mark.parametrize("form", ["bitmaps", "polygons"])
def test_a_mosaic_shows_masks_where_it_shows_their_pixels(form):
    """A law: the masks that each quarter shows, drawn over the whole mosaic, are all there is, and their boxes are
    those of what is seen of them; nothing else is kept. Regions to ignore are moved and cut with their image."""
    dropped = 0
    for epoch in range(12):
        sample = mixed(MOSAIC, Telltale(form), epoch, epoch % 5)
        expected, ignored = [], []
        for quarter in quarters_of(sample):
            for number, mask in enumerate(quarter.seen(masks_of(quarter.image))):
                if mask.any():
                    expected.append((10 * quarter.image + number, mask.tobytes(), tuple(boxes_of(mask[None])[0])))
                dropped += not mask.any()
            boxes = [quarter.seen_box(box) for box in ignored_of(quarter.image)]
            ignored += [tuple(box) for box in boxes if (box[2:] > box[:2]).all()]
        target = sample.target
        masks = drawn_masks(target, (90, 130)).astype(np.uint8)
        boxes = [tuple(box) for box in target.boxes.tolist()]
        found = [
            (label, mask.tobytes(), box) for label, mask, box in zip(target.labels.tolist(), masks, boxes, strict=True)
        ]
        assert sorted(found) == sorted(expected)
        assert np.allclose(sorted(target.ignored.tolist()), sorted(ignored), atol=1e-4)
    assert dropped > 0


def test_a_mosaic_of_boxes_cuts_them():
    """A law: where there are no masks, a box is moved with its image and cut at its quarter."""
    for epoch in range(10):
        sample = mixed(MOSAIC, Telltale(None), epoch, 2)
        expected = [
            (10 * quarter.image + number, *quarter.seen_box(box))
            for quarter in quarters_of(sample)
            for number, box in enumerate(boxes_of(masks_of(quarter.image)))
        ]
        expected = [row for row in expected if row[3] > row[1] and row[4] > row[2]]
        target = sample.target
        found = [(label, *box) for label, box in zip(target.labels.tolist(), target.boxes.tolist(), strict=True)]
        assert np.allclose(sorted(found), sorted(expected), atol=1e-4) and target.masks is None


def test_a_mosaic_of_maps():
    """A law: every pixel keeps its class, and what is no image's has none."""
    for epoch in range(10):
        sample = mixed(MOSAIC, Telltale(tasks=("semantic",)), epoch, 1)
        expected = np.full((90, 130), IGNORE)
        for quarter in quarters_of(sample):
            expected[quarter.place] = quarter.seen(semantic_of(quarter.image))[quarter.place]
        assert np.array_equal(sample.target.numpy(), expected)


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


@pytest.mark.parametrize("form", ["bitmaps", "polygons", None])
def test_mixup_by_hand(form):
    """The formula with the share that the same dice give; both truths, each where it was; the larger size."""
    dataset = Telltale(form)
    records = [dataset.read(1), replace(dataset.read(2), image=np.full((HEIGHT, WIDTHS[2], 3), 250, np.uint8))]
    result = build_mix(MixupConfig(), dataset).join(records, np.random.default_rng(3))
    share = np.random.default_rng(3).beta(1.5, 1.5)
    padded = [np.broadcast_to(np.array(FILL), (HEIGHT, WIDTHS[1], 3)).copy() for _ in records]
    for canvas, record in zip(padded, records, strict=True):
        canvas[:, : record.image.shape[1]] = record.image
    assert 0.05 < share < 0.95
    assert abs(result.image - (share * padded[0] + (1 - share) * padded[1])).max() <= 0.5 + 1e-6
    assert result.objects.labels.tolist() == [10, 11, 12, 20, 21, 22] and result.image_id == 1
    assert np.array_equal(result.objects.boxes, np.concatenate([boxes_of(masks_of(1)), boxes_of(masks_of(2))]))
    assert np.array_equal(result.objects.ignored, np.concatenate([ignored_of(1), ignored_of(2)]))
    if form == "bitmaps":
        assert np.array_equal(result.objects.masks[:3], masks_of(1))
        assert np.array_equal(result.objects.masks[3:, :, : WIDTHS[2]], masks_of(2))
        assert not result.objects.masks[3:, :, WIDTHS[2] :].any()
    if form == "polygons":
        assert len(result.objects.outlines) == 6


@pytest.mark.parametrize("config", MIXES, ids=lambda config: config.name)
@pytest.mark.parametrize(
    "transform",
    [
        ScaledCropConfig(size=(64, 80), scales=(0.5, 1.5)),
        AS_IT_IS,
    ],
    ids=lambda config: config.name,
)
def test_a_mix_is_a_function_of_seed_epoch_and_index(config, transform):
    """A law: the same three give the same sample whatever came before, and each of them matters; to the mix itself too,
    where the transform draws nothing."""

    def samples(**place: int) -> list[list[bytes]]:
        dataset = Telltale()
        mix, change = build_mix(config, dataset), build_transform(transform, place.pop("seed", 0))
        mix(dataset.read, change, 98, 3)
        epoch = place.pop("epoch", 0)
        return [as_bytes(mix(dataset.read, change, epoch, index)) for index in range(5)]

    first = samples()
    assert samples() == first
    for other in (samples(epoch=1), samples(seed=1)):
        assert sum(own != each for own, each in zip(first, other, strict=True)) > 2


@pytest.mark.parametrize("config", MIXES, ids=lambda config: config.name)
def test_workers_and_resuming_change_no_mix(config):
    """A law: 0 and 2 workers give the same stream, another process each, and from step 3 on it is the tail."""

    def stream(workers: int, start: int = 0) -> list[bytes]:
        batches = train_loader(
            Telltale(), ScaledCropConfig(size=(64, 64)), LoaderConfig(workers=workers),
            batch_size=2, divisor=32, seed=5, start_step=start, end_step=6, mix=config,
        )  # fmt: skip
        return [
            b"".join([batch.images.pixels.numpy().tobytes(), *(own.boxes.numpy().tobytes() for own in batch.targets)])
            for batch in batches
        ]

    alone = stream(0)
    assert stream(2) == alone and stream(0, start=3) == alone[3:] and len(set(alone)) == 6


@pytest.mark.parametrize("config", MIXES, ids=lambda config: config.name)
def test_an_image_that_is_not_mixed_is_the_one_without_a_mix(config):
    """A law: with a probability of none always, of half in about half of the samples (5 sigma)."""
    dataset, change = Telltale(), build_transform(ScaledCropConfig(size=(64, 64)), 4)
    never, half = (build_mix(config.model_copy(update={"probability": share}), dataset) for share in (0.0, 0.5))
    alone = 0
    for epoch in range(40):
        own = as_bytes(change(dataset.read(2), epoch, 2))
        assert as_bytes(never(dataset.read, change, epoch, 2)) == own
        alone += as_bytes(half(dataset.read, change, epoch, 2)) == own
    assert 4 <= alone <= 36


def test_every_image_is_a_partner():
    """A law (5 sigma): each of five equally often, the image itself too."""
    mix = build_mix(MOSAIC, Telltale())
    read, change = Telltale().read, build_transform(AS_IT_IS)
    places: list[int] = []
    for epoch in range(60):
        mix(lambda index: places.append(index) or read(index), change, epoch, 0)
    partners = np.reshape(places, (60, 4))[:, 1:]
    assert abs(np.bincount(partners.flatten(), minlength=5) - 36).max() < 27


def test_a_partner_that_cannot_be_read_is_named(tmp_path):
    """FAULTS 116: a DataError with its own file and id, not those of the image that it was to join."""
    dataset = open_tiny(tmp_path)
    broken = tmp_path / "images" / "12.png"
    broken.write_bytes(broken.read_bytes()[:200])
    mix, change = build_mix(MOSAIC, dataset), build_transform(ResizeConfig(short_sides=(32,)))
    with pytest.raises(DataError, match=r"12\.png: image_id=12") as caught:
        for epoch in range(50):
            mix(dataset.read, change, epoch, 0)
    assert caught.value.image_id == 12


@pytest.mark.parametrize(
    ("config", "dataset", "message"),
    [
        (CopyPasteConfig(), Telltale(None), "copy_paste .* needs as bitmaps: set masks=true and mask_format=bitmaps"),
        (CopyPasteConfig(), Telltale("polygons"), "needs as bitmaps"),
        (CopyPasteConfig(), Telltale(tasks=("semantic",)), "needs as bitmaps"),
        (MixupConfig(), Telltale(tasks=("semantic",)), "mixup mixes images with truth for detection; .* semantic"),
        (MOSAIC, Telltale(tasks=("detection", "classification")), "have it for classification: leave train.mix out"),
    ],
)
def test_data_that_cannot_be_mixed_is_refused(config, dataset, message):
    """UsageError before the first batch, exit code 2."""
    with pytest.raises(UsageError, match=message):
        train_loader(
            dataset, AS_IT_IS, LoaderConfig(), batch_size=1, divisor=1, seed=0, start_step=0, end_step=1, mix=config
        )


def test_configs_that_cannot_be_are_refused(shapes):
    """In words, at construction; a mix in the config comes back from its own JSON."""
    with pytest.raises(ValidationError, match="middle goes from the least to the greatest"):
        MosaicConfig(middle=(0.6, 0.4))
    config = tiny_config(shapes)
    with pytest.raises(ValidationError, match=r"val\.mix: images are mixed to train on them"):
        tiny_config(shapes, val=config.val.model_copy(update={"mix": MOSAIC}))
    split = config.train.model_copy(update={"mix": MOSAIC})
    assert SplitConfig.model_validate(split.model_dump(mode="json")).mix == MOSAIC


def test_no_more_than_one_image_is_there_in_its_original_size():
    """Python's own count of memory: a mosaic of four images of 18 MB takes less than two of them."""
    image = np.zeros((2000, 3000, 3), np.uint8)
    dataset = Telltale(tasks=("semantic",))
    mix, change = build_mix(MOSAIC, dataset), build_transform(ResizeConfig(short_sides=(64,)))

    def read(index: int) -> Record:
        return Record(image.copy(), semantic=np.zeros((2000, 3000), np.uint8))

    mix(read, change, 0, 0)
    tracemalloc.start()
    mix(read, change, 0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.nbytes < peak < 2 * image.nbytes
