"""An archive of each kind of damaged and hostile one: `kinds()`.

`{kind: (file name, bytes, what the error says)}`; made for tests that let archives hold 2,000,000
bytes more than 100 times their own size.
"""

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile

from tests.data_archives import archive_bytes, entry, noise, tar_bytes, zip_bytes

COMPRESS = {".tgz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}
BIG = bytes(8_000_000)
EVIL = "/tmp/fgc_jax_evil"  # must never come to be
GOOD = entry("birds/a.jpg", noise(3000))
NAMES = {
    "absolute": (EVIL, "absolute"),
    "parent": ("../evil", "leads out"),
    "deep parent": ("birds/../../evil", "leads out"),
    "harmless parent": ("birds/../classes.txt", "leads out"),
    "parent folder": ("../evil/", "leads out"),
    "drive": ("C:/evil", "absolute"),
    "drive alone": ("c:evil", "absolute"),
    "backslash": ("..\\evil", "backslash"),
    "share": ("\\\\host\\evil", "backslash"),
    "newline": ("a\nb", "control characters"),
    "escape code": ("a\x1b[2Jb", "control characters"),
    "long": ("/".join(["n" * 200] * 6), "longer than 1000 bytes"),
    "long part": ("n" * 256, "over 255 bytes"),
    "long unicode part": ("\N{BIRD}" * 64, "over 255 bytes"),
    "deep": ("d/" * 33 + "x", "more than 32 folders"),
    "bookkeeping": (".unpacking-x.tgz/complete", "is reserved"),
    "record": (".unpacked-x.tgz", "is reserved"),
}
LINKS = {
    "link out": ("../..", tarfile.SYMTYPE),
    "absolute link": (EVIL, tarfile.SYMTYPE),
    "link inside": ("birds/a.jpg", tarfile.SYMTYPE),
    "hard link inside": ("birds/a.jpg", tarfile.LNKTYPE),
    "hard link out": ("/etc/passwd", tarfile.LNKTYPE),
}
DEVICES = {
    "fifo": tarfile.FIFOTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "unknown type": b"Z",
}
MODES = {
    "link": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "device": stat.S_IFBLK,
    "socket": stat.S_IFSOCK,
}
STARTS = {
    "nothing": b"",
    "text": b"not an archive\n" * 99,
    "random": noise(9999, 9),
    "zeros": bytes(10240),
    "few zeros": bytes(100),
    "picture": b"\x89PNG\r\n\x1a\n" + noise(999),
    "rar": b"Rar!\x1a\x07\x00" + noise(999),
    "7z": b"7z\xbc\xaf\x27\x1c" + noise(999),
    "gzip of text": gzip.compress(b"text" * 999),
    "gzip of nothing": gzip.compress(b""),
    "gzip of gzip": gzip.compress(archive_bytes(".tgz")),
    "gzip of zip": gzip.compress(archive_bytes(".zip")),
    "gzip magic alone": b"\x1f\x8b",
    "xz magic alone": b"\xfd7zXZ\0",
    "zip magic alone": b"PK\3\4",
    "empty tar": tar_bytes([]),
    "empty zip": zip_bytes([]),
    "folders alone": tar_bytes([entry("birds", type=tarfile.DIRTYPE)]),
    "mac files alone": zip_bytes([("__MACOSX/._a.jpg", b"x"), ("._b", b"x")]),
}


def kinds():
    found = {f"file of {kind}": ("x.tgz", data, "") for kind, data in STARTS.items()}
    page = b"\n<!DOCTYPE html><html>quota exceeded</html>"
    found["file of web page"] = ("x.zip", page, "web page")
    for kind, (name, message) in NAMES.items():
        found[f"tar name {kind}"] = ("x.tar", tar_bytes([GOOD, entry(name, b"x")]), message)
        found[f"zip name {kind}"] = ("x.zip", zip_of(name), message)
    for kind, (target, code) in LINKS.items():
        data = tar_bytes([GOOD, entry("l", type=code, linkname=target), entry("l/x", b"x")])
        found[f"tar {kind}"] = ("x.tar", data, "member 'l' is a link")
    for kind, code in DEVICES.items():
        data = tar_bytes([GOOD, entry("dev", type=code, devmajor=1, devminor=3)])
        found[f"tar {kind}"] = ("x.tar", data, "member 'dev' is a device or the like")
    for kind, mode in MODES.items():
        data = zip_of("z", b"../../etc", external_attr=(mode | 0o777) << 16, create_system=3)
        found[f"zip {kind}"] = ("x.zip", data, "member 'z' is a (link|device)")
    return found | damaged() | bombs() | tar_headers() | zip_headers() | clashes()


def damaged():
    """Cut off and changed bytes, where the format can tell."""
    found = {}
    for suffix in (".tar", *COMPRESS, ".zip"):
        data = archive_bytes(suffix)
        for share in (0.02, 0.5, 0.9):
            found[f"{suffix} cut at {share}"] = (f"x{suffix}", data[: int(share * len(data))], "")
        if suffix == ".tar":
            continue
        middle = len(data) // 2
        flipped = patched(data, middle, bytes([data[middle] ^ 1]))
        found[f"{suffix} flipped bit"] = (f"x{suffix}", flipped, "")
        found[f"{suffix} zeros inside"] = (f"x{suffix}", patched(data, middle, bytes(600)), "")
        found[f"{suffix} without its end"] = (f"x{suffix}", data[:-4], "")
        if suffix != ".zip":  # of which the end decides
            found[f"{suffix} begun twice"] = (f"x{suffix}", data[:middle] + data, "")
    tar = tar_bytes([GOOD, entry("b.jpg", noise(100)), entry("c.jpg", noise(100))])
    second = 512 + 3072  # where the next header begins
    for kind, data, message in (
        ("cut before a header", tar[:second], "ends early"),
        ("cut in a header", tar[: second + 100], "truncated"),
        ("cut after a header", tar[: second + 512], "ends early"),
        ("header changed", patched(tar, second, b"x"), "what follows member 'birds/a.jpg'"),
        ("header lost", patched(tar, second, noise(512)), "what follows"),
        ("first header changed", patched(tar, 5, b"x"), "not a tar or zip"),
    ):
        found[f"tar {kind}"] = ("x.tar", data, message)
        found[f"tgz {kind}"] = ("x.tgz", gzip.compress(data), "" if "first" in kind else message)
    # Complete gzip streams cannot be told from ones whose tar ends without its mark.
    del found["tgz cut before a header"]
    good = gzip.compress(tar)
    found["tgz wrong checksum"] = ("x.tgz", patched(good, -8, b"\1\2\3\4"), "CRC")
    found["tgz wrong length"] = ("x.tgz", patched(good, -4, b"\1\2\3\4"), "length")
    found["tgz with more behind"] = ("x.tgz", good + b"more", "")
    return found


def bombs():
    zeros, after = tar_bytes([entry("zeros", BIG)]), tar_bytes([GOOD]) + BIG
    many = tar_bytes([entry(f"{i}", BIG[:400_000]) for i in range(20)])
    long_header = header("pax", len(BIG), b"x") + BIG
    found = {"zip bomb": ("x.zip", zip_bytes([("zeros", BIG)]), "claim 8,000,000 bytes")}
    for suffix, compress in COMPRESS.items():
        for kind, data, message in (
            ("bomb", zeros, "claims 8,000,000 bytes"),
            ("bomb of many", many, "claims 400,000 bytes"),
            ("bomb behind the end", after, "contains more"),
            ("bomb of a header", long_header, "a header of 8,000,000 bytes"),
        ):
            found[f"{suffix} {kind}"] = (f"x{suffix}", compress(data), message)
    names = b"".join(header(f"{i}", 0, b"5") for i in range(2000))
    found["tgz of many members"] = ("x.tgz", gzip.compress(names + bytes(1024)), "more than 1,")
    twice = [(f"{i}", BIG[:400_000]) for i in range(20)]
    found["zip bomb of many"] = ("x.zip", zip_bytes(twice), "claim 8,000,000 bytes")
    return found


def tar_headers():
    data = b"data".ljust(512, b"\0") + bytes(1024)
    negative = b"\xff" * 11 + b"\x00"
    chain = b"".join(
        header("././@LongLink", 5, b"L") + b"name".ljust(512, b"\0") for _ in range(3000)
    )
    digits = b"1" * 16000
    rows = {
        "negative size": (header("a", 0, size_field=negative) + data, ""),
        "endless size": (header("a", 2**33 - 1) + data, "claims 8,589,934,591 bytes"),
        "size that is no number": (header("a", 0, size_field=b"99zz99zz99z\0") + data, ""),
        "beyond the end": (header("a", 5000) + data, "bytes of the member are missing"),
        "negative header": (header("p", 0, b"x", negative) + data, ""),
        "long name of negative size": (header("p", 0, b"L", negative) + data, ""),
        "long name beyond the end": (header("p", 9999, b"L") + data, ""),
        "endless chain": (chain + header("a", 4) + data, ""),
        "header of digits": (extended(digits), "400 digits"),
        "header without data": (header("p", 0, b"x"), ""),
        "header of length 0": (extended(b"0 path=../evil\n"), ""),
        "header path": (extended(record("path=../evil")), "leads out"),
        "header path absolute": (extended(record(f"path={EVIL}")), "absolute"),
        "header path for all": (extended(record("path=../evil"), b"g"), "leads out"),
        "header path with zero": (extended(record("path=a\0b")), "control characters"),
        "header size": (extended(record("size=-5000")), ""),
        "header huge size": (extended(record("size=99999999999")), "claims 99,999,999,999"),
        "header wrong size": (extended(record("size=abc")), ""),
        "sparse": (sparse(), "sparse"),
        "old sparse": (header("s", 0, b"S") + data, "sparse"),
    }
    found = {f"tar {kind}": ("x.tar", *row) for kind, row in rows.items()}
    return found | {
        f"tgz {kind}": ("x.tgz", gzip.compress(raw), m) for kind, (raw, m) in rows.items()
    }


def zip_headers():
    number = struct.Struct("<I").pack
    two = struct.Struct("<H").pack
    stored = zip_bytes([("a.jpg", b"d" * 100), ("b.jpg", b"d" * 100)], zipfile.ZIP_STORED)
    end = stored.rindex(b"PK\5\6")
    rows = {
        "smaller size": (zip_patched(24, number(50), 22), "CRC|claims"),
        "larger size": (zip_patched(24, number(150), 22), "claims 150 bytes and has 100|CRC"),
        "huge size": (zip_patched(24, number(2**32 - 2), 22), "claim 4,294,967,"),
        "smaller compressed size": (zip_patched(20, number(50), 18), ""),
        "wrong checksum": (zip_patched(16, number(7), 14), "CRC"),
        "flipped data": (patched(stored, stored.rindex(b"dd" * 50) + 5, b"e"), "CRC"),
        "encrypted": (zip_patched(8, two(1), 6), "is encrypted"),
        "strongly encrypted": (zip_patched(8, two(0x41), 6), "is encrypted"),
        "patch": (zip_patched(8, two(0x20), 6), ""),
        "method 9": (zip_patched(10, two(9), 8), "method 9"),
        "method 12": (zip_bytes([("a", b"x" * 999)], zipfile.ZIP_BZIP2), "method 12"),
        "method 14": (zip_bytes([("a", b"x" * 999)], zipfile.ZIP_LZMA), "method 14"),
        "method 99": (zip_patched(10, two(99), 8), "method 99"),
        "not deflated": (zip_patched(10, two(8), 8), ""),
        "new version": (zip_patched(6, two(999)), ""),
        "other name inside": (patched(stored, stored.index(b"a.jpg"), b"../xx"), ""),
        "zero in the name": (zip_patched(46, b"b\0jpg", 30), "control characters"),
        "member beyond the end": (zip_patched(42, number(2**30)), ""),
        "members that overlap": (zip_patched(42, number(0)), ""),
        "list without its last": (zip_patched(32 - 51, two(51)), "it has 1 members instead of 2"),
        "no list": (stored[: stored.index(b"PK\1\2")], ""),
        "list elsewhere": (patched(stored, end + 16, number(5)), ""),
        "list of wrong length": (patched(stored, end + 12, number(9999)), ""),
        "list changed": (patched(stored, stored.index(b"PK\1\2"), b"XX"), ""),
        "zip64 without its record": (patched(stored, end + 16, b"\xff" * 4), ""),
    }
    return {f"zip {kind}": ("x.zip", *row) for kind, row in rows.items()}


def clashes():
    rows = {
        "twice": (("a.jpg", "a.jpg"), "two members have the name 'a.jpg'"),
        "twice in other words": (("b/a.jpg", "./b//a.jpg"), "two members have the name"),
        "twice but for case": (("A/b.jpg", "a/B.jpg"), "two members have the name 'a/B.jpg'"),
        "file then folder": (("a", "a/b"), "is both a file and a folder"),
        "folder then file": (("a/b", "a"), "is both a file and a folder"),
        "file of a file": (("a", "a/b/c/d"), "is both a file and a folder"),
    }
    found = {}
    for kind, (names, message) in rows.items():
        entries = [entry(name, noise(9)) for name in names]
        found[f"tar {kind}"] = ("x.tar", tar_bytes(entries), message)
        if names[0] != names[1]:  # which Python warns of when it writes it
            pairs = [(name, noise(9)) for name in names]
            found[f"zip {kind}"] = ("x.zip", zip_bytes(pairs), message)
    return found


def zip_of(name, data=b"data", **fields):
    """A zip file whose last member is made with these fields of ZipInfo."""
    info = zipfile.ZipInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return zip_bytes([(GOOD[0].name, GOOD[1]), (info, data)])


def patched(data, at, replacement):
    """`data` with bytes replaced from `at` on (negative: from the end)."""
    at %= len(data)
    return data[:at] + replacement + data[at + len(replacement) :]


def zip_patched(field, replacement, local=None):
    """A stored zip; the last entry of its list, and its own header, changed at these places."""
    raw = zip_bytes([("a.jpg", b"d" * 100), ("b.jpg", b"d" * 100)], zipfile.ZIP_STORED)
    raw = patched(raw, raw.rindex(b"PK\1\2") + field, replacement)
    return raw if local is None else patched(raw, raw.rindex(b"PK\3\4") + local, replacement)


def header(name, size, kind=b"0", size_field=None):
    """A tar header by hand, which may claim anything."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size_field or b"%011o\0" % size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(records, kind=b"x"):
    """A pax header of these bytes, and the file "a" after it."""
    head = header("pax", len(records), kind) + records + bytes(-len(records) % 512)
    return head + header("a", 4) + b"data".ljust(512, b"\0") + bytes(1024)


def record(text):
    """A line of a pax header, which begins with its own length."""
    length = len(text) + 2
    while length != len(str(length)) + len(text) + 2:
        length = len(str(length)) + len(text) + 2
    return f"{length} {text}\n".encode()


def sparse():
    info, data = entry("s", b"1\n0\n512\n".ljust(512, b"\0") + bytes(512))
    fields = {"major": "1", "minor": "0", "name": "s", "realsize": "99999999999"}
    info.pax_headers = {f"GNU.sparse.{name}": value for name, value in fields.items()}
    return tar_bytes([(info, data)])


BAD = kinds()
