"""What the two data sets of a VOC folder have in common: the images."""

import os
from collections.abc import Sequence

import numpy as np

from ..dataset import Dataset
from ..image_files import read_image_record
from ..types import Record
from .layout import VocFolderConfig


class VocImages(Dataset):
    """The listed images of a folder that can be used; a subclass adds their truth."""

    config: VocFolderConfig

    def _hold(self, image_ids: Sequence[str], paths: Sequence[str | os.PathLike[str]]) -> None:
        """Keep them as arrays, which the processes of a loader share with their parent."""
        self.image_ids = list(image_ids)
        self._ids = np.array([image_id.encode() for image_id in image_ids])
        self._files = np.array([os.fsencode(path) for path in paths])

    def __len__(self) -> int:
        return len(self._files)

    def read_image(self, index: int) -> Record:
        """The image alone."""
        path = os.fsdecode(self._files[index].item())
        return read_image_record(path, self._id(index), self.config.decode_short_side)

    def _id(self, index: int) -> str:
        return self._ids[index].item().decode()
