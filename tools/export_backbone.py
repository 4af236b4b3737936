"""Write the backbone of a trained run, alone, as weights that another model can start from."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vertebra.tools.cli import check_output_file, run_tool


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/export_backbone.py RUN_OR_CHECKPOINT OUT.safetensors [--half]``."""
    parser = argparse.ArgumentParser(
        prog="export-backbone",
        description="Write the backbone of a trained run as one safetensors file, which tells how it wants its pixels. "
        "A config starts from it by model.weights, a backbone by load_backbone_weights.",
        epilog="example: python tools/export_backbone.py runs/resnet10t_shapes shapes_resnet10t.safetensors --half",
    )
    parser.add_argument("run", help="a run folder or a checkpoint")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument("--half", action="store_true", help="in half precision, which is half the size")
    options = parser.parse_args(arguments)

    from safetensors.torch import save_file

    from vertebra.backbones import weights_metadata
    from vertebra.engine import load_checkpoint_model, open_checkpoint

    check_output_file(options.out)
    checkpoint = open_checkpoint(options.run)
    model = load_checkpoint_model(checkpoint)
    tensors = {name: value for name, value in model.backbone.state_dict().items() if value.is_floating_point()}
    if options.half:
        tensors = {name: value.half() for name, value in tensors.items()}
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    metadata = weights_metadata(model.preprocess.config, model.backbone.config, checkpoint.origin)
    save_file(tensors, options.out, metadata)
    print(f"{options.out}: {len(tensors)} tensors, {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
