"""Writes PyTorch checkpoints by hand, opcode by opcode, so that no test needs torch."""

import dataclasses
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}
MAGIC = 0x1950A86A20F9469CFC6C


@dataclasses.dataclass(frozen=True)
class Name:
    """A name to import, as the opcode GLOBAL asks for it."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    function: Any
    arguments: tuple


@dataclasses.dataclass(frozen=True)
class Persistent:
    """An object stored outside the pickle: PyTorch's storages."""

    saved_id: tuple


def dumps(item: Any) -> bytes:
    """Protocol 2 pickle of plain values and the classes above."""
    return pickle.PROTO + b"\x02" + _encode(item) + pickle.STOP


def _encode(item):
    match item:
        case None:
            return pickle.NONE
        case bool():
            return pickle.NEWTRUE if item else pickle.NEWFALSE
        case int():
            data = pickle.encode_long(item)
            return pickle.LONG1 + bytes([len(data)]) + data
        case str():
            return pickle.BINUNICODE + struct.pack("<I", len(item.encode())) + item.encode()
        case tuple():
            return pickle.MARK + b"".join(map(_encode, item)) + pickle.TUPLE
        case list():
            return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(_encode, item)) + pickle.APPENDS
        case OrderedDict():
            empty = _encode(Call(Name("collections", "OrderedDict"), ()))
            return empty + _items(item)
        case dict():
            return pickle.EMPTY_DICT + _items(item)
        case Name():
            return pickle.GLOBAL + f"{item.module}\n{item.name}\n".encode()
        case Call():
            return _encode(item.function) + _encode(item.arguments) + pickle.REDUCE
        case Persistent():
            return _encode(item.saved_id) + pickle.BINPERSID
    raise TypeError(f"cannot encode {item!r}")


def _items(item):
    pairs = b"".join(_encode(key) + _encode(value) for key, value in item.items())
    return pickle.MARK + pairs + pickle.SETITEMS


def tensor(key: str, dtype: str, numel: int, shape: tuple, strides: tuple, offset=0, legacy=False):
    """The pickled form of a tensor over the storage `key` of `numel` elements."""
    saved_id = ("storage", Name("torch", STORAGES[dtype]), key, "cpu", numel)
    saved_id += (None,) if legacy else ()
    hooks = OrderedDict()
    arguments = (Persistent(saved_id), offset, shape, strides, False, hooks)
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def whole(key: str, array: np.ndarray, legacy=False):
    """The pickled form of the contiguous `array`, which is all of its storage."""
    strides = tuple(step // array.itemsize for step in array.strides)
    return tensor(key, array.dtype.name, array.size, array.shape, strides, legacy=legacy)


def write_zip(path, content, storages, *, byteorder="little", compression=zipfile.ZIP_STORED):
    """The format of torch >= 1.6; storages: key -> bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", dumps(content))
        if byteorder:
            archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")


def write_legacy(path, content, storages, *, magic=MAGIC):
    """The older format; storages: key -> (number of elements, bytes)."""
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [dumps(item) for item in (magic, 1001, info, content, sorted(storages))]
    for key in sorted(storages):
        numel, data = storages[key]
        parts += [struct.pack("<q", numel), data]
    path.write_bytes(b"".join(parts))


def write(path, arrays, *, legacy=False, wrap=lambda state: state, ordered=True):
    """A checkpoint with one storage for each of `arrays` (key -> array)."""
    keys = {name: str(index) for index, name in enumerate(arrays)}
    kind = OrderedDict if ordered else dict
    state = kind((name, whole(keys[name], x, legacy)) for name, x in arrays.items())
    if legacy:
        write_legacy(path, wrap(state), {keys[n]: (x.size, x.tobytes()) for n, x in arrays.items()})
    else:
        write_zip(path, wrap(state), {keys[n]: x.tobytes() for n, x in arrays.items()})
    return path
