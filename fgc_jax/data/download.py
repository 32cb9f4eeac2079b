"""Downloads of the archives of data sets: continued after an interruption, verified at the end."""

import contextlib
import errno
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request

from fgc_jax import console
from fgc_jax.data import archives

ATTEMPTS = 5  # in a row without a new byte
PAUSE = 2.0  # seconds before the second attempt; doubled for each later one
TIMEOUT = 60.0  # seconds without an answer
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP status codes after which to try again
DROPPED = (http.client.HTTPException, urllib.error.URLError, ConnectionError, ssl.SSLError)
CHUNK = 2**18


def fetch(url, target, *, size: int = 0, md5: str = "", sha256: str = "") -> None:
    """Downloads `url` to the file `target`; size (bytes, 0: unknown) and checksums are verified.

    The download is written to TARGET.part, where the next call continues after an interruption. It
    is renamed to `target` when it is verified. Does nothing if `target` is already the expected
    file. Lost connections are tried again.

    Raises:
        ValueError: the url is not http or https, cannot be downloaded, or sends another file than
            expected; or `target` cannot be written.
    """
    target = os.fspath(target)
    if not re.match(r"https?://[^/]", url):
        raise ValueError(f"{url}: not an http:// or https:// address")
    if os.path.isdir(target):
        raise ValueError(f"{url}: cannot be saved as {target}, which is a folder")
    if os.path.isfile(target):
        archives.verify(target, size=size, md5=md5, sha256=sha256)
        return
    part = f"{target}.part"
    with _naming(url, target), archives.locked(part, target):
        if os.path.isfile(target):  # another process, which held the lock, downloaded it
            os.unlink(part)
            return
        try:
            _download(url, part, size)
        except ValueError:
            if not os.path.getsize(part):
                os.unlink(part)
            raise
        try:
            archives.verify(part, size=size, md5=md5, sha256=sha256)
        except ValueError as error:
            os.unlink(part)
            raise ValueError(f"{url}: {error}") from error
        os.replace(part, target)


def download_archives(wanted, folder) -> tuple[archives.Archive, ...]:
    """Downloads those of the Archives `wanted` that are not in `folder`, packed or unpacked.

    Prints and returns the missing ones that are no longer online. ValueError as in `fetch`.
    """
    folder = os.fspath(folder)
    needed = [archive for archive in wanted if not archives.is_unpacked(archive, folder)]
    for archive in needed:
        if archive.url:
            fetch(archive.url, os.path.join(folder, archive.file), **archive.checks)
    lost = [a for a in needed if not os.path.exists(os.path.join(folder, a.file))]
    for archive in lost:
        checksum = f", md5 {archive.md5}" if archive.md5 else ""
        console.say(f"{archive.file}: not online any more{checksum}; put a copy into {folder}")
    return tuple(lost)


@contextlib.contextmanager
def _naming(url, target):
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{url}: cannot be saved as {target} ({error.strerror or error}); the part that was "
            "downloaded is kept, and the same command continues"
        ) from error


def _download(url, part, size):
    """Continues the file `part` from its end until it is complete."""
    failures = 0
    while True:
        before = os.path.getsize(part)
        try:
            if _receive(url, part, size):
                return
            reason = "the connection was closed early"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in BUSY:
                raise ValueError(
                    f"{url}: the server answers {error.code} ({error.reason}): the file is no "
                    "longer there, or not public"
                ) from error
            reason = f"the server answers {error.code} ({error.reason})"
        except DROPPED as error:
            reason = getattr(error, "reason", None) or error or type(error).__name__
        except TimeoutError:
            reason = f"no answer in {TIMEOUT:.0f} seconds"
        failures = 1 if os.path.getsize(part) > before else failures + 1
        if failures >= ATTEMPTS:
            raise ValueError(
                f"{url}: cannot be downloaded after {ATTEMPTS} attempts ({reason}). Check the "
                f"network; the {os.path.getsize(part):,} bytes received are kept, and the same "
                "command continues"
            )
        time.sleep(PAUSE * 2 ** (failures - 1))


def _receive(url, part, size):
    """Appends one answer of the server to `part`; returns whether `part` is now complete."""
    have = os.path.getsize(part)
    if size and have == size:
        return True
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # There are no more bytes: it is complete, or it is part of another file and starts again.
        error.close()
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return True
        os.truncate(part, 0)
        return False
    with answer, open(part, "ab") as stream:
        span = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        continued = answer.status == 206 and span is not None and int(span[1]) == have
        if not continued:
            stream.truncate(0)
            have = 0
            if answer.status != 200:  # a range that was not requested
                return False
        total = _total(url, answer, have, size)
        _check_space(stream, total - have)
        with archives.progress(f"downloading {os.path.basename(part)[:-5]}", total, have) as show:
            while chunk := answer.read(CHUNK):
                have += len(chunk)
                if total and have > total:
                    raise ValueError(f"{url}: the server sends more than {total:,} bytes")
                stream.write(chunk)
                show(have)
    return not total or have == total


def _total(url, answer, have, size):
    """Bytes of the whole file, 0 if unknown. ValueError if it is not the expected file."""
    if answer.headers.get_content_type() == "text/html":
        raise ValueError(
            f"{url}: the server sends a web page instead of the file (perhaps a log-in page or "
            "a message about a quota)"
        )
    length = answer.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else 0
    if size and total and total != size:
        raise ValueError(
            f"{url}: the server's file has {total:,} bytes, but the official one has {size:,}"
        )
    return size or total


def _check_space(stream, needed):
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(stream.name))).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes are needed, {free:,} are free")


def _opener():
    """Follows redirects to http and https only, and uses the proxies of the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
