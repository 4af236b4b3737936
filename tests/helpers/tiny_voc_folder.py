"""A tiny valid PASCAL VOC folder for tests to change: three images of 64 x 96, four objects of three classes, masks."""

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 64, 96
OBJECTS = {
    "a": (("cat", (11, 11, 30, 40), 0), ("dog", (41.5, 9, 70, 38), 0)),
    "b": (("dog", (1, 1, 96, 64), 1), ("person", (20, 20, 20, 20), 0)),
    "c": (),
}
"""Of each image the name, the box as the file has it, and difficult."""


def to_xml(objects, size: str | None = None) -> str:
    """Return the XML of an annotation."""
    if size is None:
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    things = "".join(
        f"<object><name>{name}</name><truncated>0</truncated><difficult>{difficult}</difficult><bndbox>"
        + "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>\n"
        for name, box, difficult in objects
    )
    return f"<annotation>\n<filename>something_else.jpg</filename>\n{size}\n{things}</annotation>\n"


def save_mask(path: Path, labels: np.ndarray) -> None:
    """Save class numbers as a palette PNG whose colors have no meaning."""
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(bytes(reversed(range(256))) * 3)
    image.save(path)


def write_voc(root: Path) -> Path:
    """Write the folder, with one image list ``train`` for boxes and for masks."""
    for folder in ("Annotations", "ImageSets/Main", "ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for number, (stem, objects) in enumerate(OBJECTS.items()):
        generator = np.random.default_rng(number)
        pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{stem}.jpg")
        (root / "Annotations" / f"{stem}.xml").write_text(to_xml(objects))
        labels = generator.integers(0, 21, (HEIGHT, WIDTH))
        labels[:, number] = 255
        save_mask(root / "SegmentationClass" / f"{stem}.png", labels)
    for task in ("Main", "Segmentation"):
        (root / "ImageSets" / task / "train.txt").write_text("a\nb\nc\n")
    return root
