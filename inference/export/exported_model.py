"""Prediction with an exported file in the place of a model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones import WeightsOrigin
from ...heads import Head, require_tensors
from ...models import Model, PredictingModel, build_model
from ...structures import (
    CheckpointError,
    Classes,
    Detections,
    ImagePreprocessing,
    Images,
    KeepSize,
    UsageError,
)
from ..checkpoint import InferenceConfig
from ..trained_model import TrainedModel, read_inference
from .description import Description
from .resize import preprocessed_size
from .sessions import Session, open_session


class ExportedModel(nn.Module):
    """An exported file with the interface that prediction and evaluation use of a :class:`~vertebra.Model`.

    The graph computes the tensors of the predictions, and the head assembles the predictions from them.
    """

    def __init__(self, session: Session, head: Head, preprocessing: ImagePreprocessing | None) -> None:
        super().__init__()
        self.session, self.head, self.preprocessing = session, head, preprocessing
        self.description = session.description
        self.class_names: Mapping[str, tuple[str, ...]] = {
            task: classes.names for task, classes in self.description.classes.items()
        }

    @property
    def size_divisor(self) -> int:
        """The number of pixels to a multiple of which images are padded."""
        return self.description.size_divisor

    @property
    def device(self) -> torch.device:
        """The device of the predictions."""
        return torch.device("cpu")

    @torch.no_grad()
    def predict(self, images: Images) -> list[Any]:
        """Return one prediction per image, in pixel coordinates of the given images."""
        return [prediction for batch in self._batches(images) for prediction in self._predict(batch)]

    def _batches(self, images: Images) -> Iterator[Images]:
        """Yield batches that the file can take; if it resizes photos, a batch has photos of one size."""
        description = self.description
        alone = description.resizes and len(set(images.size_list())) > 1
        count = 1 if alone else description.batch or len(images)
        for first in range(0, len(images), count):
            chunk = slice(first, first + count)
            sizes = tuple(images.size_list()[chunk])
            pixels = images.pixels[chunk]
            if description.resizes:
                pixels = pixels[:, :, : sizes[0][0], : sizes[0][1]].contiguous()
            yield Images(pixels, images.sizes[chunk], sizes)

    def _predict(self, images: Images) -> list[Any]:
        description, head = self.description, require_tensors(self.head)
        frame = self._frame(images)
        inputs = {"images": frame.pixels, "sizes": frame.sizes}
        outputs = self.session.run({name: inputs[name] for name in description.inputs}, description.tensors)
        tensors = {name: tensor[: len(images)] for name, tensor in outputs.items()}
        if not description.resizes:
            return head.assemble(tensors, _with_padding(images, frame.padded_size, self.size_divisor))
        assert self.preprocessing is not None, "a file that resizes photos says how"
        photo = images.size_list()[0]
        resized = preprocessed_size(self.preprocessing, *photo)
        tensors = {name: _shrink(name, tensor, photo, resized) for name, tensor in tensors.items()}
        sizes = torch.tensor([resized] * len(images))
        frame = _with_padding(Images(images.pixels, sizes, (resized,) * len(images)), resized, self.size_divisor)
        return [_to_photo(prediction, resized, photo) for prediction in head.assemble(tensors, frame)]

    def frame_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of the frame in which the file takes images of ``size``."""
        description = self.description
        if description.size is not None or description.resizes or not self.session.is_guarded:
            return description.size or size
        return max(size[0], description.least_side), max(size[1], description.least_side)

    def _frame(self, images: Images) -> Images:
        """Return the images in a batch of the size that the file needs, with blank images at the end."""
        description = self.description
        height, width = self.frame_size(images.padded_size)
        count = description.batch or len(images)
        largest = tuple(max(sides) for sides in zip(*images.size_list(), strict=True))
        must_equal = description.resizes and description.size is not None
        if largest[0] > height or largest[1] > width or (must_equal and largest != (height, width)):
            raise UsageError(
                f"the file takes images of {height}x{width} pixels, but an image has {largest[0]}x{largest[1]}",
                "resize the images, or export the model again for another --size or with --dynamic",
            )
        if (count, height, width) == (len(images), *images.padded_size):
            return images
        pixels = images.pixels.new_zeros(count, images.pixels.shape[1], height, width)
        rows, columns = (min(sides) for sides in zip(images.padded_size, (height, width), strict=True))
        pixels[: len(images), :, :rows, :columns] = images.pixels[:, :, :rows, :columns]
        sizes = torch.cat([images.sizes, images.sizes[-1:].expand(count - len(images), 2)])
        return Images(pixels, sizes)


def _with_padding(images: Images, size: tuple[int, int], divisor: int) -> Images:
    """Return a batch whose padded size is ``size`` rounded up to a multiple of ``divisor``; its pixels are not read."""
    height, width = (-(-side // divisor) * divisor for side in size)
    pixels = torch.zeros((), dtype=torch.uint8).expand(len(images), 1, height, width)
    return Images(pixels, images.sizes, images.sizes_on_host)


def _shrink(name: str, tensor: Tensor, photo: tuple[int, int], resized: tuple[int, int]) -> Tensor:
    """Convert boxes from pixels of the photo to pixels of the resized image; return other tensors as they are."""
    if name.split(".")[-1] != "boxes":
        return tensor
    return tensor * tensor.new_tensor([resized[1] / photo[1], resized[0] / photo[0]] * 2)


def _to_photo(prediction: Any, resized: tuple[int, int], photo: tuple[int, int]) -> Any:
    """Convert detections to pixels of the photo. Logits say by themselves which size they belong to."""
    if isinstance(prediction, Mapping):
        return {name: _to_photo(value, resized, photo) for name, value in prediction.items()}
    return prediction.to_original(resized, photo) if isinstance(prediction, Detections) else prediction


@dataclass(frozen=True, slots=True)
class ExportedFile(TrainedModel):
    """The model in an exported file."""

    path: Path
    description: Description
    session: Session

    @property
    def source(self) -> str:
        return str(self.path)

    @property
    def inference(self) -> InferenceConfig:
        config = self._stated()
        return config.replace(preprocessing=KeepSize()) if self.description.resizes else config

    @property
    def classes(self) -> Mapping[str, Classes]:
        return self.description.classes

    @property
    def origin(self) -> WeightsOrigin | None:
        return self.description.origin

    def load(self, device: torch.device | str = "cpu") -> Model:
        """Raise UsageError, since the weights are constants of a graph: :meth:`open` returns what can predict."""
        fix = "give the run or the model that it was exported from"
        raise UsageError("an exported file can only predict", fix, file=self.path)

    def open(self) -> ExportedModel:
        """Return the file in the place of a model."""
        config = self._stated()
        model = build_model(config.model, {task: classes.names for task, classes in self.classes.items()})
        return ExportedModel(self.session, model.head, config.preprocessing).eval()

    def _stated(self) -> InferenceConfig:
        """Return the config of the model that was exported."""
        if self.description.inference is None:
            fix = "export a run, a published model or a model built from a config"
            raise CheckpointError("this file was exported from a model without a config", fix, file=self.path)
        return read_inference(self.description.inference, self.path)


def load_for_prediction(trained: TrainedModel, device: torch.device | str = "cpu") -> PredictingModel:
    """Load a trained model, or open an exported file, which runs on the CPU whatever the device."""
    return trained.open() if isinstance(trained, ExportedFile) else trained.load(device)


def open_exported(path: Path) -> ExportedFile:
    """Open an exported file; raise CheckpointError if it cannot be read."""
    session = open_session(path)
    return ExportedFile(path, session.description, session)
