"""Pascal VOC annotation files: the named boxes of one picture, in XML."""

import os
from xml.etree import ElementTree

from fgc_jax.data.sources import listing

LARGEST = 2**20  # bytes; the annotation of one picture has about a thousandth of this size
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(path):
    """[(name, (xmin, ymin, xmax, ymax))] of all objects in a VOC XML file. The numbers are not
    converted (VOC counts from 1, both corners included: see boxes.from_corners).

    Raises:
        ValueError: the file is missing, not XML or larger than 1 MiB, or an object has no name or
            box. A file that declares a DTD is an error too: its entities could grow without limit
            or read other files, and annotations do not need them.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) > LARGEST:
        raise ValueError(f"{path}: not an annotation of one picture, larger than {LARGEST} bytes")
    if b"<!DOCTYPE" in data:
        raise ValueError(f"{path}: the XML declares a DTD, which is not allowed")
    if b"\0" in data:
        raise ValueError(f"{path}: not XML in UTF-8")
    try:
        # A fixed encoding and no zero bytes (UTF-16), so that the search above finds every DTD.
        tree = ElementTree.fromstring(data, ElementTree.XMLParser(encoding="utf-8"))
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not XML ({error})") from error
    return [_object(os.fspath(path), item) for item in tree.iter("object")]


def _object(path, item):
    name = (item.findtext("name") or "").strip()
    words = [(item.findtext(f"bndbox/{corner}") or "").strip() for corner in CORNERS]
    if not name:
        raise ValueError(f"{path}: an object has no name")
    corners = listing.numbers(path, [words], f"boxes of {name!r} are not four numbers")
    return name, tuple(corners[0].tolist())
