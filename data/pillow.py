"""Pillow behind one guard: one limit of pixels, and whatever a damaged file makes it raise as one kind of error."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Literal

from PIL import Image, UnidentifiedImageError

from ..structures import MAX_PIXELS, DataError


class _OwnLimit:
    """Pillow's limit, which is a variable of the whole process, is ours while any thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._before


_OWN_LIMIT = _OwnLimit()


@contextlib.contextmanager
def guarded(
    kind: Literal["image", "mask"], path: str | os.PathLike[str], image_id: int | str | None = None
) -> Iterator[None]:
    """Opening and decoding happen in here: what goes wrong is a DataError about the file."""

    def fault(case: str, what: str, fix: str = "replace it, or leave it out") -> DataError:
        return DataError(what, fix, case=case, file=path, image_id=image_id)

    try:
        with _OWN_LIMIT:
            yield
    except (DataError, MemoryError):
        raise
    except FileNotFoundError:
        raise fault(f"missing-{kind}", f"the {kind} file does not exist", f"check the {kind} folder") from None
    except IsADirectoryError:
        raise fault(f"missing-{kind}", "this is a folder, not an image", "check the file name") from None
    except UnidentifiedImageError:
        raise fault("not-an-image", "this is no image file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise fault("too-many-pixels", f"it has more than {MAX_PIXELS:,} pixels", "scale it down first") from None
    # Decoders trip over damaged bytes in every way that their code allows: KeyError, TypeError, struct.error ...
    except Exception as error:
        raise fault(f"damaged-{kind}", f"the {kind} is damaged: {error}") from error


def open_guarded(path: str | os.PathLike[str]) -> Image.Image:
    """The image, not yet decoded; to be called inside ``guarded``. Pillow itself only refuses twice its limit."""
    image = Image.open(path)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Image.DecompressionBombError
    return image
