"""Archives for tests: honest ones, and one of each kind of damaged and hostile one."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from fgc_jax.data import archives

COMPRESS = {
    ".tar": lambda data: data,
    ".tar.gz": lambda data: gzip.compress(data, mtime=0),
    ".tgz": lambda data: gzip.compress(data, mtime=0),
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
}


def noise(size, seed=0):
    """Bytes that no compression shrinks, like an image's."""
    return np.random.default_rng(seed).bytes(size)


FILES = {
    "birds/classes.txt": b"1 gull\n2 tern\n",
    "birds/images/gull/a.jpg": noise(5000, 1),
    "birds/images/gull/b.jpg": noise(700, 2),
    "birds/images/tern/c.jpg": noise(9000, 3),
    "birds/empty.txt": b"",
    "attributes.txt": b"1 beak\n" * 50,
}


def entry(name, data=b"", **fields):
    """A tar header and its data; `fields` are those of TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_bytes(entries, format=tarfile.PAX_FORMAT):  # noqa: A002 (tarfile's own word)
    """An uncompressed tar file of `entries`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if data else None)
    return stream.getvalue()


def zip_bytes(entries, compression=zipfile.ZIP_DEFLATED):
    """A zip file of `entries`: (name or ZipInfo, data)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return stream.getvalue()


def archive_bytes(suffix, files=None):
    """An honest archive of `files` (path -> bytes) in the format of the suffix."""
    files = FILES if files is None else files
    if suffix == ".zip":
        return zip_bytes(files.items())
    return COMPRESS[suffix](tar_bytes([entry(name, data) for name, data in files.items()]))


def write_archive(path, files=None, suffix=None):
    """Writes an honest archive, with the folders it needs."""
    path = Path(path)
    suffixes = (".zip", *COMPRESS)
    suffix = suffix or max((s for s in suffixes if path.name.endswith(s)), key=len)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive_bytes(suffix, files))
    return path


def pack(folder, target, *names):
    """An archive `target` (.tar, .tgz, .tar.gz, .zip) of what is called `names` in `folder`."""
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(p for name in names for p in (folder / name).rglob("*")):
                archive.write(path, path.relative_to(folder))
        return target
    with tarfile.open(target, "w:gz" if target.name.endswith("gz") else "w") as archive:
        for name in names:
            archive.add(folder / name, name)
    return target


def forget_checksums(monkeypatch):
    """Lets the archives of the sources be miniatures: of any size, with any checksum."""
    monkeypatch.setattr(archives, "verify", lambda path, **expected: None)


def contents(folder):
    """{relative path: bytes, or what it is} of all below a folder but the bookkeeping's record."""
    found = {}
    for below, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(below, name)
            kind = os.lstat(path).st_mode
            relative = os.path.relpath(path, folder)
            if stat.S_ISREG(kind):
                if not name.startswith(".unpacked-"):
                    found[relative] = Path(path).read_bytes()
            elif not stat.S_ISDIR(kind):
                found[relative] = kind
    return found
