"""Prediction of image files: a picture of each image, and results files."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.voc_format import BACKGROUND
from ..formats import read_ground_truth, write_json
from ..inference import DrawingConfig, Predictor, load_photo, write_image
from ..structures import THINGS, Classes, UsageError, suggest
from .crops import CropWriter
from .tasks import Rows, pick_task, write_results_files

CLASSES_WITHOUT_ID = (BACKGROUND, THINGS)
"""Semantic classes that Vertebra's data sets add, and that annotation files therefore lack."""
NamedFile = tuple[Path, str]
"""The path of an image file, and its name in the output: its path relative to the folder that the user gave."""


def predict_files(
    predictor: Predictor,
    files: Sequence[NamedFile],
    output: Path,
    *,
    score: float = 0.5,
    annotations: Path | None = None,
    drawing: DrawingConfig = DrawingConfig(),
    save_crops: bool = False,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Predict image files, draw the predictions scoring at least ``score``, and return the names of the results files.

    Writes to ``output`` a picture of each image, the results files, and ``images.json`` with the id of each image.
    Panoptic segmentations are also written in COCO's panoptic format, and embeddings to ``vectors.npz``, with the file
    names of the images (see :func:`write_vectors`). Image ids count from 1. With ``annotations``, a COCO file, image
    ids (matched by file name) and category ids (matched by class name) are those of that file, so that the results can
    be scored against it. ``drawing`` is how pictures are drawn; with ``save_crops`` the part of the image inside the
    box of each object is written to the folder ``crops`` too. Raises UsageError if an image or a class is missing in
    that file, if a picture would overwrite an image, or if there are no objects to crop.
    """
    pictures = _choose_pictures(files, output)
    names, classes = [name for _, name in files], predictor.trained.classes
    image_ids: list[Any] = list(range(1, len(files) + 1))
    if annotations is not None:
        truth = read_ground_truth(annotations)
        image_ids = find_image_ids(names, truth, annotations)
        classes = {task: find_category_ids(known, truth, annotations) for task, known in classes.items()}
    task = pick_task(predictor.model.head, classes, drawing=drawing)
    crops = CropWriter(output / "crops", task, [path for path, _ in files]) if save_crops else None
    rows: Rows = []
    entries = []
    for (path, name), picture, image_id in zip(files, pictures, image_ids, strict=True):
        image = load_photo(path)
        prediction = predictor(image)
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_image(picture, task.draw(image, prediction, score))
        if crops is not None:
            crops.write(name, image, prediction, score)
        entries.append({"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
        rows += task.rows(prediction, image_id)
        say(f"{name}: {task.describe(prediction, score)}")
    results = write_results_files(task, rows, output, dict(zip(image_ids, names, strict=True)))
    write_json(output / "images.json", entries)
    origin = "count from 1 and match no annotation file" if annotations is None else f"are those of {annotations}"
    say(f"image ids {origin}; images.json lists them with their file names")
    return results


def _choose_pictures(files: Sequence[NamedFile], output: Path) -> list[Path]:
    """Return the path of each picture to write.

    Raises UsageError if a picture would overwrite an input image or the picture of another image.
    """
    inputs = {path.resolve() for path, _ in files}
    pictures = [output / Path(name).with_suffix(".png") for _, name in files]
    for picture, count in Counter(pictures).items():
        if picture.resolve() in inputs:
            raise UsageError("the picture would overwrite this image", "choose another --output", file=picture)
        if count > 1:
            raise UsageError(
                "two images would be drawn into this picture", "predict them in separate commands", file=picture
            )
    return pictures


def find_image_ids(names: Sequence[str], truth: Mapping[str, Any], file: Path) -> list[int | str]:
    """Return the ids in a COCO file of the images with these names.

    A name that is not in the file is matched by its last path component, if only one image has it.
    """
    by_name = {str(image.get("file_name")): image["id"] for image in truth["images"]}
    short_names = Counter(Path(name).name for name in by_name)
    by_short_name = {Path(name).name: image_id for name, image_id in by_name.items()}
    ids = []
    for name in names:
        short_name = Path(name).name
        if name in by_name:
            ids.append(by_name[name])
        elif short_names[short_name] == 1:
            ids.append(by_short_name[short_name])
        else:
            fault = "has several images" if short_names[short_name] else "has no image"
            raise UsageError(
                f"{fault} with the file name {name!r}",
                "give the folder that its file names are relative to, or leave out --annotations",
                file=file,
            )
    return ids


def find_category_ids(classes: Classes, truth: Mapping[str, Any], file: Path) -> Classes:
    """Return the classes with their category ids in a COCO file, matched by name.

    Semantic classes that annotation files lack, such as the background, get an id that the file does not use.
    """
    ids = {str(category.get("name")): category["id"] for category in truth["categories"]}
    missing = [name for name in classes.names if name not in ids and name not in CLASSES_WITHOUT_ID]
    if missing:
        raise UsageError(f"has no category named {missing[0]!r}", suggest(missing[0], ids), file=file)
    unused = 0 if 0 not in ids.values() else max(ids.values()) + 1
    return replace(classes, ids=tuple(ids.get(name, unused) for name in classes.names))
