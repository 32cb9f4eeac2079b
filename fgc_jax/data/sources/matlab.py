"""Reads MATLAB files (version 5 to 7) of numbers, texts, cells and structs; nothing else.

scipy.io is not used, because some damaged files end the whole process in it (segmentation fault).
"""

import math
import struct
import zlib

import numpy as np

LARGEST = 2**28  # bytes of one unpacked variable; those of the data sets need a hundredth of it
VERSIONS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # how the header ends -> byte order
MATRIX, COMPRESSED = 14, 15  # kinds of elements
CELL, STRUCT, TEXT = 1, 2, 4  # classes of matrices
COMPLEX = 0x800
# The kinds and classes of numbers and the kinds of texts, with their names in numpy and Python.
KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = dict(enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), start=6))
CODECS = {
    "<": {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"},
    ">": {1: "latin-1", 2: "latin-1", 4: "utf-16-be", 16: "utf-8", 17: "utf-16-be"},
}


def read(path, *names):
    """The variables `names` of a .mat file: a list of arrays of numbers or, for texts and cells, of
    objects. Axes of length 1 are removed, but at least one axis is kept.

    Raises:
        ValueError: the file is missing or damaged, or has no such variable.
    """
    found = _variables(path, names)
    structs = [name for name in names if isinstance(found[name], dict)]
    if structs:
        raise ValueError(f"{path}: {structs[0]!r} is a struct, not an array")
    return [np.atleast_1d(np.squeeze(found[name])) for name in names]


def columns(path, variable, *fields):
    """The `fields` of each struct in the array `variable`: lists of N texts; numbers become texts.

    ValueError as for `read`, and if a field is missing.
    """
    structs = _variables(path, [variable])[variable]
    known = structs if isinstance(structs, dict) else ()
    absent = [field for field in fields if field not in known]
    if absent:
        raise ValueError(f"{path}: {variable!r} has no field {', '.join(map(repr, absent))}")
    return [[_as_text(value) for value in structs[field]] for field in fields]


def _as_text(value):
    if isinstance(value, np.ndarray) and value.size == 1:
        return str(value.item())
    return value if isinstance(value, str) else "[no single value]"


def _variables(path, names):
    """{name: value}; a value is an array of numbers, a text, an array of values (cell) or, for a
    struct array, {field: list of values}."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        with np.errstate(invalid="ignore"):  # damaged floats instead of whole numbers
            found = dict(_top(data, names))
    except (ValueError, struct.error, zlib.error, RecursionError) as error:
        raise ValueError(f"{path}: damaged or not a MATLAB file ({error})") from error
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"{path}: there is no variable {', '.join(map(repr, absent))}")
    return found


def _top(data, names):
    order = VERSIONS.get(data[124:128])
    if order is None:
        raise ValueError("the header is not that of version 5 to 7")
    after = 128
    while after < len(data):
        inner, limit = data, len(data)
        kind, start, end, after = _element(data, after, limit, order)
        if kind == COMPRESSED:
            after = end  # the only kind of element without padding
            unpacker = zlib.decompressobj()
            inner = unpacker.decompress(data[start:end], LARGEST)
            if not unpacker.eof:
                raise ValueError(f"a variable is truncated or larger than {LARGEST} bytes")
            kind, start, end, _ = _element(inner, 0, len(inner), order)
        if kind == MATRIX and end > start and _head(inner, start, end, order)[2] in names:
            yield _head(inner, start, end, order)[2], _matrix(inner, start, end, order)


def _element(data, at, limit, order):
    """(kind, start, end, next) of the element at `at`, which must end before `limit`."""
    kind, size = struct.unpack_from(order + "II", data, at)
    if kind >> 16:  # up to 4 bytes, in the tag itself
        kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    else:
        start = at + 8
        after = start + size + (-size) % 8
    if start + size > min(limit, after):
        raise ValueError(f"an element of {size} bytes is truncated")
    return kind, start, start + size, after


def _head(data, at, end, order):
    """(flags, shape, name, start of the content) of the matrix in data[at:end]."""
    _, start, _, at = _element(data, at, end, order)
    (flags,) = struct.unpack_from(order + "I", data, start)
    _, start, stop, at = _element(data, at, end, order)
    shape = struct.unpack_from(f"{order}{(stop - start) // 4}i", data, start)
    if min(shape, default=-1) < 0:
        raise ValueError(f"an array of the shape {shape}")
    _, start, stop, at = _element(data, at, end, order)
    return flags, shape, data[start:stop].decode("ascii"), at


def _matrix(data, at, end, order):
    """The value of the matrix in data[at:end]."""
    flags, shape, _, at = _head(data, at, end, order)
    kind, start, stop, after = _element(data, at, end, order) if at < end else (0, at, at, at)
    matrix_class, count = flags & 0xFF, math.prod(shape)
    if matrix_class == CELL:
        values = _matrices(data, at, end, order, count)
        cell = np.empty(count, object)
        cell[:] = values
        return cell.reshape(shape, order="F")
    if matrix_class == STRUCT:
        (length,) = struct.unpack_from(order + "i", data, start)
        _, start, stop, after = _element(data, after, end, order)
        rows = [data[k : k + length] for k in range(start, stop, max(length, 1))]
        fields = [row.split(b"\0")[0].decode("ascii") for row in rows]
        values = _matrices(data, after, end, order, count * len(fields))
        return {field: values[k :: len(fields)] for k, field in enumerate(fields)}
    if matrix_class == TEXT:
        if not count:
            return ""
        if kind not in CODECS[order] or count != max(shape):
            raise ValueError(f"a text of the shape {shape}, stored as {kind}")
        return data[start:stop].decode(CODECS[order][kind])
    if kind not in KINDS or matrix_class not in CLASSES or flags & COMPLEX:
        raise ValueError(f"an array of the class {matrix_class}, stored as {kind}")
    numbers = np.frombuffer(data[start:stop], order + KINDS[kind])
    if numbers.size != count:
        raise ValueError(f"{numbers.size} numbers in an array of the shape {shape}")
    return numbers.astype(CLASSES[matrix_class]).reshape(shape, order="F")


def _matrices(data, at, end, order, count):
    """The values of `count` matrices that follow each other."""
    values = []
    while len(values) < count:
        if at >= end:
            raise ValueError(f"{len(values)} of {count} matrices")
        kind, start, stop, at = _element(data, at, end, order)
        if kind != MATRIX:
            raise ValueError(f"an element of kind {kind} instead of a matrix")
        values.append(_matrix(data, start, stop, order) if stop > start else np.empty((0, 0)))
    return values
