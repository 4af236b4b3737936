"""Loading of images of any accepted type as RGB arrays, and their preprocessing for the model."""

import os
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from ..formats.images import decode_image, pillow_to_rgb, read_image
from ..structures import ImagePreprocessing, ResizedCenterCrop

Photo = UInt8[ndarray, "_ _ 3"]
"""An image in RGB."""

_CHANNELS = (1, 3, 4)
_ACCEPTED = (
    "a path, the bytes of an image file, a PIL image, an array (height, width) or (height, width, 1, 3 or 4) of uint8 "
    "or uint16, a uint8 tensor (1, 3 or 4, height, width), or a list of these"
)


def load_photo(image: Any) -> Photo:
    """Convert an image of any accepted type to an RGB array of uint8.

    Gray is converted to RGB, an alpha channel is dropped, and 16 bits per channel are reduced to the high byte, as for
    image files. Image files and bytes are rotated upright by their EXIF orientation; PIL images, arrays and tensors are
    not rotated. Raises TypeError or ValueError for other types or shapes, and DataError for a file that cannot be
    decoded.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image))
    if isinstance(image, Image.Image):
        return pillow_to_rgb(image)
    if isinstance(image, torch.Tensor):
        return _array_to_rgb(_tensor_to_array(image))
    if isinstance(image, ndarray):
        return _array_to_rgb(image)
    raise TypeError(f"an image must be {_ACCEPTED}; got {type(image).__name__}")


def _tensor_to_array(image: torch.Tensor) -> ndarray:
    """Convert a uint8 tensor (channels, height, width) to an array (height, width, channels)."""
    if image.dtype != torch.uint8:
        raise TypeError(f"an image tensor must have dtype uint8, with values 0..255; got {_describe(image)}")
    if image.ndim != 3 or image.shape[0] not in _CHANNELS:
        raise ValueError(f"an image tensor must have shape (1, 3 or 4, height, width); got {_describe(image)}")
    return image.permute(1, 2, 0).cpu().numpy()


def _array_to_rgb(image: ndarray) -> Photo:
    """Convert an array of an accepted shape and dtype to an RGB array of uint8."""
    if image.dtype not in (np.uint8, np.uint16):
        raise TypeError(
            f"an image array must have dtype uint8 (0..255) or uint16 (0..65535); got {_describe(image)}: "
            "scale its values to 0..255 and convert it with .astype(numpy.uint8)"
        )
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in _CHANNELS:
        fix = ": transpose it with .transpose(1, 2, 0)" if image.ndim == 3 and image.shape[0] in _CHANNELS else ""
        fix = ": give a list of images" if image.ndim == 4 else fix
        raise ValueError(
            f"an image array must have shape (height, width) or (height, width, 1, 3 or 4); got {_describe(image)}{fix}"
        )
    if 0 in image.shape:
        raise ValueError(f"an image must have at least one pixel; got {_describe(image)}")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]


def _describe(image: ndarray | torch.Tensor) -> str:
    """Describe the dtype and the shape of an array or a tensor."""
    return f"{str(image.dtype).removeprefix('torch.')} of shape {tuple(image.shape)}"


def preprocess_image(image: Photo, preprocessing: ImagePreprocessing) -> Photo:
    """Preprocess an image for the model; the result is bit-identical to that of the validation transform."""
    height, width = image.shape[:2]
    if isinstance(preprocessing, ResizedCenterCrop):
        scale = preprocessing.short_side / min(height, width)
        rows, columns = (max(1, round(side * scale)) for side in (height, width))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR  # area interpolation avoids aliasing
        resized = (
            image if (rows, columns) == (height, width) else cv2.resize(image, (columns, rows), interpolation=method)
        )
        top, left = (rows - preprocessing.size) // 2, (columns - preprocessing.size) // 2
        return resized[top : top + preprocessing.size, left : left + preprocessing.size]
    rows, columns = preprocessing.output_size(height, width)
    return cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
