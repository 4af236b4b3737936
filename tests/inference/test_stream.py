"""Streams of images: order, batches, errors and memory."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.engine import train
from vertebra.inference import Predictor, stream_batches
from vertebra.structures import DataError

from ..helpers.tiny import tiny_config

SIZES = ((40, 60), (60, 40), (40, 60), (40, 58), (60, 40), (30, 30), (40, 60), (60, 40))


@pytest.fixture(scope="module")
def predictor(shapes, tmp_path_factory) -> Predictor:
    """Return a predictor of a trained detector."""
    run = tmp_path_factory.mktemp("stream") / "run"
    train(tiny_config(shapes), run)
    return Predictor(run, "cpu", batch_size=3)


@pytest.fixture
def photos() -> list[np.ndarray]:
    """Return photos of several sizes, in mixed order."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


def test_stream_gives_the_predictions_of_single_images_in_order(predictor, photos):
    """Law: a prediction does not depend on the images that are predicted with it."""
    streamed = list(predictor.stream(photos, workers=2))
    assert [name for name, _, _ in streamed] == [str(index) for index in range(len(photos))]
    for photo, (_, streamed_photo, prediction) in zip(photos, streamed, strict=True):
        alone = predictor(photo)
        assert streamed_photo is photo or np.array_equal(streamed_photo, photo)
        torch.testing.assert_close(prediction.boxes, alone.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(prediction.scores, alone.scores, rtol=1e-4, atol=1e-5)


def test_batches_have_images_of_one_padded_size(predictor, photos, monkeypatch):
    """By hand: batches of at most three from the six images that are in memory, each of the padded size of the first
    that waits: 40 x 58 is padded to the same size as 40 x 60."""
    shapes = []
    predict = predictor.predict_prepared

    def record(prepared, sizes):
        shapes.append([size[0] for size in sizes])
        return predict(prepared, sizes)

    monkeypatch.setattr(predictor, "predict_prepared", record)
    monkeypatch.setattr("vertebra.inference.stream.WAIT_FOR_BATCH", 5.0)
    assert len(list(predictor.stream(photos))) == len(photos)
    assert shapes == [[40, 40, 40], [60, 60], [30], [40], [60]]


def test_bad_image_raises_or_is_left_out(predictor, photos, tmp_path):
    """By hand: DataError by default; with ``on_error`` the others are predicted."""
    Image.fromarray(photos[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths = [tmp_path / "good.png", tmp_path / "bad.png", str(tmp_path / "none.png"), photos[1]]
    with pytest.raises(DataError, match=r"bad\.png"):
        list(predictor.stream(paths))
    failed = []
    names = [name for name, _, _ in predictor.stream(paths, on_error=lambda name, error: failed.append(name))]
    assert names == [str(paths[0]), "3"] and failed == [str(paths[1]), paths[2]]


def test_error_of_the_source_is_raised(predictor, photos):
    """By hand: after the predictions of the images before it, or instead of them."""

    def source() -> Iterator[np.ndarray]:
        yield photos[0]
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="the camera is gone"):
        list(predictor.stream(source()))


def test_endless_stream_is_read_a_few_images_ahead(predictor, photos):
    """By hand: batches of 3 and 2 workers: 6 images in the window, 5 in the queue, and one more in the thread."""
    taken = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield photos[0]

    stream = predictor.stream(source(), workers=2)
    for given in range(1, 9):
        next(stream)
        time.sleep(0.02)
        assert given <= taken <= given + 3 * 3 + 2 + 2
    stream.close()
    assert not any(thread.name == "images" for thread in threading.enumerate())


def test_slow_source_does_not_hold_back_a_prediction(predictor, photos):
    """By hand: the first of two images is given while the second is awaited; an empty batch says that none came."""
    gate = threading.Event()

    def source() -> Iterator[tuple[str, np.ndarray]]:
        yield "first", photos[0]
        gate.wait(30)
        yield "second", photos[0]

    stream = stream_batches(predictor, source(), 3, 1)
    assert [item.key for item in next(stream)] == ["first"]
    assert next(stream) == []
    gate.set()
    assert [item.key for items in stream for item in items] == ["second"]


def test_path_may_be_given_as_text(predictor, photos, tmp_path: Path):
    """By hand: the name of an image is its path as it was given."""
    Image.fromarray(photos[0]).save(tmp_path / "a.png")
    ((name, photo, _),) = predictor.stream([str(tmp_path / "a.png")])
    assert name == str(tmp_path / "a.png") and photo.shape == (40, 60, 3)
