"""Finds the files of a data set in the data root, or unpacks them from the archives there."""

import itertools
import os

from fgc_jax import console
from fgc_jax.data import archives as archives_module
from fgc_jax.data import members

DEPTH = 2  # levels of sub-folders of the root that are searched


def find(name, root, archives, marker, *, note="") -> str:
    """The folder that contains `marker`: `root`, or a sub-folder up to two levels deep.

    name: the data set's, for messages. marker: a relative path, file or folder, or a tuple of
    alternatives. If it is missing, the `archives` (official files of this data set) in `root` are
    unpacked there. A `root` that is itself an archive is unpacked beside itself; if its name is not
    an official one, without a checksum and into a folder with its name. An interrupted unpacking is
    continued.

    Raises:
        ValueError: the marker is still missing, or an archive is refused. The message names the
            missing files with their addresses, sizes and checksums, the licence `note`, and the
            place to put them.
    """
    root = os.fspath(root or "")
    markers = (marker,) if isinstance(marker, str) else tuple(marker)

    def missing(reason):
        shown = root or "the data root (data.root)"
        return ValueError(_missing(f"{shown}: {name} is not there ({reason}).", archives, note))

    if not root:
        raise missing("it is not set")
    if not os.path.exists(root):
        raise missing("no such folder")
    home, archives_here = os.fspath(root), archives
    if os.path.isfile(root):
        official = [a for a in archives if a.file == os.path.basename(root)]
        home = os.path.dirname(os.path.abspath(root))
        archives_here = official
        if not official:
            home = _unpack_unknown(root, missing)
    found = _first(_near(home, archives), markers)
    for archive in _to_unpack(home, archives_here, found):
        try:
            _unpack(home, archive)
        except ValueError:
            _begin(home, archive)  # so that the next call does not skip it
            raise
        found = None
    # Other folders last: files of another data set may have the name of the marker.
    found = found or _first(itertools.chain(_near(home, archives), _below(home)), markers)
    if found is None:
        wanted = " or ".join(markers)
        raise missing(f"no {wanted} in {home} or up to {DEPTH} folders below")
    return found


def unpacked(root, archive) -> bool:
    """Whether the files of `archive` are in the folder `root`; unpacks the archive if it is there.

    Raises:
        ValueError: the archive is refused.
    """
    home = os.path.dirname(os.path.abspath(root)) if os.path.isfile(root) else root
    if _lies(home, archive) and not archives_module.is_unpacked(archive, home):
        _unpack(home, archive)
    return archives_module.is_unpacked(archive, home)


def _first(folders, markers):
    """The first folder that contains a marker, or None."""
    for folder in folders:
        if any(os.path.exists(os.path.join(folder, marker)) for marker in markers):
            return folder
    return None


def _near(home, archives):
    """The root and the folders that the archives create."""
    yield home
    for archive in archives:
        below = archive.creates
        while below:
            yield os.path.join(home, below)
            below = os.path.dirname(below)


def _below(home):
    level = [home]
    for _ in range(DEPTH):
        level = [folder for above in level for folder in _folders(above)]
        yield from level


def _folders(above):
    try:
        with os.scandir(above) as entries:
            return sorted(e.path for e in entries if e.is_dir() and not e.name.startswith("."))
    except PermissionError:
        return []


def _lies(home, archive):
    return archive.is_packed and os.path.isfile(os.path.join(home, archive.file))


def _to_unpack(home, archives, found):
    """The archives to unpack, all recorded as begun. Without the record, a call after a kill would
    skip the later ones, because the first created the marker."""
    chosen = [
        archive
        for archive in archives
        if archive.is_packed
        and (
            archives_module.is_begun(archive, home)
            or (not found and not archives_module.is_unpacked(archive, home))
        )
        and (_lies(home, archive) or archives_module.is_moving(archive, home))
    ]
    for archive in chosen:
        _begin(home, archive)
    return chosen


def _begin(home, archive):
    try:
        archives_module.begin(archive, home)
    except OSError as error:
        raise ValueError(
            f"{os.path.join(home, archive.file)}: cannot be unpacked there ({error.strerror}): "
            "unpack it in another folder and set data.root to that folder"
        ) from error


def _unpack(home, archive):
    archives_module.unpack(os.path.join(home, archive.file), home, **archive.checks)


def _unpack_unknown(path, missing):
    """Unpacks the archive `path` into a folder beside it and returns that folder."""
    suffix = next((s for s in members.SUFFIXES if path.lower().endswith(s)), None)
    if suffix is None:
        raise missing("it is neither a folder nor an archive")
    folder = os.path.abspath(path)[: -len(suffix)]
    if not os.path.isdir(folder):
        console.say(f"{path} has no official name: unpacked into {folder} without a checksum")
    archives_module.unpack(path, folder)
    return folder


def _missing(problem, archives, note):
    lines = [problem, "Get"]
    for archive in archives:
        facts = [_size(archive.size)] if archive.size else []
        facts += [f"md5 {archive.md5}"] if archive.md5 else []
        facts += [f"sha256 {archive.sha256}"] if archive.sha256 and not archive.md5 else []
        facts += [] if archive.url else ["not online: ask the authors, or find a copy"]
        lines.append(f"     {archive.url or archive.file}")
        lines += [f"         ({', '.join(facts)})"] if facts else []
    lines += [f"({note})"] if note else []
    lines.append("and put them into a folder, packed or unpacked; then  --config.data.root=FOLDER")
    return "\n".join(lines)


def _size(count):
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count} bytes"
