"""Small videos that tests write."""

import struct
from pathlib import Path

import cv2
import numpy as np


def write_video(path: Path, frames: int, size: tuple[int, int] = (48, 64), rate: float = 10.0) -> Path:
    """Write a video of this (height, width) in which a white square moves to the right by two pixels per frame."""
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, rate, size[::-1])
    for number in range(frames):
        frame = np.zeros((*size, 3), np.uint8)
        left = number * 2 % size[1]
        frame[8:24, left : left + 16] = 255
        writer.write(frame)
    writer.release()
    return path


def turn_video(path: Path) -> None:
    """Let an MP4 file say that it is to be shown turned by 90 degrees, as phones write it.

    The matrix of the track header (ISO 14496-12, 8.3.2) is replaced.
    """
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(data)
