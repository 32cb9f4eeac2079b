"""The files in a .tar, .tar.gz, .tar.bz2, .tar.xz or .zip. The archive is not trusted: names, sizes
and headers are checked before they are used."""

import bz2
import contextlib
import dataclasses
import errno
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

RATIO, FLOOR = 100, 2**26  # an archive may hold RATIO times its size + FLOOR bytes
MEMBER_BYTES, MEMBER_FLOOR = 50, 100_000  # and size / MEMBER_BYTES + MEMBER_FLOOR members
MAX_NAME, MAX_PART, MAX_DEPTH = 1000, 255, 32  # bytes, bytes, folders
MAX_HEADER = 2**14  # bytes
SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".zip")
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
BOOKKEEPING = re.compile(r"\.unpack(ing|ed)-")  # files of archives.unpack: forbidden as members


@dataclasses.dataclass(frozen=True)
class Member:
    """A file in an archive: its path with "/", already checked, and its size in bytes.

    `read(n)` returns the next n bytes or fewer, b"" at the end; ValueError if the file is damaged.
    Call it before the next member is read.
    """

    name: str
    size: int
    read: Callable[[int], bytes]


def read(raw: BinaryIO) -> Iterator[Member]:
    """The files of the archive that is open as `raw`, each once, in the order of their bytes.

    The kind of archive is recognised from its bytes, not from its suffix. Folders and the files
    that macOS adds (__MACOSX, ._x, .DS_Store) are left out.

    Raises:
        ValueError: it is not an archive, is damaged or ends early; a member's path leads out of the
            folder; a member is a link or a device, is encrypted, or has the name of another one
            (ignoring case, as some disks do); there are more bytes or members than a real archive
            of this size has (RATIO, MEMBER_BYTES). The message does not name the archive.
    """
    seen = set()  # hashes: iNaturalist has millions of names
    count, most = 0, os.fstat(raw.fileno()).st_size // MEMBER_BYTES + MEMBER_FLOOR
    for name, kind, size, reader in _zipped(raw) if _is_zip(raw) else _tarred(raw):
        count += 1
        if count > most:
            raise ValueError(f"more than {most:,} members, too many for an archive of its size")
        path = _checked_name(name)
        if path is None or kind == "folder":
            continue
        if kind != "file":
            raise ValueError(f"member {name!r} is {kind}; only files and folders are unpacked")
        key = hash(path.casefold())
        if key in seen:
            raise ValueError(f"two members have the name {name!r} (ignoring case)")
        seen.add(key)
        yield Member(path, size, reader)
    if not seen:
        raise ValueError("it contains no files")


def least_size(raw: BinaryIO) -> int:
    """The least number of bytes that the members take: as declared (zip), or the size of the
    archive, because compression hardly shrinks images."""
    if _is_zip(raw):
        with _parsing("its list of members"):
            claimed = sum(info.file_size for info in zipfile.ZipFile(raw).infolist())
        return min(claimed, _limit(raw))
    return os.fstat(raw.fileno()).st_size


def _checked_name(name):
    """The member's path without "." and "//"; None if the member is skipped."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    refused = (
        (not name or re.search(r"[\x00-\x1f\x7f]", name), "is empty or has control characters"),
        (name.startswith("/") or re.match("[A-Za-z]:", name), "is an absolute path"),
        ("\\" in name, "contains a backslash"),
        (".." in parts, "leads out of the folder"),
        (_length(name) > MAX_NAME, f"is longer than {MAX_NAME} bytes"),
        (len(parts) > MAX_DEPTH, f"has more than {MAX_DEPTH} folders"),
        (any(_length(part) > MAX_PART for part in parts), f"has a part over {MAX_PART} bytes"),
        (any(BOOKKEEPING.match(part) for part in parts[:1]), "is reserved for unpacking"),
    )
    for wrong, reason in refused:
        if wrong:
            shown = name if len(name) <= 80 else name[:80] + "..."
            raise ValueError(f"the name of member {shown!r} {reason}")
    if not parts or "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store":
        return None
    return "/".join(parts)


def _length(name):
    return len(name.encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def _parsing(what):
    """Turns every error of the standard library's parsers on damaged bytes into a ValueError."""
    try:
        yield
    except Exception as error:
        # EINVAL: the archive made the parser seek to a wrong place. Others are errors of the disk.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = str(error) or type(error).__name__
        raise ValueError(f"{what} cannot be read ({reason})") from error


def _limit(raw):
    return RATIO * os.fstat(raw.fileno()).st_size + FLOOR


def _is_zip(raw):
    raw.seek(0)
    return raw.read(4) in (b"PK\3\4", b"PK\5\6")


def _zipped(raw):
    """(name, kind, size, read) of each member."""
    with _parsing("its list of members"):
        archive = zipfile.ZipFile(raw)
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    counted = _counted(raw)
    if counted not in (len(infos) % 2**16, 2**16 - 1):  # the latter if the number is larger
        raise ValueError(
            f"its list of members is damaged: it has {len(infos):,} members instead of {counted:,}"
        )
    total, limit = sum(info.file_size for info in infos), _limit(raw)
    if total > limit:
        raise ValueError(f"its members claim {total:,} bytes, more than the {limit:,} allowed")
    for info in infos:
        name = info.orig_filename
        kind = _zip_kind(info)
        if kind != "file":
            yield name, kind, 0, None
            continue
        with _parsing(f"member {name!r}"):
            file = archive.open(info)
        with file:
            yield name, kind, info.file_size, _reader(name, file.read)


def _counted(raw):
    """The number of members stated at the end of a zip file, which Python's parser ignores."""
    raw.seek(max(0, os.fstat(raw.fileno()).st_size - 2**16 - 22))
    end = raw.read()
    return int.from_bytes(end[end.rindex(b"PK\5\6") + 10 :][:2], "little")


def _zip_kind(info):
    if info.flag_bits & 0x1:
        return "encrypted"
    if info.is_dir():
        return "folder"
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode not in (0, stat.S_IFREG):
        return "a link" if mode == stat.S_IFLNK else "a device or the like"
    # Python limits the memory for inflating, but not the memory for bzip2 and LZMA.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {info.compress_type} (neither stored nor deflated)"
    return "file"


def _tarred(raw):
    """(name, kind, size, read) of each member.

    Reads the headers one by one: TarFile.next treats a damaged header as the end of the archive,
    and keeps all headers in memory.
    """
    raw.seek(0)
    start = raw.read(6)
    opener = next((open_ for magic, open_ in OPENERS.items() if start.startswith(magic)), None)
    raw.seek(0)
    stream = _Stream(opener(raw) if opener else raw, _limit(raw))
    if not opener:
        _check_tar(start, raw)
    member = None
    with _parsing("its first member"):
        tar = tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape")
        member = tar.firstmember
    while member is not None:
        name, left = member.name, member.size
        if left < 0:
            raise ValueError(f"member {name!r} claims {left} bytes")
        kind = _tar_kind(member)
        if kind == "file" and stream.tell() + left > stream.limit:
            raise ValueError(
                f"member {name!r} claims {left:,} bytes, more than the {stream.limit:,} allowed"
            )
        yield name, kind, left, _reader(name, _bounded(stream, left))
        with _parsing(f"what follows member {name!r}"):
            stream.seek(tar.offset)
            member = _next_header(tar, opener)
    if opener:
        with _parsing("its end"):
            while stream.take(2**20):  # up to the checksum
                pass


def _check_tar(start, raw):
    """ValueError, which says what the file is, if it is not a tar archive."""
    size = os.fstat(raw.fileno()).st_size
    if start.lstrip()[:1] == b"<":
        raise ValueError("it is a web page or XML, not an archive: the download went wrong")
    block = raw.read(tarfile.BLOCKSIZE)
    raw.seek(0)
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if not any(block) and size:
            raise ValueError("it begins with zeros and contains no files") from error
        raise ValueError(f"it is not a tar or zip archive ({size:,} bytes; {error})") from error


def _next_header(tar, compressed):
    try:
        return tarfile.TarInfo.fromtarfile(tar)
    except tarfile.EOFHeaderError:
        return None
    except tarfile.EmptyHeaderError:
        if compressed:  # the checksum at the end of the stream says whether it is complete
            return None
        raise ValueError("it ends early") from None


def _tar_kind(member):
    if member.issparse():
        return "a sparse file"
    if member.isreg():
        return "file"
    if member.isdir():
        return "folder"
    return "a link" if member.issym() or member.islnk() else "a device or the like"


def _bounded(stream, left):
    def take(size):
        nonlocal left
        data = stream.take(min(size, left))
        if not data and left:
            raise EOFError(f"it ends early, {left:,} bytes of the member are missing")
        left -= len(data)
        return data

    return take


def _reader(name, take):
    def read_checked(size):
        with _parsing(f"member {name!r}"):
            return take(size)

    return read_checked


class _Stream:
    """The stream that tarfile reads: forwards only, with a limit for the size of a header."""

    def __init__(self, source, limit):
        self.limit = limit
        self._source, self._position = source, 0

    def take(self, size):
        data = self._source.read(size)
        self._position += len(data)
        if self._position > self.limit:
            raise ValueError(f"it contains more than the {self.limit:,} bytes allowed")
        return data

    def read(self, size):
        if not 0 <= size <= MAX_HEADER:
            raise ValueError(f"it has a header of {size:,} bytes")
        data = self.take(size)
        # Python before 3.11.10 takes quadratic time over these (CVE-2024-6232).
        if size > tarfile.BLOCKSIZE and re.search(rb"\d{400}", data):
            raise ValueError("it has a header with a number of 400 digits")
        return data

    def tell(self):
        return self._position

    def seek(self, position):
        while self._position < position:
            if not self.take(min(position - self._position, 2**20)):
                raise EOFError("it ends early")
