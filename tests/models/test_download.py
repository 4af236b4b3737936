"""Downloads of published weights from a local HTTP server that cuts connections and sends wrong files."""

import concurrent.futures
import hashlib
import http.server
import threading
from dataclasses import dataclass, field, replace

import pytest

from vertebra.models.zoo import OFFLINE, PublishedWeights, cached_path, download
from vertebra.structures import CheckpointError

CONTENT = bytes(range(256)) * 4000  # about a megabyte
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


@dataclass
class Server:
    """A server of one file; it cuts the connection after each of ``cuts`` bytes, and records the requests."""

    port: int = 0
    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    supports_ranges: bool = True
    status: int = 200

    def weights(self, sha256: str = DIGEST) -> PublishedWeights:
        """Return the description of the file."""
        return PublishedWeights(f"http://127.0.0.1:{self.port}/folder/model-{sha256}.pth", sha256=sha256)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Return a running server, with an empty torch.hub cache and no waiting between attempts."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("vertebra.models.zoo.cache._WAIT", 0.0)
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested = self.headers.get("Range")
            state.ranges.append(requested)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(requested.removeprefix("bytes=").rstrip("-")) if requested and state.supports_ranges else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)
            self.wfile.flush()

        def log_message(self, *args: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = running.server_port
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield state
    running.shutdown()
    running.server_close()


def test_file_is_downloaded_once(server):
    """Law: the second call finds the file in the cache, under the name that torch.hub would give it."""
    path = download(server.weights())
    assert path == cached_path(server.weights())
    assert path.name == f"model-{DIGEST}.pth" and path.parent.name == "checkpoints"
    assert path.read_bytes() == CONTENT
    assert download(server.weights()) == path
    assert server.ranges == [None]


def test_cut_connection_is_continued(server):
    """By hand: the connection ends twice; each attempt asks for the rest only."""
    server.cuts = [300_000, 200_000]
    assert download(server.weights()).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_later_call_continues_a_download(server):
    """By hand: all attempts of a first call are cut; the next call asks for the rest."""
    server.cuts = [100_000] * 4
    with pytest.raises(
        CheckpointError, match="400000 of 1024000 bytes: download it elsewhere and save it to this path"
    ):
        download(server.weights())
    assert not cached_path(server.weights()).exists()
    assert download(server.weights()).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=400000-"


def test_server_without_ranges_sends_the_file_again(server):
    """By hand: a server that ignores the request for the rest."""
    server.cuts, server.supports_ranges = [300_000], False
    assert download(server.weights()).read_bytes() == CONTENT


def test_stale_partial_file_is_discarded(server):
    """By hand: the partial file is longer than the file on the server."""
    path = cached_path(server.weights())
    path.parent.mkdir(parents=True)
    path.with_name(f"{path.name}.part").write_bytes(CONTENT + b"more")
    assert download(server.weights()).read_bytes() == CONTENT


def test_wrong_digest_is_refused_and_nothing_is_kept(server):
    """By hand: another file than the published one; nothing is left in the cache."""
    weights = server.weights("00000000")
    with pytest.raises(CheckpointError, match=f"SHA256 digest begins with {DIGEST}, not 00000000"):
        download(weights)
    left = {path.name for path in cached_path(weights).parent.iterdir()} - {f"{cached_path(weights).name}.lock"}
    assert not left


def test_md5_is_checked_where_no_other_digest_is_published(server):
    """By hand: detectron2 publishes the first digits of MD5 digests."""
    digest = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()[:6]
    assert download(replace(server.weights(), sha256="", md5=digest)).read_bytes() == CONTENT
    wrong = replace(server.weights("11111111"), sha256="", md5="000000")
    with pytest.raises(CheckpointError, match=f"MD5 digest begins with {digest}, not 000000"):
        download(wrong)


def test_missing_file_is_named_with_address_and_path(server):
    """By hand: the server does not have the file; it is asked once."""
    server.status = 404
    with pytest.raises(CheckpointError) as caught:
        download(server.weights())
    message = str(caught.value)
    assert server.weights().url in message and str(cached_path(server.weights())) in message and "Not Found" in message
    assert len(server.ranges) == 1


def test_offline_asks_no_server(server, monkeypatch):
    """By hand: --offline sets the variable; a file in the cache is still found."""
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(CheckpointError, match=r"not in the cache, and downloads are switched off \(--offline\)"):
        download(server.weights())
    assert server.ranges == []
    path = cached_path(server.weights())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"file")
    assert download(server.weights()) == path


def test_no_server_gives_one_line(tmp_path, monkeypatch):
    """By hand: nothing listens at the address."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("vertebra.models.zoo.cache._WAIT", 0.0)
    with pytest.raises(CheckpointError, match=r"could not be downloaded: .*refused"):
        download(PublishedWeights("http://127.0.0.1:9/model.pth"))


def test_several_callers_share_a_download(server):
    """Law: four callers that want a file at once, as the processes of a machine do, download it once."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(download, [server.weights()] * 4))
    assert paths == {cached_path(server.weights())}
    assert server.ranges == [None]
