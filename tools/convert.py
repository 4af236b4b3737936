"""Convert weights between Vertebra and other libraries."""

from pathlib import Path

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import import_option, offline_option


@click.command(
    "convert",
    context_settings=CONTEXT,
    short_help="Convert weights from and to other libraries.",
    epilog="""\b
    Examples:
      vertebra convert mine.pth mine.safetensors --from torchvision/fasterrcnn_resnet50_fpn --classes cat,dog
      vertebra convert runs/mine mine.pth --to torchvision/maskrcnn_resnet50_fpn_v2
      vertebra convert runs/mine mine.safetensors""",
)
@click.argument("source", metavar="SOURCE", type=click.Path())
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "like",
    metavar="NAME",
    help="SOURCE is a file of weights with the tensor names and conventions of this published model.",
)
@click.option(
    "--to",
    "target",
    default="vertebra",
    metavar="NAME",
    help="Write the tensor names of this published model, or a model file of Vertebra.",
)
@click.option(
    "--classes", metavar="NAME,NAME", help="The class names of a file, in the order of its labels, without background."
)
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@offline_option
@import_option
def command(
    source: str,
    out: Path,
    like: str | None,
    target: str,
    classes: str | None,
    force: bool,
    imports: tuple[str, ...],
) -> None:
    """Convert weights: every tensor is used once, and shapes are checked.

    SOURCE is a run folder, a checkpoint, a model file, a published model (see vertebra list models), or a file of
    weights of another library with --from. OUT is a .safetensors file for Vertebra, which predict, eval and start_from
    take like a run, or a .pth file for other libraries.
    """
    from vertebra.engine.convert import save_for_library, save_model_file
    from vertebra.inference import import_user_code, open_model
    from vertebra.models.zoo import find_published
    from vertebra.structures import UsageError

    for name in imports:
        import_user_code(name)
    if classes is not None and like is None:
        raise click.UsageError("--classes names the classes of a file of another library: add --from")
    names = None if classes is None else [name.strip() for name in classes.split(",")]
    if out.exists() and not force:
        raise UsageError("this file exists already", "choose another name, or add --force", file=out)
    trained = open_model(source, like, names)
    if target == "vertebra":
        save_model_file(trained, out)
    else:
        published, _ = find_published(target)
        note = save_for_library(trained, published, out)
        if note is not None:
            click.echo(note)
    for task, described in trained.classes.items():
        shown = ", ".join(described.names[:8]) + (", ..." if len(described.names) > 8 else "")
        click.echo(f"{len(described.names)} classes of {task}: {shown}")
    click.echo(f"{out}: written")


if __name__ == "__main__":
    raise SystemExit(run_command(command))
