"""Other colours: torchvision's functions on the same factors, and what is left alone."""

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms.v2 import functional as peer

from vertebra.data import ColorJitterConfig, RandomCropConfig, Record, ResizeConfig, ScaledCropConfig, build_transform

NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
FLAT = Record(np.full((40, 50, 3), (100, 60, 160), np.uint8))
FARTHEST = {"brightness": 1.01, "contrast": 1.01, "saturation": 1.01, "hue": 14.0}  # of 255; OpenCV's hues are coarse


@pytest.mark.parametrize("kind", FARTHEST)
def test_each_change_is_torchvisions(kind):
    """torchvision v2 in floating point, with the factor that albumentations drew."""
    (step,) = ColorJitterConfig(**{kind: 0.4}).steps()
    moved = []
    for seed in range(9):
        step.set_random_seed(seed)
        drawn = step.get_params()
        changed = step.apply(NOISE, **drawn).astype(float)
        pixels = torch.from_numpy(NOISE).permute(2, 0, 1) / 255
        expected = getattr(peer, f"adjust_{kind}")(pixels, drawn[kind]).permute(1, 2, 0).numpy() * 255
        assert abs(changed - expected).max() <= FARTHEST[kind]
        assert abs(changed - expected).mean() <= 1.6
        moved.append(abs(changed - NOISE).mean())
        assert 0.6 <= drawn[kind] <= 1.4 or kind == "hue"
    assert max(moved) > 10  # the control


CONFIGS = [
    ResizeConfig(short_sides=(40,)),
    ScaledCropConfig(size=(40, 50), scales=(1, 1), flip=0.0),
    RandomCropConfig(size=40, flip=0.0),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_transform_for_training_has_it(config):
    """A law: without it the colours of a plain image stay, with it they come out otherwise each time, but the image is
    plain still; a probability of half leaves about half of them (5 sigma)."""
    jitter = ColorJitterConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)

    def colours(jitter: ColorJitterConfig) -> list[tuple[int, ...]]:
        change = build_transform(config.replace(color_jitter=jitter))
        found = [change(FLAT, 0, index).image.flatten(1) for index in range(100)]
        # OpenCV rounds the pixels that it takes one by one in another way than those it takes by 16; hue enlarges that.
        assert all((each.amax(dim=1) - each.amin(dim=1)).max() <= 8 for each in found)
        return [tuple(each[:, 0].tolist()) for each in found]

    assert set(colours(ColorJitterConfig())) == {(100, 60, 160)}
    assert len(set(colours(jitter))) > 80
    assert 25 <= colours(jitter.replace(probability=0.5)).count((100, 60, 160)) <= 75


def test_one_number_stands_for_three():
    """By hand; and as a config's field, as it was stored when it was nothing else."""
    expected = ColorJitterConfig(brightness=0.3, contrast=0.3, saturation=0.3)
    assert ColorJitterConfig.model_validate(0.3) == expected
    assert RandomCropConfig.model_validate({"color_jitter": 0.3}).color_jitter == expected
    with pytest.raises(ValidationError, match="color_jitter"):
        RandomCropConfig.model_validate({"color_jitter": True})
    with pytest.raises(ValidationError, match=r"hue"):
        ColorJitterConfig(hue=0.6)


def test_the_image_that_was_given_is_left_alone():
    """A law: what a data set keeps must not change under it."""
    before = NOISE.copy()
    build_transform(ResizeConfig(short_sides=(64,), color_jitter=ColorJitterConfig(brightness=0.5, hue=0.5)))(
        Record(NOISE), 0, 0
    )
    assert np.array_equal(NOISE, before) and cv2.mean(NOISE)[0] > 0
