"""Downloads from a server on this machine: whole and checked, or not at all."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from acn_lightning.data import Source
from acn_lightning.data.download import Published, download, fetch, missing
from acn_lightning.utils.errors import UsageError

PUBLISHED = {kind: one.published for kind, one in Source.kinds.items() if one.published}
CONTENT = bytes(range(256)) * 2000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path.startswith("/cut"):
            self.wfile.write(CONTENT[:1000])
        elif self.path.startswith("/stall"):
            self.wfile.write(CONTENT[:1000])
            time.sleep(3)
        elif self.path.startswith("/other"):
            self.wfile.write(CONTENT[::-1])
        else:
            self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/"
    yield server
    server.shutdown()


MD5 = hashlib.md5(CONTENT).hexdigest()


def test_fetches_what_is_missing_and_only_that(server, tmp_path, capsys):
    published = Published((server.url,), {"a.gz": MD5, "b.gz": MD5, "c.gz": MD5})
    (tmp_path / "b").write_bytes(b"unpacked already")
    download(published, tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == CONTENT
    assert sorted(server.asked) == ["/a.gz", "/c.gz"]
    assert missing(published, tmp_path) == []
    assert "100%" in capsys.readouterr().err  # progress
    download(published, tmp_path)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("gone", "HTTP status 404"),
        ("cut", "Error|not the published content"),
        ("stall", "ConnectionError|Timeout"),
        ("other", "not the published content"),
    ],
)
def test_a_fault_leaves_no_file_and_names_the_address(server, tmp_path, fault, reason):
    start = time.perf_counter()
    with pytest.raises(UsageError, match=f"{fault}/a.gz: .*({reason})") as error:
        fetch([f"{server.url}{fault}/a.gz"], MD5, tmp_path / "a.gz", stall_seconds=0.5)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert time.perf_counter() - start < 2.5


def test_a_folder_that_nothing_came_to_is_gone_again(server, tmp_path):
    with pytest.raises(UsageError):
        download(Published((f"{server.url}gone/",), {"a.gz": MD5}), tmp_path / "new" / "data")
    assert list(tmp_path.iterdir()) == []


def test_the_next_address_is_tried(server, tmp_path):
    urls = [f"{server.url}gone/a.gz", "http://127.0.0.1:9/a.gz", f"{server.url}a.gz"]
    fetch(urls, MD5, tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == CONTENT


def test_nothing_is_fetched_where_something_else_serves(server, tmp_path):
    published = Published((server.url,), {"a.tar.gz": MD5}, ("a-folder", "b.tar.gz"))
    assert missing(published, tmp_path) == ["a.tar.gz"]
    (tmp_path / "a-folder").mkdir()
    download(published, tmp_path)
    assert server.asked == []


def test_the_published_sets_have_their_files():
    counts = {name: len(published.files) for name, published in PUBLISHED.items()}
    assert counts == {"mnist": 4, "fashion_mnist": 4, "cifar10": 1}
    for published in PUBLISHED.values():
        assert all(len(md5) == 32 for md5 in published.files.values())
        assert all(address.endswith("/") for address in published.addresses)
