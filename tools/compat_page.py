"""Writing the results of ``tools/compat.py`` as a Markdown page."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEADS = {
    "rcnn": "Mask R-CNN",
    "keypoint": "Keypoint R-CNN",
    "point_rend": "PointRend",
    "cascade": "Cascade R-CNN",
    "retinanet": "RetinaNet",
    "fcos": "FCOS",
    "yolox": "YOLOX",
    "semantic_fpn": "Semantic FPN",
    "panoptic": "Panoptic FPN",
    "deeplab": "DeepLab",
    "fcn": "FCN",
    "unet": "U-Net",
    "classification": "classifier",
    "embedding": "ArcFace",
}
"""The title of each column of the table, by the name of the head in the record of a model."""


def write_page(path: Path, records: Sequence[dict[str, Any]], untried: Sequence[str]) -> None:
    """Write a table of the tested models by family, the refused models with reasons, and the ``untried`` names."""
    import timm
    import torch

    built = [record for record in records if "heads" in record]
    refused = [record for record in records if "heads" not in record]
    passed = [record for record in built if set(record["heads"].values()) == {"yes"}]
    families = {record["family"] for record in records}
    lines = [
        "# timm's models as backbones",
        "",
        *_wrap(
            f"Written by `python tools/compat.py`, with timm {timm.__version__} and torch "
            f"{torch.__version__.partition('+')[0]} on a CPU. Each model was built by "
            '`create_backbone("timm/NAME")`, with the options listed, with random weights, measured on a small image, '
            "and trained for two steps with a small version of each head: the R-CNNs and Panoptic FPN, dense detectors "
            "and Semantic FPN on the neck listed, the other heads on the backbone's own levels. `yes` means that the "
            "loss fell in both steps. The smallest model of every family was tried first."
        ),
        "",
        *_wrap(
            f"{len(records)} models of {len(families)} families tried: {len(passed)} pass with every head, "
            f"{len(built) - len(passed)} with some or none, {len(refused)} are refused. {len(untried)} were not tried."
        ),
        "",
        "| family | model | M parameters | levels (stride) | options | neck | " + " | ".join(HEADS.values()) + " |",
        "|---|---|---|---|---|---|" + "---|" * len(HEADS),
        *(_row(record) for record in sorted(built, key=_family_and_model)),
        "",
        "## Refused, and why",
        "",
        "| family | model | reason |",
        "|---|---|---|",
        *map(_refusal_row, sorted(refused, key=_family_and_model)),
        "",
        "## Not tried",
        "",
        ", ".join(sorted(untried)) or "None.",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _wrap(paragraph: str) -> list[str]:
    return textwrap.wrap(paragraph, 120, break_on_hyphens=False)


def _family_and_model(record: dict[str, Any]) -> tuple[str, str]:
    return record["family"], record["model"]


def _row(record: dict[str, Any]) -> str:
    levels = " ".join(f"{level} ({stride})" for level, (_, stride) in record["levels"].items())
    options = ", ".join(f"{name}={value}" for name, value in record["options"].items())
    cells = [record["family"], record["model"], f"{record['parameters']:.1f}", levels, options, record["neck"]]
    return "| " + " | ".join([*cells, *(_cell(record["heads"].get(head, "not tried")) for head in HEADS)]) + " |"


def _refusal_row(record: dict[str, Any]) -> str:
    reason = record["reason"].removeprefix(f"timm/{record['model']} ")
    return f"| {record['family']} | {record['model']} | {_cell(reason)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
