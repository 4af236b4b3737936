"""Export the backbone of a trained run as pretrained weights for other models."""

from pathlib import Path

import click

from vertebra.tools.cli import CONTEXT, check_output_file, run_command
from vertebra.tools.options import import_option, run_argument


@click.command(
    "export-backbone",
    context_settings=CONTEXT,
    short_help="Export a trained run's backbone as pretrained weights.",
    epilog="Example: vertebra export-backbone runs/resnet10t_shapes shapes_resnet10t.safetensors --half",
)
@run_argument
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--half", is_flag=True, help="Write float16, which halves the file size.")
@import_option
def command(run: str, out: Path, half: bool, imports: tuple[str, ...]) -> None:
    """Export the backbone of a trained run as a safetensors file, whose metadata hold the pixel preprocessing.

    RUN is a run folder or a checkpoint, OUT the file to write. Use the file as model.weights in a config, or pass it to
    load_backbone_weights.
    """
    from safetensors.torch import save_file

    from vertebra.backbones import weights_metadata
    from vertebra.inference import import_user_code, load_checkpoint_model, open_checkpoint

    check_output_file(out)
    for name in imports:
        import_user_code(name)
    checkpoint = open_checkpoint(run)
    model = load_checkpoint_model(checkpoint)
    tensors = {name: value for name, value in model.backbone.state_dict().items() if value.is_floating_point()}
    if half:
        tensors = {name: value.half() for name, value in tensors.items()}
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    metadata = weights_metadata(model.preprocess.config, model.backbone.config, checkpoint.origin)
    save_file(tensors, out, metadata)
    click.echo(f"{out}: {len(tensors)} tensors, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(run_command(command))
