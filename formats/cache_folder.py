"""The user's cache folder."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder: ``$VERTEBRA_CACHE`` or, if it is unset, ``vertebra`` in ``$XDG_CACHE_HOME`` or
    ``~/.cache``. Everything in it can be built again."""
    chosen = os.environ.get("VERTEBRA_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vertebra"
