"""Writing of the part of an image inside the box of each detected object."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...inference import Picture, write_image
from ...structures import Detections, UsageError
from ..tasks import DetectionTask, MultiTask, Task


class CropWriter:
    """A folder with a subfolder for each class, which holds the crops of its objects as PNG files."""

    def __init__(self, folder: Path, task: Task) -> None:
        """Raise UsageError if the task detects no objects."""
        self.folder = folder
        parts = {name: part.task for name, part in task.parts.items()} if isinstance(task, MultiTask) else {"": task}
        self.tasks = {name: part for name, part in parts.items() if isinstance(part, DetectionTask)}
        if not self.tasks:
            raise UsageError("there are no objects to crop: the model is not a detector", "leave out --save-crops")

    def write(self, name: str, image: Picture, prediction: Any, score: float) -> None:
        """Write the objects of an image that score at least ``score`` to ``CLASS/NAME_NUMBER.png``, best first.

        ``name`` is the path of the image below the folder that the user gave.
        """
        for number, (class_name, crop) in enumerate(self._crops(image, prediction, score), start=1):
            path = self.folder / _as_folder_name(class_name) / f"{Path(name).with_suffix('')}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, crop)

    def _crops(self, image: Picture, prediction: Any, score: float) -> Iterator[tuple[str, Picture]]:
        """Yield (class name, crop) for each object; a box is extended to whole pixels."""
        for name, task in self.tasks.items():
            found: Detections = prediction[name] if name else prediction
            found = found[found.scores >= score]
            for (left, top, right, bottom), label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True):
                crop = image[int(top) : -int(-bottom // 1), int(left) : -int(-right // 1)]
                if crop.size:
                    yield task.classes.names[label], crop


def _as_folder_name(class_name: str) -> str:
    """Return the name of a class without the characters that no folder may have."""
    allowed = (letter if letter.isprintable() and letter not in '<>:"/\\|?*' else "_" for letter in class_name)
    return "".join(allowed).strip(". ") or "_"
