"""``vertebra predict`` on videos: an annotated video, and a line of results for each frame."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vertebra.engine import train
from vertebra.inference import Predictor, Video, VideoWriter
from vertebra.structures import DataError, UsageError
from vertebra.tools.cli import main

from ..helpers.tiny import tiny_config
from ..helpers.videos import turn_video, write_video


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory) -> Path:
    """Return a trained detector."""
    output = tmp_path_factory.mktemp("videos") / "run"
    train(tiny_config(shapes), output)
    return output


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_video_is_drawn_and_has_results_for_each_frame(run, tmp_path):
    """Law: the rows of a frame are the prediction of this frame alone; the annotated video has the frames, size and
    rate of the original, which is unchanged."""
    clip = write_video(tmp_path / "clip.mp4", frames=12)
    before, out = clip.read_bytes(), tmp_path / "out"
    predict = ["predict", str(run), str(clip), "--output", str(out), "--device", "cpu", "--score", "0"]
    assert main([*predict, "--batch-size", "4"]) == 0
    assert clip.read_bytes() == before
    (record,) = read_lines(out / "results.jsonl")
    assert (record["frames"], record["declared_frames"], record["frames_per_second"]) == (12, 12, 10.0)
    lines = read_lines(out / record["frame_results"])
    assert [(line["frame"], line["seconds"]) for line in lines] == [(i, i / 10) for i in range(12)]
    predictor = Predictor(run, "cpu")
    for frame, line in zip(Video(clip), lines, strict=True):
        alone = predictor(frame)
        scores = sorted((row["score"] for row in line["rows"]), reverse=True)
        torch.testing.assert_close(torch.tensor(scores), alone.scores, rtol=1e-4, atol=1e-5)
        assert {row["class_name"] for row in line["rows"]} <= set(predictor.trained.classes["detection"].names)
    drawn = Video(out / record["picture"])
    pictures = list(drawn)
    assert len(pictures) == 12 and drawn.frames_per_second == 10.0 and pictures[0].shape == (48, 64, 3)
    difference = [
        np.abs(first.astype(int) - second).mean() for first, second in zip(pictures, Video(clip), strict=True)
    ]
    assert min(difference) > 1
    assert json.loads((out / "images.json").read_text()) == json.loads((out / "results.json").read_text()) == []
    assert main([*predict, "--resume"]) == 0 and read_lines(out / "results.jsonl") == [record]
    assert not [path.name for path in out.iterdir() if "writing" in path.name]


def test_rotation_of_a_phone_is_applied(tmp_path):
    """By hand: a video of 48 x 64 that is to be shown turned has frames of 64 x 48; the square moves down."""
    turned = write_video(tmp_path / "turned.mp4", frames=4)
    turn_video(turned)
    frames = list(Video(turned))
    assert frames[0].shape == (64, 48, 3)
    rows = [int(np.argwhere(frame.max(axis=2) > 128)[:, 0].mean()) for frame in frames]
    assert rows == sorted(rows) and rows[-1] > rows[0]


def test_truncated_video_has_its_first_frames(run, tmp_path, capsys):
    """docs/faults.md row 189. By hand: an AVI file that is cut is predicted up to there, and the record says how many
    frames it declares; an MP4 file that is cut has no index and is listed as failed, as are other files."""
    whole = write_video(tmp_path / "cut.avi", frames=60).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    whole = write_video(tmp_path / "cut.mp4", frames=20).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mkv").write_text("no video")
    files = [str(tmp_path / name) for name in ("cut.mp4", "cut.avi", "text.mkv")]
    out = tmp_path / "out"
    assert main(["predict", str(run), *files, "--output", str(out), "--device", "cpu"]) == 3
    printed = capsys.readouterr()
    assert "failed.jsonl: 2 of 3 files could not be predicted" in printed.err
    (record,) = read_lines(out / "results.jsonl")
    assert record["picture"] == "cut.avi.mp4" and 0 < record["frames"] < 60
    assert f"cut.avi: {record['frames']} frames of the 60 that the file declares" in printed.out
    reasons = {line["file_name"]: line["reason"] for line in read_lines(out / "failed.jsonl")}
    assert set(reasons) == {"cut.mp4", "text.mkv"}
    assert all("not-a-video: this is not a video that can be decoded" in reason for reason in reasons.values())


def test_missing_video_and_camera_are_refused(tmp_path):
    """By hand: DataError and UsageError that name them."""
    with pytest.raises(DataError, match=r"missing-file: .*none\.mp4: the file does not exist"):
        Video(tmp_path / "none.mp4")
    with pytest.raises(UsageError, match="there is no camera 97"):
        Video(97)


@pytest.mark.parametrize("size", [(31, 45), (60, 90)])
def test_frames_of_other_sizes_are_cut_or_padded(tmp_path, size):
    """By hand: all frames have the size of the first, rounded up to even numbers."""
    with VideoWriter(tmp_path / "x.mp4", 10.0) as writer:
        for shape in ((45, 63), size):
            writer.write(np.full((*shape, 3), 200, np.uint8))
    frames = list(Video(tmp_path / "x.mp4"))
    assert [frame.shape for frame in frames] == [(46, 64, 3)] * 2
    assert all(abs(int(frame.mean()) - 200) < 5 for frame in frames)


def test_unfinished_video_does_not_get_its_name(tmp_path):
    """By hand: an error inside the block leaves an earlier file of this name."""
    (tmp_path / "x.mp4").write_bytes(b"earlier")
    with pytest.raises(OSError, match="full"), VideoWriter(tmp_path / "x.mp4", 10.0) as writer:
        writer.write(np.zeros((40, 60, 3), np.uint8))
        raise OSError("the disk is full")
    assert (tmp_path / "x.mp4").read_bytes() == b"earlier"


def test_rate_that_cannot_be_true_is_replaced(tmp_path, monkeypatch):
    """By hand: 25 frames per second, and no number of frames."""
    clip = write_video(tmp_path / "x.mp4", frames=2)
    values = {cv2.CAP_PROP_FPS: float("nan"), cv2.CAP_PROP_FRAME_COUNT: -9.2e18}

    class Capture:
        """A capture of a stream with a damaged header."""

        def __init__(self, path: str) -> None:
            self.path = path

        def isOpened(self) -> bool:
            return True

        def get(self, name: int) -> float:
            return values[name]

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    video = Video(clip)
    assert (video.frames_per_second, video.declared_frames) == (25.0, None)
