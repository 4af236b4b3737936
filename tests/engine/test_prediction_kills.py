"""``vertebra predict`` in processes of its own: killed at any moment, stopped by signals, its output closed."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebra.engine import train
from vertebra.inference import Video
from vertebra.tools.cli import main

from ..helpers.tiny import tiny_classifier
from ..helpers.videos import write_video

BAD = {
    "empty.jpg": b"",
    "page.png": b"<html>404</html>",
    "text.jpg": b"no image",
    "cut.png": None,
    "half.jpg": None,
}
"""Files that are no images; None stands for an image that is cut in the middle."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a trained classifier."""
    output = tmp_path_factory.mktemp("killed") / "run"
    train(tiny_classifier(), output)
    return output


def write_photos(folder: Path, count: int) -> Path:
    """Write ``count`` good images, in subfolders, and the bad ones among them."""
    rng = np.random.default_rng(count)
    for part in range(3):
        (folder / f"{part}").mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number % 3}" / f"{number:03}.{('jpg', 'png')[number % 2]}"
        Image.fromarray(rng.integers(0, 256, (40 + number % 2 * 8, 56, 3), np.uint8)).save(path)
    for number, (name, content) in enumerate(BAD.items()):
        source = folder / "0" / "000.jpg" if name.endswith("jpg") else folder / "1" / "001.png"
        path = folder / f"{number % 3}" / name
        path.write_bytes(source.read_bytes()[: source.stat().st_size // 2] if content is None else content)
    return folder


def command(run: Path, photos: Path, output: Path) -> list[str]:
    return ["predict", str(run), str(photos), "--output", str(output), "--device", "cpu", "--resume"]


class ForkedPrediction:
    """A ``vertebra predict`` in a forked process, which need not import torch again."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.log = log
        (input_end, self.stdin), (self.stdout, output_end) = os.pipe(), os.pipe()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=self._run, args=(arguments, input_end, output_end))
        self.process.start()
        os.close(input_end)
        os.close(output_end)

    def _run(self, arguments: list[str], input_end: int, output_end: int) -> None:
        os.close(self.stdin)
        os.close(self.stdout)
        for descriptor, end in enumerate((input_end, output_end, os.open(self.log, os.O_WRONLY | os.O_CREAT))):
            os.dup2(end, descriptor)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.exit(main(arguments))

    def read_line(self) -> str:
        """Return the next line of standard output."""
        line = b""
        while not line.endswith(b"\n") and (byte := os.read(self.stdout, 1)):
            line += byte
        return line.decode()

    def wait(self) -> tuple[int | None, str]:
        """Wait for the end of the process; return its exit code and what it wrote to standard error."""
        reader = threading.Thread(target=lambda: [None for _ in iter(self.read_line, "")])
        reader.start()
        self.process.join(60)
        self.process.kill()  # if it still runs
        self.process.join()
        reader.join()
        return self.process.exitcode, self.log.read_text()


@pytest.fixture
def predict(tmp_path) -> Iterator[Callable[[list[str]], ForkedPrediction]]:
    """Return a function that starts predictions in processes; they are killed at the end of the test."""
    started: list[ForkedPrediction] = []

    def start(arguments: list[str]) -> ForkedPrediction:
        started.append(ForkedPrediction([*arguments, "--batch-size", "2"], tmp_path / f"errors{len(started)}"))
        return started[-1]

    yield start
    for prediction in started:
        prediction.process.kill()
        prediction.process.join()
        for descriptor in (prediction.stdin, prediction.stdout):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def count_lines(output: Path) -> int:
    results = output / "results.jsonl"
    return results.read_bytes().count(b"\n") if results.exists() else 0


def interrupt_at_random(prediction: ForkedPrediction, output: Path, number: signal.Signals, rng: random.Random) -> None:
    """Send a prediction a signal after a random number of images."""
    enough = count_lines(output) + rng.randrange(1, 6)
    while prediction.process.is_alive() and count_lines(output) < enough:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.02))
    assert prediction.process.pid is not None
    os.kill(prediction.process.pid, number)
    code, errors = prediction.wait()
    assert code in (-number, 128 + number, 3), errors
    assert "Traceback" not in errors
    if code == 128 + number:
        assert f"stopped by {number.name} after" in errors
        assert len(json.loads((output / "images.json").read_text())) == count_lines(output)


@pytest.mark.parametrize(
    ("count", "numbers"),
    [
        (40, (signal.SIGKILL, signal.SIGINT)),
        pytest.param(500, (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) * 5, marks=pytest.mark.slow),
    ],
)
def test_prediction_killed_at_random_has_every_image_once(count, numbers, run, tmp_path, predict, capsys):
    """docs/faults.md row 185. Law: after kills and signals at any moments, each good image is in the results and has
    its picture exactly once, with the ids of an unbroken prediction; the bad ones are listed with their reasons."""
    photos, output = write_photos(tmp_path / "photos", count), tmp_path / "found"
    rng = random.Random(count)
    for number in numbers:
        interrupt_at_random(predict(command(run, photos, output)), output, number, rng)
    assert main(command(run, photos, output)) == 3
    assert f"{len(BAD)} of " in capsys.readouterr().err
    assert main(command(run, photos, tmp_path / "unbroken")) == 3
    images = [json.loads((folder / "images.json").read_text()) for folder in (output, tmp_path / "unbroken")]
    good = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.*") if path.name not in BAD)
    assert images[0] == images[1] and sorted(image["file_name"] for image in images[0]) == good
    assert [image["id"] for image in images[0]] == list(range(1, count + 1))
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert sorted(line["file_name"] for line in lines) == good
    rows = json.loads((output / "results.json").read_text())
    assert [row["image_id"] for row in rows] == list(range(1, count + 1))
    for name in good:
        with Image.open(output / name) as picture:
            picture.load()
    failed = [json.loads(line) for line in (output / "failed.jsonl").read_text().splitlines()]
    assert {Path(entry["file_name"]).name for entry in failed} == set(BAD)


def test_torn_last_line_is_dropped_and_predicted_again(run, tmp_path):
    """docs/faults.md row 185. By hand: a line that a power cut has torn is removed, and its image predicted again."""
    photos, output = write_photos(tmp_path / "photos", 4), tmp_path / "found"
    assert main(command(run, photos, output)) == 3
    whole = (output / "results.jsonl").read_bytes()
    (output / "results.jsonl").write_bytes(whole[:-20])
    assert main(command(run, photos, output)) == 3
    assert (output / "results.jsonl").read_bytes() == whole


def test_closed_pipe_does_not_end_the_prediction(run, tmp_path, predict):
    """docs/faults.md row 188. By hand: as before ``| head -1``: all images are predicted, and the exit code is that of
    the bad files."""
    photos, output = write_photos(tmp_path / "photos", 12), tmp_path / "found"
    prediction = predict(command(run, photos, output))
    assert ".jpg: " in prediction.read_line()
    os.close(prediction.stdout)
    prediction.process.join(60)
    errors = prediction.log.read_text()
    assert prediction.process.exitcode == 3 and "Traceback" not in errors and "BrokenPipe" not in errors
    assert len(json.loads((output / "images.json").read_text())) == 12


def test_paths_on_standard_input_are_predicted_as_they_come(run, tmp_path, predict, monkeypatch):
    """Law: the result of a path is written before the next path comes; Ctrl-C while waiting ends with all files."""
    photos, output = write_photos(tmp_path / "photos", 3), tmp_path / "found"
    monkeypatch.chdir(photos)
    prediction, names = predict(command(run, Path("-"), output)), ["0/000.jpg", "1/001.png"]
    for name in names:
        os.write(prediction.stdin, f"{name}\n".encode())
        assert prediction.read_line().startswith(f"{name}: ")
    assert prediction.process.pid is not None
    os.kill(prediction.process.pid, signal.SIGINT)
    code, errors = prediction.wait()
    assert code == 130 and "stopped by SIGINT after 2 images: continue with --resume" in errors
    assert [image["file_name"] for image in json.loads((output / "images.json").read_text())] == names


def test_stopped_video_has_its_frames_so_far_and_is_repeated(run, tmp_path, predict):
    """docs/faults.md row 189. By hand: after Ctrl-C the annotated video and the lines have the same frames, and the
    resumed prediction has all."""
    clip, output = write_video(tmp_path / "clip.mp4", frames=150), tmp_path / "found"
    prediction = predict(command(run, clip, output))
    lines = output / "clip.mp4.jsonl"
    while not lines.exists() or lines.read_bytes().count(b"\n") < 5:
        assert prediction.process.is_alive(), prediction.log.read_text()
        time.sleep(0.002)
    os.kill(prediction.process.pid, signal.SIGINT)
    code, errors = prediction.wait()
    assert code == 130 and "Traceback" not in errors
    count = lines.read_bytes().count(b"\n")
    assert 5 <= count < 150 and len(list(Video(output / "clip.mp4"))) == count
    assert (output / "results.jsonl").read_bytes() == b""
    assert main(command(run, clip, output)) == 0
    assert lines.read_bytes().count(b"\n") == len(list(Video(output / "clip.mp4"))) == 150


def test_prediction_with_another_model_is_not_resumed(run, tmp_path, capsys):
    """docs/faults.md row 186. By hand: exit code 2 for another score, and for other weights."""
    photos, output = write_photos(tmp_path / "photos", 2), tmp_path / "found"
    assert main(command(run, photos, output)) == 3
    assert main([*command(run, photos, output), "--score", "0.7"]) == 2
    assert "cannot be resumed with another score: it was 0.5, and is 0.7: give the same" in capsys.readouterr().err
    other = tmp_path / "run"
    train(tiny_classifier(recipe={"seed": 1}), other)
    assert main(command(other, photos, output)) == 2
    assert "cannot be resumed with another weights" in capsys.readouterr().err
    shutil.rmtree(output)
    assert main(command(other, photos, output)) == 3
