"""Opening images with Pillow, with the project's pixel limit, and with every error converted to a DataError."""

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from typing import Literal

from PIL import Image, UnidentifiedImageError

from ..structures import MAX_PIXELS, DataError


class _PixelLimit:
    """Context manager that sets Pillow's process-wide pixel limit to ours while any thread is inside."""

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


_PIXEL_LIMIT = _PixelLimit()


@contextlib.contextmanager
def image_errors_as_data_errors(
    content: Literal["image", "mask"], path: str | os.PathLike[str], image_id: int | str | None = None
) -> Iterator[None]:
    """Convert every error inside the block, which opens and decodes a file, into a DataError about that file."""

    def problem(case: str, what: str, fix: str = "replace it, or leave it out") -> DataError:
        return DataError(what, fix, case=case, file=path, image_id=image_id)

    try:
        with _PIXEL_LIMIT:
            yield
    except (DataError, MemoryError):
        raise
    except FileNotFoundError:
        what = f"the {content} file does not exist"
        raise problem(f"missing-{content}", what, f"check the {content} folder") from None
    except IsADirectoryError:
        raise problem(f"missing-{content}", "this is a folder, not an image", "check the file name") from None
    except UnidentifiedImageError:
        raise problem("not-an-image", "this is not an image file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise problem("too-many-pixels", f"it has more than {MAX_PIXELS:,} pixels", "downscale it first") from None
    # Damaged bytes make Pillow's decoders raise exceptions of any type: KeyError, TypeError, struct.error ...
    except Exception as error:
        raise problem(f"damaged-{content}", f"the {content} is damaged: {error}") from error


def open_image(path: str | os.PathLike[str] | io.BytesIO) -> Image.Image:
    """Open an image file without decoding it; call it inside :func:`image_errors_as_data_errors`.

    Raises ``DecompressionBombError`` beyond the pixel limit; Pillow itself only warns, and refuses twice the limit.
    """
    image = Image.open(path)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Image.DecompressionBombError
    return image
