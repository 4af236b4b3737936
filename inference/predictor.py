"""Prediction of images with a trained model."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..models import Model, PredictingModel, SemanticInference, predict_semantic
from ..ops import label_map, merge_panoptic
from ..structures import ImagePreprocessing, Images, PanopticParts, SemanticLogits, UsageError
from .export.exported_model import load_for_prediction
from .numerics import deterministic_kernels, matrix_precision
from .optimize import OptimizedPrecision, optimize_for_inference
from .preprocessing import Photo, load_photo, preprocess_image
from .trained_model import open_model
from .user_code import import_user_code


class Predictor:
    """A trained model that predicts images of any size, with the preprocessing and settings of its evaluations.

    ``source`` is a run folder, a checkpoint, a model file, an exported file, or the name of a published model; or, with
    ``like``, a file of weights for that published model: see :func:`open_model`. ``preprocessing`` defaults to that of
    the run's validation images; if the validation transform is random or custom, pass a config such as
    ``ShortSideResize(short_side=800, long_side=1333)``, or a function from an RGB array (height, width, 3) to another.
    ``batch_size`` is the number of images of a list that are predicted together; the default is that of the run's
    evaluations. ``imports`` are modules or Python files with custom parts, which are imported first.

    Raises CheckpointError or UsageError if there is no usable model, and UsageError if ``preprocessing`` is needed.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        device: torch.device | str = "auto",
        *,
        like: str | None = None,
        preprocessing: ImagePreprocessing | Callable[[Photo], Photo] | None = None,
        batch_size: int | None = None,
        imports: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        for name in imports:
            import_user_code(name)
        self.trained = open_model(source, like)
        self.config = self.trained.inference
        self.preprocessing = self.config.preprocessing if preprocessing is None else preprocessing
        if self.preprocessing is None:
            raise UsageError(
                "the run's validation transform is random or a custom one, so it cannot be used to preprocess an image",
                "give Predictor(preprocessing=...), such as ShortSideResize(short_side=800, long_side=1333)",
                file=self.trained.source,
            )
        self.batch_size = self.config.batch_size if batch_size is None else batch_size
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got batch_size={self.batch_size}")
        self.model = load_for_prediction(self.trained, device)

    def optimize(
        self,
        precision: OptimizedPrecision = "auto",
        photos: Sequence[Any] = (),
        *,
        check: bool = True,
        say: Callable[[str], None] = print,
    ) -> None:
        """Make predictions faster; see :func:`optimize_for_inference`.

        The predictions are compared with the plain model's on ``photos``, a few images of any accepted type; without
        any, on generated images.
        """
        if not isinstance(self.model, Model):
            fix = "optimize the model before it is exported, or use the settings of the runtime"
            raise UsageError("an exported file cannot be optimized", fix, file=self.trained.source)
        images = [Images.from_list([self._prepare(load_photo(photo))], self.model.size_divisor) for photo in photos]
        with self._numerics():  # with other settings than these, the first prediction would compile the code again
            self.model = optimize_for_inference(
                self.model, precision, images=images or None, check=check, in_place=True, say=say
            )

    def __call__(self, images: Any) -> Any:
        """Predict one image, or a list of images; return its prediction, or a list of predictions.

        An image is a path, the bytes of an image file, a PIL image, an array (height, width) or (height, width, 1, 3 or
        4) of uint8 or uint16, or a uint8 tensor (1, 3 or 4, height, width); see :func:`load_photo`. A prediction is in
        the pixels of the original image: ``Detections``, a class map, a ``Classification``, an ``Embedding``, a
        ``PanopticSegmentation``, or a dict of these.
        """
        if not isinstance(images, list | tuple):
            return self._predict([load_photo(images)])[0]
        predictions: list[Any] = []
        for start in range(0, len(images), self.batch_size):
            predictions += self._predict([load_photo(image) for image in images[start : start + self.batch_size]])
        return predictions

    def _predict(self, photos: Sequence[Photo]) -> list[Any]:
        """Predict photos as one batch, and return the prediction of each."""
        prepared = [self._prepare(photo) for photo in photos]
        images = Images.from_list(prepared, self.model.size_divisor)
        sizes = [(photo.shape[0], photo.shape[1]) for photo in photos]
        with self._numerics():
            return predict_originals(self.model, images, sizes, self.config.semantic)

    @contextlib.contextmanager
    def _numerics(self) -> Iterator[None]:
        """Use the precision and kernels of the run's evaluations inside the block."""
        with matrix_precision(self.config.precision), deterministic_kernels(self.config.deterministic):
            yield

    def _prepare(self, photo: Photo) -> torch.Tensor:
        """Preprocess a photo, and convert it to a uint8 tensor with channels first."""
        if callable(self.preprocessing):
            image = self.preprocessing(photo)
        else:
            assert self.preprocessing is not None, "the constructor has checked it"
            image = preprocess_image(photo, self.preprocessing)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def predict_originals(
    model: PredictingModel,
    images: Images,
    original_sizes: Sequence[tuple[int, int]],
    semantic: SemanticInference = SemanticInference(),
) -> list[Any]:
    """Predict a batch of resized images, and return the predictions in pixels of the original images.

    ``original_sizes`` are the (height, width) of the originals. ``semantic`` defines how a semantic head predicts an
    image: as a whole or by windows, at which scales.
    """
    images = images.to(model.device)
    if model.head.task == "semantic":
        predictions: list[Any] = list(predict_semantic(model, images, semantic))
    else:
        predictions = model.predict(images)
    sizes = images.size_list()
    return [
        to_original(prediction, (height, width), original)
        for prediction, (height, width), original in zip(predictions, sizes, original_sizes, strict=True)
    ]


def to_original(prediction: Any, size: tuple[int, int], original_size: tuple[int, int]) -> Any:
    """Convert the prediction of a resized image to pixels of the original image; sizes are (height, width).

    Semantic logits become a class map of the original size, the parts of a panoptic segmentation are merged at that
    size, and the values of a dict are converted one by one. For any other prediction, its method
    ``to_original(size, original_size)`` is called; without that method it is returned unchanged.
    """
    if isinstance(prediction, SemanticLogits):
        return label_map(prediction, original_size)
    if isinstance(prediction, PanopticParts):
        return merge_panoptic(prediction, original_size)
    if isinstance(prediction, Mapping):
        return {name: to_original(value, size, original_size) for name, value in prediction.items()}
    convert = getattr(prediction, "to_original", None)
    return prediction if convert is None else convert(size, original_size)
