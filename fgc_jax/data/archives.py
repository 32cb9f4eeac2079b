"""Archives of data sets: verifying and unpacking them. Hostile, damaged or half-unpacked archives
are never used as data."""

import contextlib
import dataclasses
import errno
import fcntl
import filecmp
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator

from fgc_jax import console, files
from fgc_jax.data import members

CHUNK = 2**20
LONG = 2**26  # bytes; smaller files get no progress bar


@dataclasses.dataclass(frozen=True)
class Archive:
    """An official file of a data set: an archive, or a file that needs no unpacking.

    `creates`: a path that exists after unpacking, relative to the data root. `url` "": it is no
    longer online.
    """

    file: str
    size: int  # bytes, 0: unknown
    creates: str
    url: str = ""
    md5: str = ""
    sha256: str = ""

    @property
    def is_packed(self) -> bool:
        return self.file.lower().endswith(members.SUFFIXES)

    @property
    def checks(self) -> dict:
        """The keywords of `verify`."""
        return {"size": self.size, "md5": self.md5, "sha256": self.sha256}


def is_unpacked(archive: Archive, root: str) -> bool:
    """Whether all files of `archive` are in `root`."""
    return os.path.exists(os.path.join(root, archive.creates)) and not is_moving(archive, root)


def is_moving(archive: Archive, root: str) -> bool:
    """Whether `archive` is completely unpacked, but some files are not yet in their final place."""
    return os.path.exists(os.path.join(_work(archive.file, root), "complete"))


def begin(archive: Archive, root: str) -> None:
    """Records on disk that `archive` will be unpacked, so that this is known even if the process is
    killed before it starts. OSError if that cannot be written."""
    os.makedirs(_work(archive.file, root), exist_ok=True)


def is_begun(archive: Archive, root: str) -> bool:
    """Whether `begin` was called for `archive`, and `unpack` has not finished it yet."""
    return os.path.isdir(_work(archive.file, root))


def unpack(path, folder, *, size: int = 0, md5: str = "", sha256: str = "") -> None:
    """Unpacks the archive at `path` into `folder`, after checking its size and checksums, if given.

    Everything is first unpacked into a hidden folder inside `folder`, then moved. After an
    interruption the next call continues; a second process waits for the first. Existing files are
    replaced only if a checksum was given. Does nothing if this archive was unpacked there before.

    Raises:
        ValueError: the archive is not the expected one, is damaged or hostile (see members.read),
            `folder` cannot be written, or other files are in the way. The message names the
            archive and the member.
    """
    path, folder = os.fspath(path), os.fspath(folder)
    work = _work(path, folder)
    unpacked, complete = os.path.join(work, "files"), os.path.join(work, "complete")
    if not os.path.isfile(path) and not os.path.exists(complete):
        raise ValueError(f"{path}: no such file")
    with _naming(path, folder), locked(os.path.join(work, "lock"), path):
        if not os.path.exists(complete):
            if _is_done(path, folder):
                _remove(work)
                return
            try:
                _prepare(path, work, size=size, md5=md5, sha256=sha256)
                _write_files(path, unpacked)
            except ValueError:
                _remove(work)
                raise
            files.write_json(complete, {**_identity(path), "tops": sorted(os.listdir(unpacked))})
        _refuse_obstacles(unpacked, folder, replace=bool(md5 or sha256))
        _merge(unpacked, folder)
        os.replace(complete, _done(path, folder))
        _remove(work)


def verify(path, *, size: int = 0, md5: str = "", sha256: str = "") -> None:
    """Raises ValueError unless the file has this size in bytes and this checksum, if they are
    given. The message says what was expected, what was found and what to do."""
    found = os.path.getsize(path)
    if size and found != size:
        what = "the download is incomplete" if found < size else "it is another file"
        raise ValueError(
            f"{path}: {found:,} bytes, but the official file has {size:,}: {what}; download it "
            "again"
        )
    kind, expected = ("sha256", sha256) if sha256 else ("md5", md5)
    if expected and (digest := checksum(path, kind)) != expected.lower():
        raise ValueError(
            f"{path}: its {kind} is {digest}, but the official file has {expected}: the download "
            "is damaged, or it is another file with that name; download it again"
        )


def checksum(path, kind: str) -> str:
    """The hexadecimal md5 or sha256 of a file."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with (
        open(path, "rb") as stream,
        progress(f"checking {os.path.basename(path)}", os.path.getsize(path)) as show,
    ):
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            show(stream.tell())
    return digest.hexdigest()


@contextlib.contextmanager
def progress(what: str, total: int, initial: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar of `total` bytes if they are many; yields a function that sets the
    position."""
    if total - initial < LONG:
        yield lambda position: None
        return
    with console.progress(what, total, initial, unit="B") as bar:
        yield lambda position: bar.update(position - bar.n)


@contextlib.contextmanager
def locked(path: str, what: str) -> Iterator[None]:
    """Holds the lock file `path`, which its holder may remove; waits while another process holds
    it. `what` is named in the message about waiting."""
    while True:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        try:
            stream = open(path, "ab")  # noqa: SIM115 (closed below)
        except FileNotFoundError:  # the holder removed the folder in between
            continue
        with stream:
            _lock(stream, what)
            if _is_at(stream, path):
                yield
                return


def _is_at(stream, path):
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(stream, what):
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        console.say(f"{what}: waiting, because another process is using it")
        fcntl.flock(stream, fcntl.LOCK_EX)
    except OSError as error:
        # Some network disks have no locks; without them a single process still works.
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise


def _work(path, folder):
    return os.path.join(folder, f".unpacking-{os.path.basename(path)}")


def _remove(work):
    """Removes the folder, and in it the lock last: once the lock is gone, another process may
    create a new one in the same folder."""
    for name in sorted(os.listdir(work), key="lock".__eq__):
        path = os.path.join(work, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    with contextlib.suppress(OSError):
        os.rmdir(work)


def _done(path, folder):
    return os.path.join(folder, f".unpacked-{os.path.basename(path)}")


@contextlib.contextmanager
def _naming(path, folder):
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be unpacked into {folder} ({error.strerror or error}; "
            f"{error.filename or 'while reading or writing'}); correct that, then the same "
            "command continues"
        ) from error


def _prepare(path, work, **expected):
    """Verifies the archive, unless that was done before an interruption."""
    checked = {**_identity(path), **expected}
    if _read_json(os.path.join(work, "state")) == checked:
        return
    shutil.rmtree(os.path.join(work, "files"), ignore_errors=True)
    verify(path, **expected)
    files.write_json(os.path.join(work, "state"), checked)


def _write_files(path, files):
    part = os.path.join(os.path.dirname(files), "part")
    with (
        open(path, "rb") as raw,
        progress(f"unpacking {os.path.basename(path)}", os.path.getsize(path)) as show,
    ):
        try:
            _check_space(path, members.least_size(raw), files)
            for member in members.read(raw):
                _write(member, os.path.join(files, member.name), part)
                show(raw.tell())
        except ValueError as error:
            raise ValueError(
                f"{path}: {error}. Nothing was unpacked; download the archive again"
            ) from error


def _check_space(path, needed, files):
    there = sum(
        os.lstat(os.path.join(below, name)).st_size
        for below, _, names in os.walk(files)
        for name in names
    )
    free = shutil.disk_usage(os.path.dirname(files)).free
    if needed - there > free:
        raise OSError(
            errno.ENOSPC,
            f"{needed - there:,} bytes are needed, {free:,} are free",
            os.path.dirname(os.path.dirname(files)),
        )


def _write(member, target, part):
    """Writes a file under another name and then renames it, so that it is never incomplete."""
    try:
        if os.path.getsize(target) == member.size and os.path.isfile(target):
            return
    except (FileNotFoundError, NotADirectoryError):
        pass
    written = 0
    with open(part, "wb") as stream:
        while chunk := member.read(CHUNK):
            stream.write(chunk)
            written += len(chunk)
    if written != member.size:
        raise ValueError(f"member {member.name!r} claims {member.size:,} bytes and has {written:,}")
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(part, target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ValueError(
            f"member {member.name!r} is both a file and a folder, or is inside a file"
        ) from error


def _refuse_obstacles(source, folder, *, replace):
    """ValueError if something in `folder` prevents moving the files of `source` there: a link, a
    file instead of a folder or the reverse, or, unless `replace`, a file with other content."""
    for entry in _sorted(source):
        target = os.path.join(folder, entry.name)
        if not os.path.lexists(target):
            continue
        if os.path.islink(target) or os.path.isdir(target) != entry.is_dir():
            raise ValueError(
                f"{target} is in the way of the unpacked files: it is a link, a file instead of a "
                "folder, or a folder instead of a file; move it, then run the same command again"
            )
        if entry.is_dir():
            _refuse_obstacles(entry.path, target, replace=replace)
        elif not replace and not filecmp.cmp(entry.path, target, shallow=False):
            raise ValueError(
                f"{target} is in the way of the unpacked files: it has other content, and an "
                "archive without a checksum replaces no file; move it, then run the same command "
                "again"
            )


def _merge(source, folder):
    """Moves everything in `source` into `folder`."""
    for entry in _sorted(source):
        target = os.path.join(folder, entry.name)
        if entry.is_dir() and os.path.isdir(target):
            _merge(entry.path, target)
        else:
            os.replace(entry.path, target)


def _sorted(folder):
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _identity(path):
    found = os.stat(path)
    return {"bytes": found.st_size, "modified": found.st_mtime_ns}


def _is_done(path, folder):
    done = _read_json(_done(path, folder))
    same = done.items() >= _identity(path).items()
    return same and all(os.path.lexists(os.path.join(folder, top)) for top in done.get("tops", []))


def _read_json(path):
    try:
        value = files.read_json(path)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
