"""Where the files of a data set are: found below the data root, or unpacked there from the
archives that lie in it."""

import itertools
import os

from fgc_jax import console
from fgc_jax.data import archives as archives_module
from fgc_jax.data import members

DEPTH = 2  # folders below the root that are searched


def find(name, root, archives, marker, *, note="") -> str:
    """The folder that holds `marker`: `root`, or one up to two levels below it.

    name: the data set's, for people. marker: a relative path, file or folder, or a tuple of
    alternatives. Where it is missing, the `archives` (official files of this data set) that lie in
    `root` are unpacked there; a `root` that is itself an archive is unpacked beside itself, without
    checksum into a folder of its own name if it does not bear an official one. What an interrupted
    process began is continued.

    ValueError where it is still missing (what is missing where; what to get from where, how large,
    with which checksum; the licence `note`; where to put it), or an archive is refused.
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
            _begin(home, archive)  # the next call must not pass it over
            raise
        found = None
    # Further folders last: another data set's files may bear the marker's name.
    found = found or _first(itertools.chain(_near(home, archives), _below(home)), markers)
    if found is None:
        wanted = " or ".join(markers)
        raise missing(f"no {wanted} in {home} or up to {DEPTH} folders below")
    return found


def unpacked(root, archive) -> bool:
    """Whether the files of `archive` are in the folder `root`; unpacks it if it lies there.

    ValueError where the archive is refused.
    """
    home = os.path.dirname(os.path.abspath(root)) if os.path.isfile(root) else root
    if _lies(home, archive) and not archives_module.is_unpacked(archive, home):
        _unpack(home, archive)
    return archives_module.is_unpacked(archive, home)


def _first(folders, markers):
    """The first folder that holds a marker, or None."""
    for folder in folders:
        if any(os.path.exists(os.path.join(folder, marker)) for marker in markers):
            return folder
    return None


def _near(home, archives):
    """The root, and where the archives lead."""
    yield home
    for archive in archives:
        below = os.path.join(archive.into, archive.creates)
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
    """What to unpack, all noted as begun, so that a killed process does not leave the later ones
    out because the first brought the marker."""
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
            "unpack it elsewhere and give that folder as data.root"
        ) from error


def _unpack(home, archive):
    archives_module.unpack(
        os.path.join(home, archive.file),
        os.path.join(home, archive.into),
        size=archive.size,
        md5=archive.md5,
        sha256=archive.sha256,
    )


def _unpack_unknown(path, missing):
    """The folder beside `path` that it is unpacked into."""
    suffix = next((s for s in members.SUFFIXES if path.lower().endswith(s)), None)
    if suffix is None:
        raise missing("it is a file, neither a folder nor an archive")
    folder = os.path.abspath(path)[: -len(suffix)]
    if not os.path.isdir(folder):
        console.say(f"{path} bears no official name: unpacked unverified, into {folder}")
    archives_module.unpack(path, folder)
    return folder


def _missing(problem, archives, note):
    lines = [problem, "Get"]
    for archive in archives:
        facts = [_size(archive.size)] if archive.size else []
        facts += [f"md5 {archive.md5}"] if archive.md5 else []
        facts += [f"sha256 {archive.sha256}"] if archive.sha256 and not archive.md5 else []
        facts += [] if archive.url else ["no public download: ask for it, or for a copy"]
        lines.append(f"     {archive.url or archive.file}")
        lines += [f"         ({', '.join(facts)})"] if facts else []
    lines += [f"({note})"] if note else []
    lines.append(
        "and put them into a folder, as they are or unpacked; then  --config.data.root=FOLDER"
    )
    return "\n".join(lines)


def _size(count):
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count} bytes"
