"""Verification of an exported file: its predictions of photos beside those of the model it was exported from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ...models import Model, PredictingModel
from ...structures import Images, UsageError, VerificationError
from ..agreement import Agreement, AgreementBounds, compare_predictions
from ..checkpoint import InferenceConfig
from ..predictor import predict_originals
from ..preprocessing import Photo, load_photo, preprocess_image
from .exported_model import ExportedModel
from .graph import pad_to_multiple

MIN_SCORE = 0.06
"""Detections with a lower score are not looked for in the other prediction: the usual threshold of scores is 0.05, near
which a rounding error decides whether there is a detection at all."""
SAMPLE_SIZES = ((240, 320), (161, 101), (96, 96), (33, 250))
"""(height, width) of the photos that are generated if none are given; the last one is dark."""

BOUNDS = AgreementBounds(features=1e-3, scores=1e-3, missing=0, boxes=0.01, masks=0.01, keypoints=0, pixels=1e-3)
"""The differences between the predictions of a model and of its file that are accepted."""
HALF_BOUNDS = AgreementBounds(
    features=0.01, scores=0.03, missing=0.02, boxes=0.1, masks=0.05, keypoints=0.1, pixels=0.01
)
"""The differences that are accepted of a file whose weights are rounded to float16."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The largest differences between the predictions of a model and of its exported file."""

    agreement: Agreement
    images: int
    """The number of photos that were predicted."""

    def describe(self) -> str:
        """Return the differences as one line."""
        return f"largest differences from the model on {self.images} images: {self.agreement.describe()}"

    def require(self, path: str | os.PathLike[str], half: bool = False) -> None:
        """Raise VerificationError if a difference exceeds its bound."""
        if faults := self.agreement.violations(HALF_BOUNDS if half else BOUNDS):
            raise VerificationError(
                f"the file's predictions differ from the model's: {', '.join(faults)}; no file was written",
                "accept the differences with --no-check (check=False), or report the model as an issue",
                file=path,
            )


def verify_export(
    model: Model, exported: ExportedModel, inference: InferenceConfig | None, photos: Sequence[Any] = ()
) -> Verification:
    """Predict photos with a model and with its exported file, and return the largest differences.

    Photos are of any type that ``Predictor`` accepts. Without any, generated photos are predicted.
    Photos that do not fit a file of fixed size are left out; raises UsageError if none is left. The model pads an image
    to the size of such a file too, since features near the border of an image depend on its padding.
    """
    preprocessing = None if inference is None else inference.preprocessing
    outside, size = exported.description.resizes, exported.description.size
    agreement, count = Agreement(), 0
    for photo in [load_photo(photo) for photo in photos] or generate_photos(size, exported.description.channels):
        prepared = photo if preprocessing is None else preprocess_image(photo, preprocessing)
        given = photo if outside else prepared
        if size is not None and (given.shape[:2] != size if outside else not _fits(given, size)):
            continue
        # The model sees as much padding as the file does.
        frame = None if outside else exported.frame_size((given.shape[0], given.shape[1]))
        expected, found = predict_photo(model, prepared, photo, frame), predict_photo(exported, given, photo)
        agreement = agreement.merge(compare_predictions(expected, found, MIN_SCORE))
        count += 1
    if not count:
        assert size is not None, "a file without a fixed size takes every photo"
        raise UsageError(f"no photo fits the size {size[0]}x{size[1]} of the file", "choose another size or photos")
    return Verification(agreement, count)


def predict_photo(model: PredictingModel, image: Photo, photo: Photo, frame: tuple[int, int] | None = None) -> Any:
    """Return the prediction of an image in pixels of the photo that it was made from.

    The image is padded to ``frame``, a (height, width); None: as little as possible.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    images = Images.from_list([pixels], model.size_divisor)
    if frame is not None:
        padded = F.pad(pixels, (0, frame[1] - pixels.shape[2], 0, frame[0] - pixels.shape[1]))
        images = Images(pad_to_multiple(padded[None], model.size_divisor), images.sizes, images.sizes_on_host)
    return predict_originals(model, images, [(photo.shape[0], photo.shape[1])])[0]


def generate_photos(size: tuple[int, int] | None, channels: int) -> list[Any]:
    """Return photos of smooth random colors with rectangles, in the given size or in several, and a dark one."""
    generator, photos = np.random.default_rng(0), []
    for height, width in SAMPLE_SIZES if size is None else [size] * 2:
        coarse = generator.random((max(2, height // 24), max(2, width // 24), channels)).astype(np.float32)
        photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255
        for _ in range(6):
            top, left = generator.integers(height), generator.integers(width)
            photo[top : top + height // 3, left : left + width // 3] = generator.integers(0, 256, channels)
        photos.append(photo.astype(np.uint8).reshape(height, width, channels))
    # Not blank: an untrained model gives equal scores to all cells of a blank image, and their order is arbitrary.
    photos[-1] = generator.integers(0, 4, photos[-1].shape).astype(np.uint8)
    return photos


def _fits(image: Photo, size: tuple[int, int]) -> bool:
    return image.shape[0] <= size[0] and image.shape[1] <= size[1]
