"""The HTML page of a diagnosis: one file that needs no network, with a picture of each example."""

import base64
import html
import string
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from ...formats import read_image
from ...structures import DataError
from .findings import SEVERITIES, Diagnosis, Example, Finding

LONG_SIDE = 320
"""The length of the long side of a picture, in pixels."""
MARGIN = 1.5
"""The part of the image around an object that is shown with it, in sides of its box."""
SMALLEST_WINDOW = 64
"""The least side of the part that is shown, in pixels of the image, so that a tiny object is seen in its place."""
QUALITY = 80
"""The JPEG quality of the pictures."""
COLOR = (255, 64, 64)
"""The RGB color of the box that is drawn."""

Box = tuple[float, float, float, float]


def render_page(diagnosis: Diagnosis) -> str:
    """Return the HTML page of a diagnosis. The image files of the examples are read again."""
    template = string.Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    counts = {severity: diagnosis.count(severity) for severity in SEVERITIES}
    filters = [
        f'<label><input type="checkbox" id="show-{severity}" checked> {count} {severity}{plural}</label>'
        for severity, count in counts.items()
        for plural in ("" if count == 1 else "s",)
    ]
    findings = [_render_finding(finding) for finding in diagnosis.findings]
    return template.substitute(
        title=html.escape(f"Data of {diagnosis.source}"),
        splits="\n".join(f"<li>{html.escape(line)}</li>" for line in diagnosis.splits),
        filters="\n".join(filters),
        findings="\n".join(findings) or "<p>Nothing was found.</p>",
    )


def _render_finding(finding: Finding) -> str:
    number = "" if finding.total is None else f" {finding.count} of {finding.total}"
    figures = "".join(_render_example(example) for example in finding.examples)
    return (
        f'<article class="{finding.severity}">\n'
        f"<h2>{html.escape(finding.case)} <small>{finding.severity}, {html.escape(finding.split)}</small></h2>\n"
        f"<p>{html.escape(f'{number} {finding.what}'.strip())}</p>\n"
        f'<p class="fix">{html.escape(finding.fix)}</p>\n'
        f'<div class="examples">{figures}</div>\n</article>'
    )


def _render_example(example: Example) -> str:
    caption = html.escape(example.describe())
    data = picture_data(example.file, example.box)
    image = "" if data is None else f'<img alt="{caption}" loading="lazy" src="{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def picture_data(file: str, box: Box | None) -> str | None:
    """Return the picture of an image, or of an object in it, as the address of an HTML image; None if it cannot be
    read."""
    if not file:
        return None
    try:
        image = read_image(file)
    except DataError:
        return None
    return encode_picture(image if box is None else draw_object(image, box))


def encode_picture(picture: UInt8[ndarray, "_ _ 3"]) -> str:
    """Return a picture, shrunk if it is large, as the address of an HTML image that contains the pixels."""
    scale = LONG_SIDE / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def draw_object(image: UInt8[ndarray, "h w 3"], box: Box) -> UInt8[ndarray, "_ _ 3"]:
    """Return the part of an image around a box (xyxy) with the box drawn, enlarged or shrunk to ``LONG_SIDE``.

    A box outside the image is shown as the whole image with a line at the nearest border.
    """
    height, width = image.shape[:2]
    values = np.nan_to_num(np.array(box, float), nan=0.0, posinf=1e6, neginf=-1e6)
    low = np.clip(np.minimum(values[:2], values[2:]), 0, (width, height))
    high = np.clip(np.maximum(values[:2], values[2:]), 0, (width, height))
    side = max(SMALLEST_WINDOW, (high - low).max() * (1 + 2 * MARGIN))
    begin = np.clip(((low + high - side) / 2).round(), 0, (width - 1, height - 1)).astype(int)
    end = np.clip(((low + high + side) / 2).round(), begin + 1, (width, height)).astype(int)
    if ((high - low) <= 0).any():
        begin, end = np.zeros(2, int), np.array((width, height))
    window = image[begin[1] : end[1], begin[0] : end[0]]
    scale = LONG_SIDE / max(window.shape[:2])
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    size = max(1, round(window.shape[1] * scale)), max(1, round(window.shape[0] * scale))
    picture = cv2.resize(window, size, interpolation=mode)
    corners = [((corner - begin) * scale).round().astype(int).tolist() for corner in (low, high)]
    return _draw_rectangle(picture, corners)


def _draw_rectangle(picture: UInt8[ndarray, "h w 3"], corners: Sequence[Sequence[int]]) -> UInt8[ndarray, "h w 3"]:
    """Draw a rectangle in a color between black lines, so that it is seen on any image."""
    last = (picture.shape[1] - 1, picture.shape[0] - 1)
    first, second = (
        [min(max(value, 0), limit) for value, limit in zip(corner, last, strict=True)] for corner in corners
    )
    picture = np.ascontiguousarray(picture)
    cv2.rectangle(picture, first, second, (0, 0, 0), 4)
    cv2.rectangle(picture, first, second, COLOR, 2)
    return picture
