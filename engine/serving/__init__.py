"""A web server that predicts images. It needs ``pip install "vertebra[serve]"`` (Starlette and uvicorn)."""

from .app import ServerConfig, create_app
from .batching import BatchQueue, QueueFullError

__all__ = ["BatchQueue", "QueueFullError", "ServerConfig", "create_app"]
