"""Downloads from a server of the test's own, which drops, refuses and lies as it is told."""

import dataclasses
import hashlib
import http.server
import re
import threading

import pytest

from fgc_jax.data import archives, download
from tests import data_archives

DATA = data_archives.noise(300_000)
MD5 = hashlib.md5(DATA).hexdigest()
GOOD = {"size": len(DATA), "md5": MD5}


class Handler(http.server.BaseHTTPRequestHandler):
    """The last part of the path is how it behaves."""

    def do_GET(self):
        manner, wanted = self.path.rsplit("/", 1)[-1], self.headers.get("Range")
        self.server.asked.append((manner, wanted))
        if manner.isdecimal():
            return self.answer(int(manner), b"sorry", {})
        if manner == "busy" and len(self.server.asked) < 3:
            return self.answer(503, b"later", {})
        if manner.startswith("to-"):
            schemes = {"to-ftp": "ftp://localhost/x", "to-file": "file:///etc/hostname"}
            place = schemes.get(manner, manner.removeprefix("to-"))
            return self.answer(302, b"", {"Location": place})
        if manner == "page":
            return self.answer(200, b"<html>log in", {"Content-Type": "text/html; charset=utf-8"})
        if manner == "wrong":
            return self.answer(200, DATA[::-1], {})
        if manner == "longer":
            return self.answer(200, DATA + b"x", {})
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if manner == "whole":  # knows no ranges
            return self.answer(200, DATA, {}, most=100_000 if len(self.server.asked) == 1 else None)
        if manner == "lying":  # another part than asked for
            span = {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}
            return self.answer(206, DATA[5:], span) if wanted else self.answer(200, DATA, {})
        if manner == "endless":
            return self.answer(200, DATA + DATA, {"Content-Length": None})
        if manner == "short":  # never gets beyond 100,000
            most = max(0, 100_000 - start)
        else:
            most = 100_000 if manner == "drop" else None
        if start >= len(DATA):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(DATA)}"})
        if not start:
            return self.answer(200, DATA, {}, most)
        span = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"}
        return self.answer(206, DATA[start:], span, most)

    def answer(self, status, data, headers, most=None):
        self.send_response(status)
        fields = {"Content-Length": str(len(data)), "Content-Type": "application/gzip", **headers}
        for name, value in fields.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:most])

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("manner", ["plain", "drop", "whole", "busy", "to-/plain"])
@pytest.mark.parametrize("expected", [{}, GOOD])
def test_the_file_arrives(server, tmp_path, manner, expected):
    target = tmp_path / "new" / "birds.tgz"
    download.fetch(f"{server.url}/{manner}", target, **expected)
    assert target.read_bytes() == DATA
    assert [path.name for path in target.parent.iterdir()] == ["birds.tgz"]


def test_a_dropped_download_goes_on_where_it_was(server, tmp_path):
    download.fetch(f"{server.url}/drop", tmp_path / "a", **GOOD)
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_part_of_an_earlier_process_is_continued(server, tmp_path):
    (tmp_path / "a.part").write_bytes(DATA[:1234])
    download.fetch(f"{server.url}/plain", tmp_path / "a", **GOOD)
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.asked == [("plain", "bytes=1234-")]


@pytest.mark.parametrize("expected", [{}, GOOD])
def test_a_part_that_was_complete_is_taken(server, tmp_path, expected):
    (tmp_path / "a.part").write_bytes(DATA)
    download.fetch(f"{server.url}/plain", tmp_path / "a", **expected)
    assert (tmp_path / "a").read_bytes() == DATA
    assert len(server.asked) == (0 if expected else 1)


def test_another_range_than_asked_for_is_not_appended(server, tmp_path):
    (tmp_path / "a.part").write_bytes(DATA[:1234])
    download.fetch(f"{server.url}/lying", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_part_that_is_longer_than_the_file_is_begun_anew(server, tmp_path):
    (tmp_path / "a.part").write_bytes(DATA + b"more")
    download.fetch(f"{server.url}/plain", tmp_path / "a", **GOOD)
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_part_of_another_file_is_noticed_and_removed(server, tmp_path):
    (tmp_path / "a.part").write_bytes(b"x" * 1234)
    with pytest.raises(ValueError, match=f"a.part: its md5 is .* {MD5}"):
        download.fetch(f"{server.url}/plain", tmp_path / "a", **GOOD)
    assert not list(tmp_path.iterdir())
    download.fetch(f"{server.url}/plain", tmp_path / "a", **GOOD)


def test_what_is_there_is_verified_and_kept(server, tmp_path):
    (tmp_path / "a").write_bytes(DATA)
    download.fetch(f"{server.url}/plain", tmp_path / "a", **GOOD)
    assert not server.asked
    (tmp_path / "a").write_bytes(DATA[:-1] + b"x")
    with pytest.raises(ValueError, match=f"a: its md5 is .* {MD5}"):
        download.fetch(f"{server.url}/plain", tmp_path / "a", **GOOD)
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("manner", "message", "attempts"),
    [
        ("404", "answers 404 .*no longer there", 1),
        ("403", "answers 403", 1),
        ("410", "answers 410", 1),
        ("500", "after 5 attempts .*answers 500", 5),
        ("503", "after 5 attempts .*answers 503", 5),
        ("page", "sends a web page", 1),
        ("wrong", f"its md5 is .* official file has {MD5}", 1),
        ("longer", "the server's file has 300,001 bytes, but the official one has 300,000", 1),
        ("endless", "sends more than 300,000", 1),
        ("short", "closed early.* 100,000 bytes received are kept", 5),
        ("to-ftp", "cannot be downloaded after 5 attempts .*ftp", 5),
        ("to-file", "answers 302", 1),
    ],
)
def test_what_cannot_be_had_is_one_error(server, tmp_path, manner, message, attempts):
    url = f"{server.url}/{manner}"
    with pytest.raises(ValueError, match=f"^{re.escape(url)}: .*{message}"):
        download.fetch(url, tmp_path / "a", **GOOD)
    assert len(server.asked) == attempts
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "a.part").exists() == (manner in ("short", "endless"))


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    with pytest.raises(ValueError, match=r"after 5 attempts .*Check the network"):
        download.fetch("http://127.0.0.1:9/a.tgz", tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/a", "data:,a", "a.tgz", ""])
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(ValueError, match="not an http:// or https:// address"):
        download.fetch(url, tmp_path / "a")


def test_no_room(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("", (), {"free": 10}))
    with pytest.raises(ValueError, match="cannot be saved as .*300,000 bytes are needed, 10 are"):
        download.fetch(f"{server.url}/plain", tmp_path / "a")


def test_a_folder_in_the_way(server, tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="which is a folder"):
        download.fetch(f"{server.url}/plain", tmp_path / "a")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be saved as"):
        download.fetch(f"{server.url}/plain", tmp_path / "file" / "a")
    assert not server.asked


def test_two_at_once_load_it_once(server, tmp_path):
    def get():
        download.fetch(f"{server.url}/drop", tmp_path / "a", **GOOD)

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() == DATA
    assert len(server.asked) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_archives_are_loaded_or_named(server, tmp_path, capsys):
    first = archives.Archive("a.tgz", creates="a", url=f"{server.url}/plain", **GOOD)
    lost = archives.Archive("lost.tgz", 0, "lost", md5="0123")
    copied = dataclasses.replace(lost, file="copied.tgz")
    there = archives.Archive("c.tgz", 0, "c", f"{server.url}/404")
    (tmp_path / "c").mkdir()
    (tmp_path / "copied.tgz").write_bytes(b"")
    assert download.download_archives((first, lost, copied, there), tmp_path) == (lost,)
    assert (tmp_path / "a.tgz").read_bytes() == DATA
    assert "lost.tgz: not online any more, md5 0123" in capsys.readouterr().out
