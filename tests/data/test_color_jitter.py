"""Color jitter against torchvision's, and in every training transform."""

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms.v2 import functional as peer

from vertebra.data import ColorJitterConfig, RandomCropConfig, Record, ResizeConfig, ScaledCropConfig, build_transform

NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
FLAT = Record(np.full((40, 50, 3), (100, 60, 160), np.uint8))
FARTHEST = {"brightness": 1.01, "contrast": 1.01, "saturation": 1.01, "hue": 14.0}  # out of 255; OpenCV rounds hues


@pytest.mark.parametrize("change", FARTHEST)
def test_colors_change_as_in_torchvision(change):
    """Oracle: torchvision v2 in floating point, with the factor that albumentations drew."""
    (step,) = ColorJitterConfig(**{change: 0.4}).steps()
    differences = []
    for seed in range(9):
        step.set_random_seed(seed)
        drawn = step.get_params()
        changed = step.apply(NOISE, **drawn).astype(float)
        pixels = torch.from_numpy(NOISE).permute(2, 0, 1) / 255
        expected = getattr(peer, f"adjust_{change}")(pixels, drawn[change]).permute(1, 2, 0).numpy() * 255
        assert abs(changed - expected).max() <= FARTHEST[change]
        assert abs(changed - expected).mean() <= 1.6
        differences.append(abs(changed - NOISE).mean())
        assert 0.6 <= drawn[change] <= 1.4 or change == "hue"
    assert max(differences) > 10  # control: the jitter is visible


CONFIGS = [
    ResizeConfig(short_sides=(40,)),
    ScaledCropConfig(size=(40, 50), scales=(1, 1), flip=0.0),
    RandomCropConfig(size=40, flip=0.0),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_training_transform_jitters_colors(config):
    """Law: without jitter an image of one color keeps it; with jitter almost every sample has another color, and still
    only one; with a probability of 0.5 about half of the samples keep theirs (5 sigma)."""
    jitter = ColorJitterConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)

    def colors_of_samples(jitter: ColorJitterConfig) -> list[tuple[int, ...]]:
        """Return the color of each of 100 samples of an image of one color."""
        transform = build_transform(config.replace(color_jitter=jitter))
        images = [transform(FLAT, 0, index).image.flatten(1) for index in range(100)]
        # OpenCV's vectorized code rounds otherwise than its scalar code, and a change of hue amplifies the difference.
        assert all((image.amax(dim=1) - image.amin(dim=1)).max() <= 8 for image in images)
        return [tuple(image[:, 0].tolist()) for image in images]

    assert set(colors_of_samples(ColorJitterConfig())) == {(100, 60, 160)}
    assert len(set(colors_of_samples(jitter))) > 80
    assert 25 <= colors_of_samples(jitter.replace(probability=0.5)).count((100, 60, 160)) <= 75


def test_one_number_stands_for_brightness_contrast_and_saturation():
    """By hand: in the config itself, and as a field of another config."""
    expected = ColorJitterConfig(brightness=0.3, contrast=0.3, saturation=0.3)
    assert ColorJitterConfig.model_validate(0.3) == expected
    assert RandomCropConfig.model_validate({"color_jitter": 0.3}).color_jitter == expected
    with pytest.raises(ValidationError, match="color_jitter"):
        RandomCropConfig.model_validate({"color_jitter": True})
    with pytest.raises(ValidationError, match=r"hue"):
        ColorJitterConfig(hue=0.6)


def test_jitter_does_not_modify_its_input():
    """Law: the image is unchanged, since a data set may keep its images in memory."""
    before = NOISE.copy()
    build_transform(ResizeConfig(short_sides=(64,), color_jitter=ColorJitterConfig(brightness=0.5, hue=0.5)))(
        Record(NOISE), 0, 0
    )
    assert np.array_equal(NOISE, before) and cv2.mean(NOISE)[0] > 0
