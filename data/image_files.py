"""Photos read from files: in full, or decoded no larger than they are needed."""

import os

from pydantic import Field

from ..formats import read_reduced_image
from .dataset import DatasetConfig
from .transforms import TransformConfig
from .types import Record


class ImageFilesConfig(DatasetConfig):
    """A data set of photos in files."""

    decode_short_side: int | None = Field(default=None, gt=0)
    """Decode a JPEG at a half, a quarter or an eighth of its size if that is a whole number of pixels either way, so
    that annotations stay in place, and its short side keeps this many. Give it what the transform asks for at most:
    large photos are read several times faster, their small details averaged where a plain resize would skip pixels.
    Boxes and predictions stay in the file's own pixels."""

    def decoded_short_side(self) -> int | None:
        return self.decode_short_side


def require_enough_pixels(dataset: DatasetConfig, transform: TransformConfig) -> None:
    """ValueError where photos would be decoded smaller than what a transform resizes them to."""
    decoded, shown = dataset.decoded_short_side(), transform.output_short_side()
    if decoded is not None and decoded < shown:
        raise ValueError(
            f"decode_short_side={decoded} is below the {shown} px the transform resizes to: raise it or leave it out"
        )


def read_image_record(path: str | os.PathLike[str], image_id: int | str, short_side: int | None) -> Record:
    """Return the record of a file without annotations; its image may be smaller than the file's, see
    :attr:`ImageFilesConfig.decode_short_side`."""
    image, size = read_reduced_image(path, image_id, short_side)
    reduced = image.shape[:2] != size
    return Record(image, image_id=image_id, file=os.fspath(path), original_size=size if reduced else None)
