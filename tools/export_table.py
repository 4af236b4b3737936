"""Export models with every head, and write the table of evidence of docs/export.md."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, run_command

if TYPE_CHECKING:
    from vertebra.backbones import Backbone
    from vertebra.models import Model, ModelConfig

BACKBONES = ("resnet18", "resnext50_32x4d", "resnet50d", "timm/convnext_atto", "timm/test_vit", "timm/efficientnet_b0")
SPREAD = ("objectness", "offsets", "class_logits", "box_offsets", "box_distances", "quality", "logits", "heatmaps")
"""Layers whose random weights are enlarged: with the usual ones all scores are nearly equal, and a rounding error
decides which box is the better one."""
START, END = "<!-- table -->\n", "<!-- end of table -->\n"


@click.command(
    "export-table",
    context_settings=CONTEXT,
    short_help="Tabulate exports of every head.",
    epilog="Example: vertebra export-table --run quickstart=runs/quickstart --page docs/export.md",
)
@click.argument("names", metavar="[ROW]...", nargs=-1)
@click.option(
    "--run", "runs", multiple=True, metavar="NAME=MODEL", help="Also export this trained model; can be repeated."
)
@click.option("--photos", type=click.Path(path_type=Path), metavar="DIR", help="Verify on the images in this folder.")
@click.option("--results", type=click.Path(path_type=Path), default="export.jsonl", help="Results, one per line.")
@click.option("--page", type=click.Path(path_type=Path), metavar="FILE", help="Write the table into this page.")
def command(
    names: tuple[str, ...], runs: tuple[str, ...], photos: Path | None, results: Path, page: Path | None
) -> None:
    """Export tiny models with random weights, one for each head and backbone (or those in ROW), and trained models.

    Each is exported to ONNX for images of any size and number, verified, and recorded in --results with its differences
    or the reason why it cannot be exported. Recorded rows are not exported again.
    """
    done = (
        {} if not results.exists() else {row["name"]: row for row in map(json.loads, results.read_text().splitlines())}
    )
    trained = dict(run.split("=", 1) for run in runs)
    chosen = names or (*([] if runs else row_names()), *trained)
    with results.open("a", encoding="utf-8") as file:
        for name in chosen:
            if name not in done:
                done[name] = export_row(name, trained.get(name), photos)
                file.write(json.dumps(done[name]) + "\n")
                file.flush()
            click.echo(format_row(done[name]))
    if page is not None:
        before, _, rest = page.read_text(encoding="utf-8").partition(START)
        after = rest.partition(END)[2]
        heading = "| model | weights | verdict | nodes | largest differences from the model |\n|---|---|---|---|---|\n"
        table = heading + "".join(f"{format_row(row)}\n" for row in done.values())
        page.write_text(f"{before}{START}{table}{END}{after}", encoding="utf-8")


def row_names() -> list[str]:
    """Return the names of the rows for heads and backbones."""
    return [*model_configs(), *(f"backbone {name}" for name in BACKBONES)]


def format_row(row: dict[str, Any]) -> str:
    """Return a result as a row of the table."""
    return f"| {row['name']} | {row['weights']} | {row['verdict']} | {row['nodes']} | {row['differences']} |"


def export_row(name: str, trained: str | None, photos: Path | None) -> dict[str, Any]:
    """Export one model to a temporary file, and return its result."""
    import tempfile

    import onnx

    from vertebra.inference import ExportConfig, export_model
    from vertebra.inference.export import BOUNDS
    from vertebra.tools.export import find_images

    row = {"name": name, "weights": "random" if trained is None else "trained", "nodes": "", "differences": ""}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        files = [] if photos is None or trained is None else find_images(photos)
        try:
            source = build(name) if trained is None else trained
            verification = export_model(
                source, path, ExportConfig(check=False), photos=files, say=lambda line: click.echo(line, err=True)
            )
        except Exception as error:  # any reason is worth recording
            return {**row, "verdict": f"blocked: {' '.join(str(error).split())[:200]}"}
        graph = onnx.load(path).graph
    faults = verification.agreement.violations(BOUNDS)
    verdict = f"differs: {', '.join(faults)}" if faults else "validated"
    if any(output.name.endswith("boxes") for output in graph.output) and not verification.agreement.detections:
        verdict = "runs, but there were no detections to compare"
    differences = f"{verification.images} images: {verification.agreement.describe()}"
    return {**row, "verdict": verdict, "nodes": len(graph.node), "differences": differences}


def build(name: str) -> "Model | Backbone":
    """Build the model of a row with random weights that are spread enough for a comparison."""
    import torch

    from vertebra.backbones import create_backbone
    from vertebra.models import build_model

    torch.manual_seed(0)
    if name.startswith("backbone "):
        return create_backbone(name.removeprefix("backbone "))
    tasks = {"detection": ["a", "b", "c"], "semantic": ["c", "d", "things"], "classification": ["a", "b", "c"]}
    tasks["panoptic"] = [*tasks["detection"], "c", "d"]
    model = build_model(model_configs()[name], tasks)
    for module in model.head.modules():
        for child, layer in module.named_children():
            weight = getattr(layer, "weight", None)
            if child in SPREAD and weight is not None:
                weight.data.mul_(20)
            if child == "class_logits":  # dense heads begin with a bias at which no score reaches the threshold
                layer.get_parameter("bias").data.zero_()
    return model


def model_configs() -> dict[str, "ModelConfig"]:
    """Return the architectures of the rows: a small ResNet, with a neck of 32 channels where there is a neck."""
    from vertebra.backbones import ResNetConfig
    from vertebra.models import ModelConfig
    from vertebra.necks import FPNConfig, PassthroughConfig

    backbone = ResNetConfig(name="resnet10t")
    necks = {"fpn": FPNConfig(channels=32), "none": PassthroughConfig()}
    return {name: ModelConfig(backbone=backbone, neck=necks[neck], head=head) for name, neck, head in head_configs()}


def head_configs() -> Iterator[tuple[str, str, Any]]:
    """Yield (name, neck, config) of every head."""
    from vertebra import heads

    rcnn = heads.RCNNConfig(rpn=heads.RPNConfig(pre_nms=(100, 100), post_nms=(50, 50)))
    mask, keypoint = heads.MaskBranchConfig(convolutions=(16,)), heads.KeypointBranchConfig(convolutions=(16,))
    proposals = {"pre_nms": (100, 100), "post_nms": (50, 50)}
    yield "Faster R-CNN", "fpn", rcnn
    yield "Mask R-CNN", "fpn", rcnn.replace(mask=mask)
    yield "Mask R-CNN, torchvision's conventions", "fpn", heads.TORCHVISION_MASK.replace(rpn=proposals)
    yield "Cascade R-CNN", "fpn", heads.CASCADE.replace(rpn=proposals)
    yield "Keypoint R-CNN", "fpn", rcnn.replace(keypoint=keypoint)
    yield (
        "Mask R-CNN with PointRend",
        "fpn",
        rcnn.replace(point_rend=heads.PointRendBranchConfig(channels=16, fc=(32,))),
    )
    yield "RetinaNet", "fpn", heads.RetinaNetConfig()
    yield "FCOS", "fpn", heads.FCOSConfig()
    yield "YOLOX", "fpn", heads.YOLOXConfig()
    yield "DeepLabv3", "none", heads.DeepLabConfig(rates=(2, 4, 6), channels=16)
    low_level = heads.LowLevelConfig()
    yield "DeepLabv3+", "none", heads.DeepLabConfig(rates=(2, 4, 6), channels=16, low_level=low_level)
    yield "FCN", "none", heads.FCNConfig()
    yield "U-Net", "none", heads.UNetConfig()
    yield "Semantic FPN", "fpn", heads.SemanticFPNConfig(channels=16)
    refinement = heads.PointRefinementConfig(subdivision_points=64)
    yield "Semantic FPN with PointRend", "fpn", heads.SemanticFPNConfig(channels=16, refinement=refinement)
    yield "Panoptic FPN", "fpn", heads.PanopticFPNConfig(instances=rcnn.replace(mask=mask))
    yield "classifier", "none", heads.ClassificationConfig()
    yield "ArcFace embedding", "none", heads.ArcFaceConfig(channels=32)
    several = {"boxes": rcnn, "map": heads.SemanticFPNConfig(channels=16)}
    yield "two heads: Faster R-CNN and Semantic FPN", "fpn", heads.MultiHeadConfig(heads=several)


if __name__ == "__main__":
    raise SystemExit(run_command(command))
