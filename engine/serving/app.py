"""The web application: its routes, and the checks of requests.

A request is the bytes of one image. It names no file and no model, and nothing of it is unpickled or executed.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from pydantic import Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ...formats import encode_json_line
from ...formats.images import encoded_image_size
from ...inference import Predictor, load_photo
from ...structures import Config, DataError, UnitInterval
from ..prediction.class_names import add_class_names
from ..tasks import Task, pick_task
from .batching import BatchQueue, QueueFullError

LOG = logging.getLogger("vertebra.serve")
PAGE = Path(__file__).with_name("page.html")
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src blob: data:",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of the page: it loads nothing from other servers."""
CHUNK_SECONDS = 30
"""Seconds after which a client that sends nothing is given up."""


class ServerConfig(Config):
    """Limits and settings of the server."""

    score: UnitInterval = 0.5
    """The score above which predictions are drawn and returned, unless a request gives another."""
    max_bytes: int = Field(default=20 * 2**20, gt=0)
    """Maximum size of an image file."""
    max_pixels: int = Field(default=50_000_000, gt=0)
    """Maximum number of pixels of an image; larger ones are refused before they are decoded."""
    max_waiting: int = Field(default=64, gt=0)
    """Maximum number of images that wait for their prediction; further requests get the status 503."""
    decoders: int = Field(default=2, gt=0)
    """Number of threads that decode, preprocess and draw images."""


def create_app(predictor: Predictor, config: ServerConfig | None = None) -> Starlette:
    """Return a web application (ASGI) that predicts images with a trained model.

    Its routes are ``GET /``, a page on which to drop an image; ``POST /predict``, whose body is the bytes of an image
    and whose answer is JSON or, with ``?format=picture``, the image with its predictions drawn; ``GET /model`` with the
    classes; and ``GET /health``. Images that arrive at the same time are predicted in one batch.
    """
    server = _Server(predictor, config or ServerConfig())
    routes = [
        Route("/", server.page),
        Route("/predict", server.predict, methods=["POST"]),
        Route("/model", server.model),
        Route("/health", server.health),
    ]
    return Starlette(routes=routes, lifespan=server.lifespan, exception_handlers={HTTPException: _answer_error})


async def _answer_error(request: Request, error: Exception) -> Response:
    """Return an error as JSON with one field, ``error``."""
    assert isinstance(error, HTTPException), "registered for this type only"
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


class _Server:
    """The handlers of the routes, and what they share."""

    def __init__(self, predictor: Predictor, config: ServerConfig) -> None:
        self._config, self._predictor = config, predictor
        self._task: Task = pick_task(predictor.model.head, predictor.trained.classes)
        self._threads = ThreadPoolExecutor(config.decoders, "decode")
        self._queue = BatchQueue(self._predict_batch, predictor.batch_size, config.max_waiting)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Predict requests as long as the server runs."""
        with self._threads:
            async with self._queue.running():
                yield

    async def page(self, request: Request) -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=SECURITY)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": len(self._queue)})

    async def model(self, request: Request) -> Response:
        classes = {name: list(known.names) for name, known in self._predictor.trained.classes.items()}
        return JSONResponse({"classes": classes})

    async def predict(self, request: Request) -> Response:
        """Predict the image in the body of a request."""
        score, as_picture = _read_query(request.query_params, self._config.score)
        data = await self._read_body(request)
        loop = asyncio.get_running_loop()
        try:
            photo, prepared = await loop.run_in_executor(self._threads, self._decode, data)
            prediction = await self._queue.predict((prepared, photo.shape[:2]))
        except DataError as error:
            raise HTTPException(422, f"{error.case}: {error.what}") from error
        except QueueFullError as error:
            raise HTTPException(503, "too many images wait for their prediction", {"Retry-After": "1"}) from error
        except Exception as error:
            LOG.exception("a prediction failed")
            raise HTTPException(500, "the prediction failed; the server's log says why") from error
        work = self._draw if as_picture else self._encode
        return await loop.run_in_executor(self._threads, partial(work, photo, prediction, score))

    async def _read_body(self, request: Request) -> bytes:
        """Return the body of a request; raise HTTPException if it is too large, empty, a form, or does not arrive."""
        limit = self._config.max_bytes
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(415, "send the bytes of the image as the body, not a form (curl --data-binary @FILE)")
        body = bytearray()
        chunks = request.stream()
        try:
            while True:
                body += await asyncio.wait_for(anext(chunks), CHUNK_SECONDS)
                if len(body) > limit:
                    raise HTTPException(413, f"the image has more than {limit} bytes", {"Connection": "close"})
        except StopAsyncIteration:
            pass
        except (TimeoutError, ClientDisconnect) as error:
            raise HTTPException(408, "the image did not arrive", {"Connection": "close"}) from error
        if not body:
            raise HTTPException(400, "the body is empty: send the bytes of an image")
        return bytes(body)

    def _decode(self, data: bytes) -> tuple[Any, Any]:
        """Return an image and its preprocessed tensor; raise DataError if it cannot be decoded or is too large."""
        height, width = encoded_image_size(data)
        if height * width > self._config.max_pixels:
            what = f"{height}x{width} are more than {self._config.max_pixels} pixels"
            raise DataError(what, case="too-many-pixels")
        photo = load_photo(data)
        return photo, self._predictor.prepare(photo)

    def _predict_batch(self, batch: list[Any]) -> list[Any]:
        return self._predictor.predict_prepared([prepared for prepared, _ in batch], [size for _, size in batch])

    def _encode(self, photo: Any, prediction: Any, score: float) -> Response:
        """Return the results rows of a prediction as JSON."""
        rows = add_class_names(self._task, self._task.rows(prediction, 1))
        kept = [
            {name: value for name, value in row.items() if name != "image_id"}
            for row in rows
            if not isinstance(row.get("score"), float) or row["score"] >= score
        ]
        content = {"height": photo.shape[0], "width": photo.shape[1], "predictions": kept}
        return Response(encode_json_line(content), media_type="application/json")

    def _draw(self, photo: Any, prediction: Any, score: float) -> Response:
        """Return the image with its predictions drawn, as JPEG."""
        picture = self._task.draw(photo, prediction, score)
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return Response(encoded.tobytes(), media_type="image/jpeg")


def _read_query(query: Mapping[str, str], default: float) -> tuple[float, bool]:
    """Return the score and whether a picture is asked for; raise HTTPException for anything else."""
    unknown = sorted(set(query) - {"score", "format"})
    if unknown:
        raise HTTPException(400, f"there is no parameter {unknown[0]!r}, only score and format")
    try:
        score = float(query.get("score", default))
    except ValueError:
        score = -1
    if not 0 <= score <= 1:
        raise HTTPException(400, "score must be a number from 0 to 1")
    if query.get("format", "json") not in ("json", "picture"):
        raise HTTPException(400, "format must be json or picture")
    return score, query.get("format") == "picture"
