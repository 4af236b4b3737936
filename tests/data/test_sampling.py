"""Samplers: which images an epoch has and which are in a batch together, for any number of steps, processes and
workers."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from vertebra.data import (
    CocoConfig,
    CocoSemanticConfig,
    Dataset,
    ImageFolderConfig,
    JointConfig,
    LoaderConfig,
    ResizeConfig,
    SamplingConfig,
    ShapeCropsConfig,
    Shard,
    VocConfig,
    VocSegmentationConfig,
    build_dataset,
    train_loader,
)
from vertebra.data.epoch_order import ClassBalancedOrder, EachOnceOrder, RepeatFactorOrder, repeat_factors
from vertebra.data.sampling import SampleIndex, StepSampler, build_epoch_order, group_of_images
from vertebra.data.subset import SubsetDataset
from vertebra.structures import UsageError

from ..helpers.tiny_coco_file import open_tiny, tiny_content
from ..helpers.tiny_voc_folder import write_voc


def test_repeat_factors():
    """By hand (1908.03195 B.2): t = 0.25 and ten images. Class 0 is on all of them; class 1 on one: sqrt(0.25 /
    0.1); class 2 on four: sqrt(0.25 / 0.4) is below 1. An image with class 0 alone has a factor of 1."""
    images = np.array([*range(9), 3, 2, 3, 4, 5])
    labels = np.array([0] * 9 + [1] + [2] * 4)
    expected = np.ones(10)
    expected[3] = 2.5**0.5
    assert np.allclose(repeat_factors(images, labels, 10, 0.25), expected)


def test_images_are_repeated_by_their_factor():
    """Law: in each epoch the factor rounded up or down, and on average over many epochs the factor itself."""
    factors = np.array([1.0, 1.25, 2.0, 3.5])
    epochs = RepeatFactorOrder(factors, seed=3)
    counts = np.array([np.bincount(epochs.order(epoch), minlength=4) for epoch in range(2000)])
    assert ((counts == np.floor(factors)) | (counts == np.ceil(factors))).all()
    assert np.allclose(counts.mean(axis=0), factors, atol=0.05)
    assert [epochs.length(epoch) for epoch in range(2000)] == counts.sum(axis=1).tolist()


def test_class_balanced_epochs_draw_classes_equally_often():
    """By hand: 20 images with one class each, 17, 2 and 1 of them: 20 draws are 7, 7 and 6, and the images of a
    class are drawn equally often, to within one."""
    labels = np.array([0] * 17 + [1] * 2 + [2])
    epochs = ClassBalancedOrder(np.arange(20), labels, 20, seed=0)
    for epoch in range(5):
        drawn = epochs.order(epoch)
        assert sorted(Counter(labels[drawn].tolist()).values()) == [6, 7, 7]
        assert epochs.length(epoch) == len(drawn) == 20
        for label in range(3):
            times = np.bincount(drawn, minlength=20)[labels == label]
            assert times.max() - times.min() <= 1
    assert len({tuple(epochs.order(epoch)) for epoch in range(5)}) == 5


def test_image_of_two_classes_is_drawn_for_both():
    """By hand: one image has both classes and one has the first alone. The former is drawn for class 1 every time,
    and an image without objects never."""
    epochs = ClassBalancedOrder(np.array([0, 0, 1]), np.array([0, 1, 0]), 4, seed=0)
    assert np.bincount(epochs.order(0), minlength=3).tolist() == [3, 1, 0]


GROUPS = np.random.default_rng(0).integers(0, 2, 50)
EPOCHS = {
    "each_once": EachOnceOrder(50, seed=1),
    "repeated": RepeatFactorOrder(1 + 2 * np.random.default_rng(1).random(50), seed=1),
    "class_balanced": ClassBalancedOrder(np.arange(50), np.arange(50) % 7, 50, seed=1),
    "less_than_a_batch": EachOnceOrder(5, seed=1),
}


def sampler(kind: str, start: int = 0, end: int = 40, shard: Shard = Shard()) -> StepSampler:
    """Return a sampler of batches of twelve, in groups."""
    return StepSampler(EPOCHS[kind], batch_size=12, start_step=start, end_step=end, shard=shard, groups=GROUPS)


@pytest.mark.parametrize("kind", EPOCHS)
def test_grouped_epochs_are_complete(kind):
    """Law: an epoch has exactly the images of its order, epochs follow one another, and repeats are numbered from 0."""
    stream = [sample_index for batch in sampler(kind) for sample_index in batch]
    assert [sample_index.epoch for sample_index in stream] == sorted(sample_index.epoch for sample_index in stream)
    for epoch in range(stream[-1].epoch):
        times = Counter(EPOCHS[kind].order(epoch).tolist())
        expected = {SampleIndex(epoch, index, repeat) for index, count in times.items() for repeat in range(count)}
        own = [sample_index for sample_index in stream if sample_index.epoch == epoch]
        assert len(own) == len(expected) and set(own) == expected


@pytest.mark.parametrize("kind", EPOCHS)
def test_grouped_sampler_resumes_exactly(kind):
    """Law: from any step on, the batches are those of an uninterrupted sampler."""
    whole = list(sampler(kind))
    for start in range(40):
        assert list(sampler(kind, start)) == whole[start:]


def test_batches_have_one_group():
    """Law: an epoch has at most two mixed batches, one per group."""
    batches = list(sampler("each_once", end=200))
    mixed = [batch for batch in batches if len({GROUPS[sample_index.index] for sample_index in batch}) > 1]
    epochs = batches[-1][-1].epoch + 1
    plain = StepSampler(EPOCHS["each_once"], batch_size=12, start_step=0, end_step=200)
    assert len(mixed) <= 2 * epochs < len(batches)
    assert sum(len({GROUPS[sample_index.index] for sample_index in batch}) > 1 for batch in plain) > 190
    one_epoch = StepSampler(
        EachOnceOrder(5000, seed=0), batch_size=10, start_step=0, end_step=500, groups=np.arange(5000) % 2
    )
    kinds = [batch[0].index % 2 for batch in one_epoch]
    assert sum(a != b for a, b in itertools.pairwise(kinds)) > 200  # not all of one group first


@pytest.mark.parametrize("share", [(2, 1), (1, 3), (3, 2)])
def test_shards_make_up_the_batch(share):
    """Law: the shards of all processes, micro-batch by micro-batch, are the batch of one process in its order."""
    processes, micro_batches = share
    shares = [list(sampler("repeated", shard=Shard(rank, processes, micro_batches))) for rank in range(processes)]
    for step, batch in enumerate(sampler("repeated")):
        micro = range(step * micro_batches, (step + 1) * micro_batches)
        assert [sample_index for number in micro for own in shares for sample_index in own[number]] == batch


def test_repeated_images_are_augmented_differently_for_any_number_of_workers(tmp_path):
    """Law: 0 and 2 workers give the same pixels; an image that an epoch has twice is not always resized to the same
    size."""
    dataset = open_tiny(tmp_path)
    sampling = SamplingConfig(images="class_balanced", group_by_shape=True)
    transform = ResizeConfig(short_sides=tuple(range(32, 64)), long_side=96, flip=0.5)
    streams = [
        list(
            train_loader(
                dataset, transform, LoaderConfig(workers=workers), batch_size=4, divisor=1, seed=0, start_step=0,
                end_step=3, sampling=sampling,
            )
        )
        for workers in (0, 2)
    ]  # fmt: skip
    for first, second in zip(*streams, strict=True):
        assert first.image_ids == second.image_ids and torch.equal(first.images.pixels, second.images.pixels)
    sizes = {}
    for image_id, size in zip(streams[0][0].image_ids, streams[0][0].images.sizes.tolist(), strict=True):
        sizes.setdefault(image_id, []).append(tuple(size))
    repeated = [own for own in sizes.values() if len(own) > 1]
    assert repeated and any(len(set(own)) > 1 for own in repeated)


def data_sets(shapes, folder) -> dict[str, Dataset]:
    """Return one data set of each kind that is read from files."""
    files = {"images": shapes / "train", "annotations": shapes / "annotations" / "instances_train.json"}
    coco, semantic, voc = CocoConfig(**files), CocoSemanticConfig(**files), write_voc(folder / "voc")
    sets = {
        "coco": coco,
        "semantic": semantic,
        "joint": JointConfig(parts={"detection": coco, "semantic": semantic}),
        "voc": VocConfig(root=voc, splits=("train",), min_box=24, use_difficult=False),
        "masks": VocSegmentationConfig(root=voc, splits=("train",)),
    }
    opened = {name: build_dataset(config, "skip") for name, config in sets.items()}
    return opened | {"selection": SubsetDataset(opened["coco"], opened["coco"].image_ids[5:2:-1])}


def test_sizes_labels_and_boxes_equal_the_records(shapes, tmp_path):
    """Oracle: the records themselves. In a semantic map an object may be hidden, but no class appears that the image
    does not have."""
    for name, dataset in data_sets(shapes, tmp_path).items():
        records = [dataset.read(index) for index in range(len(dataset))]
        assert dataset.sizes.tolist() == [list(record.image.shape[:2]) for record in records], name
        pairs = [] if name in ("joint", "masks") else dataset.image_labels().tolist()
        for index, record in enumerate(records if len(pairs) else []):
            labels = {label for place, label in pairs if place == index}
            if name == "semantic":
                assert set(np.unique(record.semantic).tolist()) <= labels | {0, 255}
            else:
                assert labels == set(record.objects.labels.tolist()), name
        if name in ("coco", "voc", "selection"):
            boxes = dataset.object_boxes()
            for index, record in enumerate(records):
                rows = [row for row, (place, _) in enumerate(pairs) if place == index]
                assert boxes[rows].tolist() == record.objects.boxes.tolist(), name


def test_sampling_without_labels_or_sizes_is_refused(shapes, tmp_path):
    """By hand: exit code 2, and what to set instead."""
    sets = data_sets(shapes, tmp_path)
    for name, fix in (
        ("joint", r"set sampling\.task to detection or semantic"),
        ("masks", r"sampling\.images to each_once"),
    ):
        with pytest.raises(UsageError, match=fix):
            build_epoch_order(SamplingConfig(images="repeat_factor"), sets[name], 0)
    crops = build_dataset(ShapeCropsConfig(split="train", count=3))
    with pytest.raises(UsageError, match=r"\(ShapeCrops\) does not know the sizes .*group_by_shape to false"):
        group_of_images(SamplingConfig(group_by_shape=True), crops)


def test_joint_data_is_sampled_by_the_classes_of_one_part(shapes, tmp_path):
    """Law: the same draws as from that part alone, which has the same images here. An unknown task is refused."""
    sets = data_sets(shapes, tmp_path)
    for task, name in (("detection", "coco"), ("semantic", "semantic")):
        config = SamplingConfig(images="class_balanced", task=task)
        joint, alone = (build_epoch_order(config, sets[each], 0).order(0) for each in ("joint", name))
        assert sets["joint"].image_ids == list(sets[name].image_ids) and joint.tolist() == alone.tolist()
    with pytest.raises(UsageError, match="no annotations for classification, only for detection and semantic"):
        build_epoch_order(SamplingConfig(images="class_balanced", task="classification"), sets["joint"], 0)


def test_unused_sampling_options_are_refused():
    """By hand: ValidationError at construction; a config comes back from its own JSON."""
    with pytest.raises(ValidationError, match="images='each_once' counts none: leave it out"):
        SamplingConfig(task="detection")
    with pytest.raises(ValidationError, match="repeat_below is for images='repeat_factor', not 'each_once'"):
        SamplingConfig(repeat_below=0.1)
    for config in (SamplingConfig(), SamplingConfig(images="repeat_factor", repeat_below=0.1)):
        assert SamplingConfig.model_validate(config.model_dump(mode="json")) == config


def test_class_balanced_sampling_of_image_folders(tmp_path):
    """By hand: of three images of one class and one of the other, each class is drawn twice."""
    for name in ("a/1", "a/2", "a/3", "b/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    dataset = build_dataset(ImageFolderConfig(root=tmp_path))
    order = build_epoch_order(SamplingConfig(images="class_balanced"), dataset, 0).order(0)
    assert sorted(np.array(dataset.image_ids)[order].tolist())[2:] == ["b/1.png", "b/1.png"]


def test_class_balanced_sampling_without_objects_is_refused(tmp_path):
    """By hand: UsageError before the first step."""
    dataset = open_tiny(tmp_path, tiny_content() | {"annotations": []})
    with pytest.raises(UsageError, match="no image of the data set has an object"):
        build_epoch_order(SamplingConfig(images="class_balanced"), dataset, 0)
