"""Reading of image files for data sets, at full size or decoded at a reduced size."""

import os

from pydantic import Field

from ..formats import read_reduced_image
from .dataset import DatasetConfig
from .transforms import TransformConfig
from .types import Record


class ImageFilesConfig(DatasetConfig):
    """Base class of the configs of data sets whose images are files."""

    decode_short_side: int | None = Field(default=None, gt=0)
    """Decode a JPEG at 1/2, 1/4 or 1/8 of its size if the factor divides both sides (so that annotations stay in place)
    and the short side keeps at least this number of pixels; None decodes at full size. Set it to the largest short side
    of the transform: large images are read several times faster, and are downscaled by averaging. Annotations and
    predictions stay in the pixels of the file."""

    def decoded_short_side(self) -> int | None:
        return self.decode_short_side


def require_enough_pixels(dataset: DatasetConfig, transform: TransformConfig) -> None:
    """Raise ValueError if images would be decoded smaller than the size that a transform resizes them to."""
    decoded, required = dataset.decoded_short_side(), transform.output_short_side()
    if decoded is not None and decoded < required:
        raise ValueError(
            f"decode_short_side={decoded} is below the {required} px the transform resizes to: raise it or leave it out"
        )


def read_image_record(path: str | os.PathLike[str], image_id: int | str, short_side: int | None) -> Record:
    """Decode an image file and return its record without annotations.

    ``short_side`` allows a reduced size, see :attr:`ImageFilesConfig.decode_short_side`. Raises DataError if the file
    cannot be decoded.
    """
    image, size = read_reduced_image(path, image_id, short_side)
    reduced = image.shape[:2] != size
    return Record(image, image_id=image_id, file=os.fspath(path), original_size=size if reduced else None)
