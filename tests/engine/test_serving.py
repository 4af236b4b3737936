"""The web server: the same predictions as in Python, limits, broken requests, and many clients at once."""

import asyncio
import contextlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from vertebra.engine import train
from vertebra.engine.serving import BatchQueue, QueueFullError
from vertebra.inference import Predictor
from vertebra.tools.cli import main

from ..helpers.tiny import tiny_classifier


def encoded(size: tuple[int, int] = (40, 60), seed: int = 0, suffix: str = "png") -> bytes:
    """Return the bytes of an image of noise; ``size`` is its (height, width)."""
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(content, suffix)
    return content.getvalue()


def with_declared_size(width: int, height: int) -> bytes:
    """Return the bytes of a PNG file whose header declares this size."""
    data = bytearray(encoded())
    data[16:24] = width.to_bytes(4) + height.to_bytes(4)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a trained classifier."""
    output = tmp_path_factory.mktemp("serving") / "run"
    train(tiny_classifier(), output)
    return output


@contextlib.contextmanager
def start_server(run: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Start a server with small limits in another process; yield its port and the process."""
    options = ["--port", "0", "--max-megabytes", "1", "--max-megapixels", "1", "--batch-size", "4", "--score", "0"]
    program = "import sys; from vertebra.tools.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "serve", str(run), "--device", "cpu", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.fullmatch(r"serving .* on http://127\.0\.0\.1:(\d+), until Ctrl-C\n", process.stdout.readline())
        assert address is not None
        yield int(address[1]), process
        process.kill()


@pytest.fixture(scope="module")
def server(run) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Return the port of a server and its process."""
    with start_server(run) as started:
        yield started


def ask(port: int, body: bytes | None, query: str = "", path: str = "/predict", **headers: str) -> tuple[int, bytes]:
    """Send a request (POST with a body, GET without), and return the status and the content of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if body is None else "POST", path + query, body, names)
    answer = connection.getresponse()
    status, content = answer.status, answer.read()
    connection.close()
    return status, content


def test_answer_is_the_prediction(server, run):
    """Oracle: the predictor in this process, for images of several sizes and formats."""
    port, _ = server
    predictor = Predictor(run, "cpu")
    for seed, (size, suffix) in enumerate([((40, 60), "png"), ((64, 64), "jpeg"), ((1, 1), "png"), ((33, 97), "bmp")]):
        data = encoded(size, seed, suffix)
        status, content = ask(port, data)
        answer = json.loads(content)
        assert status == 200 and (answer["height"], answer["width"]) == size
        (row,) = answer["predictions"]
        expected = predictor(data)
        assert (
            row["labels"] == expected.labels.tolist()
            and row["class_names"][0] in predictor.trained.classes["classification"].names
        )
        np.testing.assert_allclose(row["scores"], expected.scores.tolist(), atol=1e-6)


def test_picture_and_page(server):
    """By hand: a JPEG of the image with its predictions; the page names no other server; the classes; the health."""
    port, _ = server
    status, content = ask(port, encoded((80, 120)), "?format=picture")
    assert status == 200
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape[1] >= 120
    status, page = ask(port, None, path="/")
    assert status == 200 and b"Drop an image" in page and b"//" not in page.replace(b"<!doctype", b"")
    assert json.loads(ask(port, None, path="/model")[1])["classes"].keys() == {"classification"}
    assert json.loads(ask(port, None, path="/health")[1]) == {"status": "ok", "waiting": 0}


GOOD = encoded()
# name: (body, query, path, headers, status, part of the answer)
BAD: dict[str, tuple[bytes | None, str, str, dict[str, str], int, bytes]] = {
    "no image": (b"hello", "", "/predict", {}, 422, b"not-an-image: this is not an image file"),
    "nothing": (b"", "", "/predict", {}, 400, b"the body is empty"),
    "half an image": (GOOD[: len(GOOD) // 2], "", "/predict", {}, 422, b"damaged-image"),
    "a pickle": (b"\x80\x04c__builtin__\nexit\n.", "", "/predict", {}, 422, b"not-an-image"),
    "a path": (b"/etc/passwd", "", "/predict", {}, 422, b"not-an-image"),
    "a bomb": (with_declared_size(60000, 60000), "", "/predict", {}, 422, b"too-many-pixels"),
    "too many pixels": (with_declared_size(1001, 1000), "", "/predict", {}, 422, b"1000x1001 are more than 1000000"),
    "a form": (GOOD, "", "/predict", {"Content_Type": "multipart/form-data; boundary=x"}, 415, b"not a form"),
    "a score that is none": (GOOD, "?score=nan", "/predict", {}, 400, b"a number from 0 to 1"),
    "another format": (GOOD, "?format=xml", "/predict", {}, 400, b"json or picture"),
    "another parameter": (GOOD, "?path=/etc/passwd", "/predict", {}, 400, b"no parameter 'path'"),
    "another method": (None, "", "/predict", {}, 405, b"Method Not Allowed"),
    "another page": (None, "", "/../etc/passwd", {}, 404, b"Not Found"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_request_gets_a_status_and_a_reason(name, server):
    """docs/faults.md row 200. By hand: a status of the client's fault, and one line of JSON that says why; the next
    request is answered."""
    body, query, path, headers, expected, part = BAD[name]
    status, content = ask(server[0], body, query, path, **headers)
    assert status == expected and part in content and list(json.loads(content)) == ["error"]
    assert ask(server[0], GOOD)[0] == 200


def test_large_body_is_refused_before_it_has_arrived(server):
    """docs/faults.md row 200. By hand: the server answers after its limit of a megabyte, although ten are announced."""
    with socket.create_connection(("127.0.0.1", server[0]), timeout=60) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 2_000_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def load(port: int, count: int, clients: int) -> list[float]:
    """Send requests from several clients, every fifth broken; return the seconds of the good ones."""
    bodies = [encoded((30 + index % 7, 50), index) for index in range(10)]
    expected = [ask(port, body)[1] for body in bodies]

    def request(index: int) -> float | None:
        if index % 5 == 0:  # a client that leaves in the middle of its request
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nabc")
            return None
        start = time.perf_counter()
        status, content = ask(port, bodies[index % 10])
        assert status == 200
        rows, known = (json.loads(answer)["predictions"][0] for answer in (content, expected[index % 10]))
        np.testing.assert_allclose(sorted(rows["scores"]), sorted(known["scores"]), atol=1e-5)
        return time.perf_counter() - start

    with ThreadPoolExecutor(clients) as threads:
        return [seconds for seconds in threads.map(request, range(count)) if seconds is not None]


def test_clients_at_once_get_their_own_answers(server):
    """docs/faults.md row 201. Law: the answer to each of eight clients is that of a client alone, though others leave
    in mid-request."""
    assert len(load(server[0], 60, 8)) == 48
    assert json.loads(ask(server[0], None, path="/health")[1])["status"] == "ok"


@pytest.mark.slow
def test_thousand_requests_of_eight_clients(server):
    """Law: as above, a thousand times."""
    start = time.perf_counter()
    seconds = sorted(load(server[0], 1000, 8))
    print(
        f"{len(seconds) / (time.perf_counter() - start):.0f} images/s, latency "
        f"median {1000 * seconds[len(seconds) // 2]:.0f} ms, 95 % {1000 * seconds[int(0.95 * len(seconds))]:.0f} ms"
    )
    assert len(seconds) == 800


def test_port_in_use_is_one_line(server, run, capsys):
    """docs/faults.md row 202. By hand: exit code 2."""
    assert main(["serve", str(run), "--port", str(server[0]), "--device", "cpu"]) == 2
    assert "error: usage: cannot listen on 127.0.0.1:" in capsys.readouterr().err


def test_interrupt_ends_the_server(run):
    """By hand: Ctrl-C ends it with the code 130, or with 0 if the tests run in the background of a shell that lets its
    processes ignore Ctrl-C."""
    with start_server(run) as (port, process):
        assert ask(port, GOOD)[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (130, 0)


def test_waiting_images_form_batches():
    """By hand: the first image is predicted alone; those that arrive meanwhile together, four at most, in order."""
    batches: list[list[int]] = []

    def predict(images: list[int]) -> list[int]:
        batches.append(images)
        time.sleep(0.1)
        return [10 * image for image in images]

    async def ask_for_seven() -> list[int]:
        queue = BatchQueue(predict, batch_size=4, limit=10)
        async with queue.running():
            first = asyncio.create_task(queue.predict(0))
            await asyncio.sleep(0.03)
            return await asyncio.gather(first, *(queue.predict(image) for image in range(1, 7)))

    assert asyncio.run(ask_for_seven()) == [0, 10, 20, 30, 40, 50, 60]
    assert batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_full_queue_and_failing_prediction_reach_the_caller():
    """docs/faults.md row 201. By hand: a limit of two waiting images; a prediction that raises; the queue works on
    after both."""

    def predict(images: list[int]) -> list[int]:
        if -1 in images:
            raise RuntimeError("a bug")
        return images

    async def try_all() -> list[Any]:
        queue = BatchQueue(predict, batch_size=1, limit=2)
        waiting = [asyncio.create_task(queue.predict(image)) for image in (1, -1)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await queue.predict(3)
        async with queue.running():
            found = await asyncio.gather(*waiting, return_exceptions=True)
            return [*found, await queue.predict(4)]

    first, error, last = asyncio.run(try_all())
    assert (first, last) == (1, 4) and isinstance(error, RuntimeError)
