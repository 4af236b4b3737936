"""Serve a trained model on the network."""

import socket
from typing import TYPE_CHECKING

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import (
    device_option,
    import_option,
    integer_option,
    like_option,
    model_argument,
    offline_option,
    optimize_option,
    parse_fraction,
)

if TYPE_CHECKING:
    from vertebra.inference import OptimizedPrecision


@click.command(
    "serve",
    context_settings=CONTEXT,
    short_help="Serve a trained model: a web page and JSON.",
    epilog="""\b
    Examples:
      vertebra serve runs/quickstart
      curl --data-binary @photo.jpg "http://127.0.0.1:8000/predict?score=0.3"
      curl --data-binary @photo.jpg "http://127.0.0.1:8000/predict?format=picture" -o picture.jpg""",
)
@model_argument
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="The address to listen on; 0.0.0.0 for all.")
@integer_option("--port", 8000, "The port to listen on; 0 chooses a free one.", least=0, most=65535)
@click.option(
    "--score", type=parse_fraction, default="0.5", metavar="NUMBER", help="Return predictions with at least this score."
)
@integer_option("--batch-size", None, "Images that are predicted together; by default as in the model's evaluations.")
@integer_option("--max-megabytes", 20, "Refuse larger image files.")
@integer_option("--max-megapixels", 50, "Refuse larger images, before they are decoded.")
@integer_option("--max-waiting", 64, "Refuse requests, with the status 503, while more images wait.")
@like_option
@offline_option
@device_option
@optimize_option
@import_option
def command(
    model: str,
    host: str,
    port: int,
    score: float,
    batch_size: int | None,
    max_megabytes: int,
    max_megapixels: int,
    max_waiting: int,
    like: str | None,
    device: str,
    optimize: "OptimizedPrecision | None",
    imports: tuple[str, ...],
) -> None:
    """Serve a trained model on the network: a page to drop an image on, and JSON or pictures for programs.

    MODEL is a run folder, a checkpoint, a published model (see vertebra list models) or a file of weights. The body of
    a request is the bytes of an image. There is no password and no encryption: let only trusted computers reach the
    port, or put a web server in front of it.
    """
    from vertebra.structures import UsageError

    try:
        import uvicorn

        from vertebra.engine.serving import ServerConfig, create_app
    except ModuleNotFoundError as error:
        raise UsageError(f"serve needs {error.name}", 'pip install "vertebra[serve]"') from error
    from vertebra.inference import Predictor

    predictor = Predictor(model, device, like=like, imports=imports, batch_size=batch_size)
    if optimize is not None:
        predictor.optimize(optimize, say=click.echo)
    config = ServerConfig(
        score=score,
        max_bytes=max_megabytes * 2**20,
        max_pixels=max_megapixels * 1_000_000,
        max_waiting=max_waiting,
        decoders=2,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(predictor, config), host=host, port=port, log_level="warning", timeout_graceful_shutdown=30
        )
    )
    with _listen(host, port) as listener:
        address, number = listener.getsockname()[:2]
        click.echo(f"serving {model} on http://{address}:{number}, until Ctrl-C")
        server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise UsageError if the address cannot be used."""
    from vertebra.structures import UsageError

    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}", "choose another --host or --port"
        ) from error


if __name__ == "__main__":
    raise SystemExit(run_command(command))
