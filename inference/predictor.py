"""A trained model on photos."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..models import Model, SemanticInference, predict_semantic
from ..ops import label_map
from ..structures import ImagePreprocessing, Images, SemanticLogits, UsageError
from .checkpoint import load_checkpoint_model, open_checkpoint
from .numerics import deterministic_kernels, matrix_precision
from .preprocessing import Photo, load_photo, preprocess_image
from .user_code import import_user_code


class Predictor:
    """A trained model that takes photos of any size and answers in their pixels, as the run's evaluations did.

    ``path`` is a run folder or a checkpoint. Every photo goes through the preprocessing of the run's validation images;
    where that draws at random or is a transform of your own, give ``preprocessing``: a value such as
    ``ShortSideResize(short_side=800, long_side=1333)``, or a function from an RGB array (height, width, 3) to another.
    ``batch_size`` says how many photos of a list are predicted together, by default as many as in the run's
    evaluations. ``imports`` are modules or Python files with parts of your own, which are imported first.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: torch.device | str = "auto",
        *,
        preprocessing: ImagePreprocessing | Callable[[Photo], Photo] | None = None,
        batch_size: int | None = None,
        imports: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        for name in imports:
            import_user_code(name)
        self.checkpoint = open_checkpoint(path)
        self.config = self.checkpoint.inference_config()
        self.preprocessing = self.config.preprocessing if preprocessing is None else preprocessing
        if self.preprocessing is None:
            raise UsageError(
                "the run's validation transform draws at random or is one of its user's own, so it does not say how a "
                "photo is prepared",
                "give Predictor(preprocessing=...), such as ShortSideResize(short_side=800, long_side=1333)",
                file=self.checkpoint.path,
            )
        self.batch_size = self.config.batch_size if batch_size is None else batch_size
        if self.batch_size < 1:
            raise ValueError(f"a batch has at least one photo; got batch_size={self.batch_size}")
        self.model = load_checkpoint_model(self.checkpoint, device)

    def __call__(self, images: Any) -> Any:
        """Return the prediction of one photo, or a list of those of a list of photos.

        A photo is a path, the bytes of an image file, a PIL image, an array (height, width) or (height, width, 1, 3 or
        4) of uint8 or uint16, or a uint8 tensor (1, 3 or 4, height, width); see :func:`load_photo`. A prediction is
        what the head predicts, in the pixels of the photo: ``Detections``, a map of classes, a ``Classification``, or a
        dict of those.
        """
        if not isinstance(images, list | tuple):
            return self._predict([load_photo(images)])[0]
        predictions: list[Any] = []
        for start in range(0, len(images), self.batch_size):
            predictions += self._predict([load_photo(image) for image in images[start : start + self.batch_size]])
        return predictions

    def _predict(self, photos: Sequence[Photo]) -> list[Any]:
        """Return the prediction of each photo; they are predicted as one batch."""
        prepared = [self._prepare(photo) for photo in photos]
        images = Images.from_list(prepared, self.model.size_divisor)
        sizes = [(photo.shape[0], photo.shape[1]) for photo in photos]
        with matrix_precision(self.config.precision), deterministic_kernels(self.config.deterministic):
            return predict_originals(self.model, images, sizes, self.config.semantic)

    def _prepare(self, photo: Photo) -> torch.Tensor:
        """Return a photo as the model takes it: preprocessed, uint8, channels first."""
        if callable(self.preprocessing):
            image = self.preprocessing(photo)
        else:
            assert self.preprocessing is not None, "the constructor has seen to it"
            image = preprocess_image(photo, self.preprocessing)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def predict_originals(
    model: Model,
    images: Images,
    original_sizes: Sequence[tuple[int, int]],
    semantic: SemanticInference = SemanticInference(),
) -> list[Any]:
    """Return a prediction for each image, in the pixels of its original of the given (height, width).

    ``semantic`` says how a semantic head predicts an image: as a whole or by windows, at which scales.
    """
    images = images.to(model.device)
    if model.head.task == "semantic":
        predictions: list[Any] = list(predict_semantic(model, images, semantic))
    else:
        predictions = model.predict(images)
    sizes: list[list[int]] = images.sizes.tolist()
    return [
        to_original(prediction, (height, width), original)
        for prediction, (height, width), original in zip(predictions, sizes, original_sizes, strict=True)
    ]


def to_original(prediction: Any, size: tuple[int, int], original_size: tuple[int, int]) -> Any:
    """Return the prediction of a resized image in the pixels of its original; sizes are (height, width).

    Logits become a map of classes of the original size, and the values of a dict are converted one by one. Any other
    prediction goes by its method ``to_original(size, original_size)``, and one without it is returned as it is.
    """
    if isinstance(prediction, SemanticLogits):
        return label_map(prediction, original_size)
    if isinstance(prediction, Mapping):
        return {name: to_original(value, size, original_size) for name, value in prediction.items()}
    convert = getattr(prediction, "to_original", None)
    return prediction if convert is None else convert(size, original_size)
