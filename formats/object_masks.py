"""A mask file per object: all pixels that are not 0 are the object's.

| layout | masks of an image |
|---|---|
| ``images/STEM.png`` | ``masks/STEM/*.png`` |
| ``images/STEM.png`` | ``masks/STEM_1.png``, ``masks/STEM_2.png``, ... |
| ``STEM/images/STEM.png`` | ``STEM/masks/*.png`` (Data Science Bowl 2018) |

All objects are of the class ``object``. An image without masks is background.
"""

import itertools
import os
import re
from pathlib import Path

from ..structures import DataError
from .coco import CocoFile, Place
from .label_shapes import Shape
from .labels import LabelCollector, LabelFormat, LabelRequest, list_images_below
from .mask_values import read_mask_codes

CLASS_NAME = "object"
_NUMBERED = re.compile(r"^(?P<stem>.+?)[_-](?:mask|inst|instance|obj|object)?[_-]?\d+$")


def _recognize(path: Path) -> bool:
    if not path.is_dir():
        return False
    if (path / "images").is_dir() and (path / "masks").is_dir():
        entries = list(itertools.islice((path / "masks").iterdir(), 100))
        names = list_images_below(path / "images")
        if any((path / "masks" / name).is_file() for name in names):
            return False
        stems = {Path(name).stem for name in names}
        numbered = [match for entry in entries if (match := _NUMBERED.match(entry.stem))]
        if any(entry.is_dir() and entry.name in stems for entry in entries):
            return True
        return any(match["stem"] in stems for match in numbered) and not any(entry.stem in stems for entry in entries)
    folders = itertools.islice((entry for entry in path.iterdir() if entry.is_dir()), 20)
    return any(
        (folder / "images").is_dir() and (folder / "masks").is_dir() and _is_single(folder) for folder in folders
    )


def _is_single(folder: Path) -> bool:
    """Return whether a folder has one image and masks with other names."""
    images = list_images_below(folder / "images")
    return len(images) == 1 and images[0] not in list_images_below(folder / "masks")


def _read(request: LabelRequest) -> CocoFile:
    root = request.path
    collector = LabelCollector(root, [CLASS_NAME])
    if (root / "images").is_dir():
        masks = _masks_by_stem(root / "masks")
        for name in list_images_below(root / "images"):
            _add_image(collector, f"images/{name}", masks.get(Path(name).stem, []))
    else:
        for folder in sorted(entry for entry in root.iterdir() if (entry / "images").is_dir()):
            masks = [folder / "masks" / name for name in list_images_below(folder / "masks")]
            for name in list_images_below(folder / "images"):
                _add_image(collector, f"{folder.name}/images/{name}", masks)
    return collector.finish()


def _masks_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the masks of each image, by the stem of its file name."""
    masks: dict[str, list[Path]] = {}
    for name in list_images_below(folder):
        path = Path(name)
        match = _NUMBERED.match(path.stem)
        stem = path.parts[0] if len(path.parts) > 1 else match["stem"] if match else path.stem
        masks.setdefault(stem, []).append(folder / name)
    return masks


def _add_image(collector: LabelCollector, name: str, masks: list[Path]) -> None:
    """Add an image and the object of each mask."""
    image = collector.add_image(name, masks[0] if masks else collector.root / name)
    if not masks:
        collector.note("image-without-labels", name)
    for path in masks:
        place = Place(os.fspath(path), "mask")
        try:
            bitmap = read_mask_codes(path, False, name) != 0
        except DataError as error:
            collector.refuse_object(image, place, error.case, error.what, error.fix)
            continue
        if bitmap.shape != collector.size(image):
            height, width = collector.size(image)
            what = f"the mask is {bitmap.shape[0]}x{bitmap.shape[1]} (height x width), its image {height}x{width}"
            collector.refuse_object(image, place, "mask-size", what, "save a mask of the image's size")
        else:
            collector.add_object(image, CLASS_NAME, place, Shape.of_bitmap(bitmap))


OBJECT_MASKS = LabelFormat(
    name="object_masks",
    title="a folder with a mask per object",
    expected="images/ with a mask per object (masks/STEM/*.png)",
    recognize=_recognize,
    read=_read,
    find_root=lambda request: request.path,
    takes_images=False,
)
