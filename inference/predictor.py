"""Prediction of images with a trained model."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..models import Model, PredictingModel, SemanticInference, ViewConfig, predict_semantic, predict_views
from ..ops import label_map, merge_panoptic
from ..structures import (
    Classes,
    Detections,
    ImagePreprocessing,
    Images,
    PanopticParts,
    SemanticLogits,
    UsageError,
    VertebraError,
)
from .export.exported_model import load_for_prediction
from .interop import to_coco, to_dict, to_pandas, to_supervision
from .numerics import deterministic_kernels, matrix_precision
from .optimize import OptimizedPrecision, optimize_for_inference
from .preprocessing import Photo, load_photo, preprocess_image
from .stream import StreamedPrediction, default_workers, stream_batches
from .tiles import TileConfig, detect_in_tiles, is_tiled, segment_in_tiles
from .trained_model import open_model
from .user_code import import_user_code

if TYPE_CHECKING:
    from pandas import DataFrame  # pyright: ignore[reportMissingImports]


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
        self.tiles: TileConfig | None = None

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
        images = [Images.from_list([self.prepare(load_photo(photo))], self.model.size_divisor) for photo in photos]
        with self._numerics():  # with other settings than these, the first prediction would compile the code again
            self.model = optimize_for_inference(
                self.model, precision, images=images or None, check=check, in_place=True, say=say
            )

    def use_tiles(self, config: TileConfig = TileConfig()) -> None:
        """Predict images that are larger than a tile in tiles from now on; see :class:`TileConfig`.

        Raises UsageError for a model that is neither a detector nor for semantic segmentation.
        """
        task = self.model.head.task
        if task not in ("detection", "semantic"):
            raise UsageError(
                f"a model for {task} cannot predict an image in tiles",
                "predict it as a whole; tiles are for detection and semantic segmentation",
                file=self.trained.source,
            )
        self.tiles = config

    def use_views(self, views: ViewConfig) -> None:
        """Predict images in windows, at several scales or flipped from now on, in place of the run's own settings.

        ``views`` is a ``DetectionInference`` for a detector, and a ``SemanticInference`` for a semantic head. It
        applies to each tile of a large image. Raises UsageError if it is for another task.
        """
        task = "semantic" if isinstance(views, SemanticInference) else "detection"
        if self.model.head.task != task:
            raise UsageError(
                f"{type(views).__name__} is for {task}, but the model is for {self.model.head.task}",
                "use DetectionInference for detectors and SemanticInference for semantic heads",
                file=self.trained.source,
            )
        self.config = self.config.replace(**{task: views})

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

    def stream(
        self,
        images: Iterable[Any],
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        on_error: Callable[[str, VertebraError], None] | None = None,
    ) -> Iterator[StreamedPrediction]:
        """Yield (name, photo, prediction) for each of any number of images, in their order.

        ``images`` may be endless. They are decoded ahead in ``workers`` threads and predicted in batches of one padded
        size, and only a few batches are in memory; see :func:`stream_batches`. An image that cannot be decoded raises
        DataError or, with ``on_error``, is left out after a call with its name and the error.
        """
        named = (
            (str(image) if isinstance(image, str | os.PathLike) else str(i), image) for i, image in enumerate(images)
        )
        workers = default_workers() if workers is None else workers
        for items in stream_batches(self, named, self.batch_size if batch_size is None else batch_size, workers):
            for item in items:
                if item.photo is not None:
                    yield StreamedPrediction(item.key, item.photo, item.prediction)
                elif item.error is not None and on_error is not None:
                    on_error(item.key, item.error)
                elif item.error is not None:
                    raise item.error

    def to_dict(self, found: Detections) -> dict[str, Any]:
        """Return detections as lists by field, with class names; see :func:`~vertebra.inference.to_dict`."""
        return to_dict(found, self.classes)

    def to_coco(self, found: Detections, image_id: int | str = 1) -> list[dict[str, Any]]:
        """Return detections as rows of COCO's results format; see :func:`~vertebra.inference.to_coco`."""
        return to_coco(found, self.classes, image_id)

    def to_pandas(self, found: Detections) -> "DataFrame":
        """Return detections as a pandas DataFrame; see :func:`~vertebra.inference.to_pandas`."""
        return to_pandas(found, self.classes)

    def to_supervision(self, found: Detections) -> Any:
        """Return detections as ``supervision.Detections``; see :func:`~vertebra.inference.to_supervision`."""
        return to_supervision(found, self.classes)

    @property
    def classes(self) -> Classes:
        """The classes of the detections; UsageError if the model detects nothing."""
        classes = self.trained.classes.get("detection")
        if classes is None:
            task = self.model.head.task
            raise UsageError(f"the model is for {task}, so it has no detections", file=self.trained.source)
        return classes

    def needs_tiles(self, photo: Photo) -> bool:
        """Return whether a photo is predicted in tiles, see :meth:`use_tiles`."""
        return self.tiles is not None and is_tiled(photo, self.tiles)

    def _predict(self, photos: Sequence[Photo]) -> list[Any]:
        """Predict photos as one batch, or each in tiles if one is large, and return the prediction of each."""
        if not any(map(self.needs_tiles, photos)):
            return self._predict_batch(photos)
        return [
            self.predict_in_tiles(photo) if self.needs_tiles(photo) else self._predict_batch([photo])[0]
            for photo in photos
        ]

    def _predict_batch(self, photos: Sequence[Photo]) -> list[Any]:
        """Predict photos as one batch, and return the prediction of each."""
        sizes = [(photo.shape[0], photo.shape[1]) for photo in photos]
        return self.predict_prepared([self.prepare(photo) for photo in photos], sizes)

    def predict_prepared(self, prepared: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]) -> list[Any]:
        """Predict preprocessed images as one batch; ``sizes`` are the (height, width) of the photos."""
        images = Images.from_list(list(prepared), self.model.size_divisor)
        with self._numerics():
            return predict_originals(self.model, images, sizes, self.config.views)

    def predict_in_tiles(self, photo: Photo) -> Any:
        """Predict a photo in the tiles of :meth:`use_tiles`."""
        tiles = self.tiles or TileConfig()
        if self.model.head.task == "semantic":
            return segment_in_tiles(self._predict_logits, photo, tiles)
        if callable(self.preprocessing):  # it may not shrink the image
            tiles = tiles.replace(whole_image=False)
        return detect_in_tiles(self._predict_batch, photo, tiles)

    def _predict_logits(self, photos: Sequence[Photo]) -> list[SemanticLogits]:
        """Predict the class logits of photos as one batch."""
        images = Images.from_list([self.prepare(photo) for photo in photos], self.model.size_divisor)
        with self._numerics():
            return predict_semantic(self.model, images.to(self.model.device), self.config.semantic)

    @contextlib.contextmanager
    def _numerics(self) -> Iterator[None]:
        """Use the precision and kernels of the run's evaluations inside the block."""
        with matrix_precision(self.config.precision), deterministic_kernels(self.config.deterministic):
            yield

    def prepare(self, photo: Photo) -> torch.Tensor:
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
    views: ViewConfig | None = None,
) -> list[Any]:
    """Predict a batch of resized images, and return the predictions in pixels of the original images.

    ``original_sizes`` are the (height, width) of the originals. ``views`` defines how a semantic head or a detector
    predicts an image: as a whole or by windows, at which scales.
    """
    predictions = predict_views(model, images.to(model.device), views)
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
