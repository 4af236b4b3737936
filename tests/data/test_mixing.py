"""Mixup, and what holds for every mix of images."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from vertebra.data import (
    CopyPasteConfig,
    LoaderConfig,
    MixConfig,
    MixSequenceConfig,
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
from vertebra.structures import DataError, UsageError

from ..helpers.coordinate_dataset import (
    AS_IT_IS,
    FILL,
    HEIGHT,
    WIDTHS,
    CoordinateDataset,
    boxes_of,
    ignored_of,
    masks_of,
)
from ..helpers.tiny import tiny_config
from ..helpers.tiny_coco_file import open_tiny

MOSAIC = MosaicConfig(size=(90, 130), middle=(0.3, 0.7))
SEQUENCE = MixSequenceConfig(mixes=(MOSAIC, MixupConfig()))
MIXES = [CopyPasteConfig(), MOSAIC, MixupConfig(), SEQUENCE]


def as_bytes(sample: Sample) -> list[bytes]:
    """Return the image, boxes, labels and masks of a sample."""
    target = sample.target
    return [tensor.numpy().tobytes() for tensor in (sample.image, target.boxes, target.labels, target.masks)]


@pytest.mark.parametrize("form", ["bitmaps", "polygons", None])
def test_mixup_is_the_weighted_mean_of_two_images(form):
    """By hand: the formula with the weight that the same generator draws, on a canvas as large as the larger image;
    the objects of both images stay where they were."""
    dataset = CoordinateDataset(form)
    records = [dataset.read(1), replace(dataset.read(2), image=np.full((HEIGHT, WIDTHS[2], 3), 250, np.uint8))]
    result = build_mix(MixupConfig(), dataset).join(records, np.random.default_rng(3))
    weight = np.random.default_rng(3).beta(1.5, 1.5)
    padded = [np.broadcast_to(np.array(FILL), (HEIGHT, WIDTHS[1], 3)).copy() for _ in records]
    for canvas, record in zip(padded, records, strict=True):
        canvas[:, : record.image.shape[1]] = record.image
    assert 0.05 < weight < 0.95
    assert abs(result.image - (weight * padded[0] + (1 - weight) * padded[1])).max() <= 0.5 + 1e-6
    assert result.objects.labels.tolist() == [10, 11, 12, 20, 21, 22] and result.image_id == 1
    assert np.array_equal(result.objects.boxes, np.concatenate([boxes_of(masks_of(1)), boxes_of(masks_of(2))]))
    assert np.array_equal(result.objects.ignored, np.concatenate([ignored_of(1), ignored_of(2)]))
    if form == "bitmaps":
        assert np.array_equal(result.objects.masks[:3], masks_of(1))
        assert np.array_equal(result.objects.masks[3:, :, : WIDTHS[2]], masks_of(2))
        assert not result.objects.masks[3:, :, WIDTHS[2] :].any()
    if form == "polygons":
        assert len(result.objects.polygon_masks) == 6


@pytest.mark.parametrize("config", MIXES, ids=lambda config: config.name)
@pytest.mark.parametrize(
    "transform",
    [
        ScaledCropConfig(size=(64, 80), scales=(0.5, 1.5)),
        AS_IT_IS,
    ],
    ids=lambda config: config.name,
)
def test_mixed_sample_depends_on_seed_epoch_and_index_only(config, transform):
    """Law: the same three give the same sample whatever was read before, and changing one gives another sample, also
    with a transform that draws nothing itself."""

    def samples(seed: int = 0, epoch: int = 0) -> list[list[bytes]]:
        dataset = CoordinateDataset()
        mix, change = build_mix(config, dataset), build_transform(transform, seed)
        mix(dataset.read, change, 98, 3)
        return [as_bytes(mix(dataset.read, change, epoch, index)) for index in range(5)]

    first = samples()
    assert samples() == first
    for other in (samples(epoch=1), samples(seed=1)):
        assert sum(before != after for before, after in zip(first, other, strict=True)) > 2


def batches_as_bytes(mix: MixConfig | None, workers: int = 0, start: int = 0) -> list[bytes]:
    """Return the pixels and boxes of each batch of a training of six steps, from step ``start`` on."""
    batches = train_loader(
        CoordinateDataset(), ScaledCropConfig(size=(64, 64)), LoaderConfig(workers=workers),
        batch_size=2, divisor=32, seed=5, start_step=start, end_step=6, mix=mix,
    )  # fmt: skip
    return [
        b"".join([batch.images.pixels.numpy().tobytes(), *(target.boxes.numpy().tobytes() for target in batch.targets)])
        for batch in batches
    ]


@pytest.mark.parametrize("config", MIXES, ids=lambda config: config.name)
def test_mixed_batches_do_not_depend_on_workers_or_resuming(config):
    """Law: 0 and 2 workers give the same batches, and a loader that starts at step 3 gives those from there on."""
    expected = batches_as_bytes(config)
    assert batches_as_bytes(config, workers=2) == expected and len(set(expected)) == 6
    assert batches_as_bytes(config, start=3) == expected[3:]


@pytest.mark.parametrize("config", MIXES, ids=lambda config: config.name)
def test_mixing_ends_before_the_training(config):
    """Law: with ``until=0.5`` the first three of six steps have mixed batches and the others have unmixed ones, also
    with workers and after resuming."""
    config = config.replace(probability=1.0)
    mixed, unmixed = batches_as_bytes(config), batches_as_bytes(None)
    assert not set(mixed) & set(unmixed)
    expected = [*mixed[:3], *unmixed[3:]]
    half = config.replace(until=0.5)
    assert batches_as_bytes(half) == batches_as_bytes(half, workers=2) == expected
    assert batches_as_bytes(half, start=2) == expected[2:] and batches_as_bytes(half, start=4) == expected[4:]


def test_sequence_applies_its_mixes_in_turn():
    """By hand: a mosaic of four images, and mixup of the result with a fifth, from the same generator."""
    dataset = CoordinateDataset()
    records = [dataset.read(index) for index in range(5)]
    result = build_mix(SEQUENCE, dataset).join(records, np.random.default_rng(2))
    generator = np.random.default_rng(2)
    generator.random()
    mosaic = build_mix(MOSAIC, dataset).join(records[:4], generator)
    generator.random()
    expected = build_mix(MixupConfig(), dataset).join([mosaic, records[4]], generator)
    assert np.array_equal(result.image, expected.image) and result.image_id == 0
    assert np.array_equal(result.objects.boxes, expected.objects.boxes) and len(result.objects) > 5
    without = SEQUENCE.replace(mixes=(MOSAIC.replace(probability=0.0), MixupConfig()))
    alone = build_mix(without, dataset).join(records, np.random.default_rng(2))
    assert len(alone.objects) == len(records[0].objects) + len(records[4].objects)


@pytest.mark.parametrize("config", MIXES, ids=lambda config: config.name)
def test_unmixed_samples_equal_samples_without_a_mix(config):
    """Law: all of them at a probability of 0, and about half of them at 0.5 (5 sigma)."""
    dataset, change = CoordinateDataset(), build_transform(ScaledCropConfig(size=(64, 64)), 4)
    never, half = (build_mix(config.replace(probability=probability), dataset) for probability in (0.0, 0.5))
    unmixed = 0
    for epoch in range(40):
        expected = as_bytes(change(dataset.read(2), epoch, 2))
        assert as_bytes(never(dataset.read, change, epoch, 2)) == expected
        unmixed += as_bytes(half(dataset.read, change, epoch, 2)) == expected
    assert 4 <= unmixed <= 36


def test_partners_are_drawn_uniformly():
    """Law (5 sigma): five images, the image itself included, as partners in 60 mosaics."""
    dataset = CoordinateDataset()
    mix, change = build_mix(MOSAIC, dataset), build_transform(AS_IT_IS)
    for epoch in range(60):
        mix(dataset.read, change, epoch, 0)
    partners = np.reshape(dataset.indices_read, (60, 4))[:, 1:]
    assert abs(np.bincount(partners.flatten(), minlength=5) - 36).max() < 27


def test_unreadable_partner_is_named_in_the_error(tmp_path):
    """docs/faults.md row 116. By hand: a DataError with the file and id of the partner, not of the image that it is
    mixed into."""
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
        (
            CopyPasteConfig(),
            CoordinateDataset(None),
            "copy_paste needs .* as bitmaps: set masks=true",
        ),
        (CopyPasteConfig(), CoordinateDataset("polygons"), "needs the masks of objects as bitmaps"),
        (CopyPasteConfig(), CoordinateDataset(tasks=("semantic",)), "needs the masks of objects as bitmaps"),
        (
            MixupConfig(),
            CoordinateDataset(tasks=("semantic",)),
            "mixup mixes images with ground truth for detection; .* semantic",
        ),
        (
            MOSAIC,
            CoordinateDataset(tasks=("detection", "classification")),
            "the data set has it for classification: leave train.mix out",
        ),
    ],
)
def test_data_that_cannot_be_mixed_is_refused(config, dataset, message):
    """By hand: a UsageError (exit code 2) before the first batch."""
    with pytest.raises(UsageError, match=message):
        train_loader(
            dataset, AS_IT_IS, LoaderConfig(), batch_size=1, divisor=1, seed=0, start_step=0, end_step=1, mix=config
        )


def test_invalid_mix_config_is_refused(shapes):
    """By hand: ValidationError at construction; a valid mix comes back from the JSON of its config."""
    with pytest.raises(ValidationError, match="middle must be"):
        MosaicConfig(middle=(0.6, 0.4))
    with pytest.raises(
        ValidationError, match=r"until=0.5 of mixup has no effect in a sequence: set it on the sequence"
    ):
        MixSequenceConfig(mixes=(MOSAIC, MixupConfig(until=0.5)))
    config = tiny_config(shapes)
    with pytest.raises(ValidationError, match="val: mix and sampling apply to training only"):
        tiny_config(shapes, val=config.val.replace(mix=MOSAIC))
    split = config.train.replace(mix=MOSAIC)
    assert SplitConfig.model_validate(split.model_dump(mode="json")).mix == MOSAIC


def test_mix_keeps_one_image_at_full_size_in_memory():
    """Oracle: Python's count of allocated memory: a mosaic of four images of 18 MB takes less than two of them."""
    image = np.zeros((2000, 3000, 3), np.uint8)
    dataset = CoordinateDataset(tasks=("semantic",))
    mix, change = build_mix(MOSAIC, dataset), build_transform(ResizeConfig(short_sides=(64,)))

    def read(index: int) -> Record:
        return Record(image.copy(), semantic=np.zeros((2000, 3000), np.uint8))

    mix(read, change, 0, 0)
    tracemalloc.start()
    mix(read, change, 0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.nbytes < peak < 2 * image.nbytes
