"""Reads the tensors of a PyTorch checkpoint with NumPy only, without executing code from it.

A checkpoint is a pickle, and unpickling can execute any code. The unpickler here accepts only the
few names that a state dict needs; every other name is an error. Both formats are read: the zip
archive (torch >= 1.6) and the older plain sequence of pickles and raw storages.
"""

import dataclasses
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_MAGIC = 0x1950A86A20F9469CFC6C
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")


class _Sealed:
    """Base of the objects that a pickle can reach: its opcode BUILD must not change them."""

    def __setstate__(self, state):
        raise ValueError("the file changes the state of an object, which is not allowed")


@dataclasses.dataclass(frozen=True)
class _StorageType(_Sealed):
    """Represents an entry of _DTYPES; the dtypes themselves are shared by the whole process."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage(_Sealed):
    key: str
    dtype: np.dtype
    numel: int
    start: int = 0  # In elements: old files may store views of a storage.


@dataclasses.dataclass(frozen=True)
class _Tensor(_Sealed):
    storage: Any
    offset: Any
    shape: Any
    strides: Any


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, strings and tensors; any other name is an error."""

    def __init__(self, file):
        super().__init__(file, encoding="utf-8")

        # Created for each file: a pickle can set attributes of the functions that it receives.
        def tensor(storage, offset, shape, strides, *_):
            return _Tensor(storage, offset, shape, strides)

        def parameter(data, *_):
            return data

        def size(shape=()):
            return tuple(shape)

        self.allowed = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): tensor,
            ("torch._utils", "_rebuild_tensor_v2"): tensor,
            ("torch._utils", "_rebuild_parameter"): parameter,
            ("torch", "Size"): size,
        }

    def find_class(self, module, name):
        if module in ("torch", "torch.cuda") and name in _DTYPES:
            return _StorageType(name)
        try:
            return self.allowed[module, name]
        except KeyError:
            raise ValueError(
                f"the file refers to {module}.{name}, which is not allowed: only tensors in "
                "plain dicts are read, because a pickle can execute any code. If you trust the "
                "file, load it with torch and save its state_dict() again"
            ) from None

    def persistent_load(self, saved_id):
        # Messages contain no text of objects from the file: an object that refers to itself many
        # times is small in the file, but its text has no end.
        kind, type_, key, _, numel, *view = saved_id
        if (
            kind != "storage"
            or not isinstance(type_, _StorageType)
            or not isinstance(key, str)
            or not _is_count(numel)
        ):
            raise ValueError("a stored object is not a tensor storage of a known type")
        storage = _Storage(key, _DTYPES[type_.name], numel)
        if view and view[0] is not None:
            _, start, numel = view[0]
            if not (_is_count(start) and _is_count(numel) and start + numel <= storage.numel):
                raise ValueError(f"a view reaches beyond its storage {key}")
            return dataclasses.replace(storage, numel=numel, start=start)
        return storage


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a .pth, .pt or .bin file by name, with the stored names and types. They may be
    inside an entry "state_dict" or "model".

    Raises:
        ValueError: the file is truncated, is not a checkpoint, or contains something other than
            tensors.
    """
    path = Path(path)
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        try:
            content, storages = (_read_zip if is_zip else _read_legacy)(file)
            return {key: _build(key, x, storages) for key, x in _state_dict(content).items()}
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        # A broken pickle can raise nearly any exception, and its message does not help the user.
        except Exception as error:
            raise ValueError(
                f"{path} ({path.stat().st_size:,} bytes) is truncated or not a PyTorch "
                f"checkpoint: {type(error).__name__}: {error}"
            ) from error


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_zip(file):
    with zipfile.ZipFile(file) as archive:
        _check_members(archive, os.fstat(file.fileno()).st_size)
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("is a zip archive without a data.pkl: not a PyTorch checkpoint")
        folder = pickles[0].removesuffix("data.pkl")
        names = set(archive.namelist())
        order = b"little"
        if folder + "byteorder" in names:
            order = archive.read(folder + "byteorder")
        with archive.open(pickles[0]) as stream:
            content = _Unpickler(stream).load()
        storages = {}
        for storage in _storages(content):
            data = archive.read(f"{folder}data/{storage.key}")
            storages[storage.key] = _array(data, storage, order)
    return content, storages


def _check_members(archive, size):
    """Called before anything is read, because a small file could claim any amount of memory."""
    members = archive.infolist()
    for info in members:
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{info.filename} is compressed, but files from torch.save are not")
        if info.file_size != info.compress_size:
            raise ValueError(f"{info.filename} is not compressed, but its two sizes differ")
    if sum(info.file_size for info in members) > size:
        raise ValueError("the members of the archive are together larger than the archive")


def _read_legacy(file):
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("is not a PyTorch checkpoint (wrong magic number)")
    _Unpickler(file).load()  # The protocol's version, always 1001.
    _Unpickler(file).load()  # Facts about the writer's machine; storages are always little-endian.
    content = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    wanted = {storage.key: storage for storage in _storages(content)}
    storages = {}
    for key in keys:
        if not isinstance(key, str) or key not in wanted:
            raise ValueError("a storage belongs to no tensor")
        numel = int.from_bytes(_exactly(file, 8), "little")
        data = _exactly(file, wanted[key].dtype.itemsize * numel)
        storages[key] = _array(data, wanted[key], b"little")
    return content, storages


def _exactly(file, size):
    # Checked first: a wrong size could ask for any amount of memory.
    left = os.fstat(file.fileno()).st_size - file.tell()
    if size > left:
        raise EOFError(f"a storage ends after {left:,} of {size:,} bytes")
    return file.read(size)


def _storages(content):
    """Every storage that a tensor inside nested dicts refers to, once each."""
    found, stack, seen = {}, [content], set()
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if id(item) not in seen:  # A pickle may put a dict inside itself.
                seen.add(id(item))
                stack.extend(item.values())
        elif isinstance(item, _Tensor) and isinstance(item.storage, _Storage):
            found[item.storage.key] = item.storage
    return found.values()


def _array(data, storage, order):
    dtype = storage.dtype
    if len(data) % dtype.itemsize:
        raise EOFError(
            f"storage {storage.key} has {len(data):,} bytes, not a multiple of the size of its type"
        )
    if order == b"big":
        # Swapped as plain integers, because bfloat16 has no byte order.
        plain = np.dtype(f"u{dtype.itemsize}")
        return np.frombuffer(data, plain.newbyteorder(">")).astype(plain).view(dtype)
    if order != b"little":
        raise ValueError(f"unknown byte order {order!r}")
    return np.frombuffer(data, dtype)


def _state_dict(content):
    for _ in range(2):
        if not isinstance(content, dict):
            break
        for name in _WRAPPERS:
            if isinstance(content.get(name), dict):
                content = content[name]
                break
    if not isinstance(content, dict) or not content:
        raise ValueError("contains no dict of tensors")
    strays = [
        key if isinstance(key, str) else f"one named by a {type(key).__name__}"
        for key, x in content.items()
        if not isinstance(key, str) or not isinstance(x, _Tensor)
    ]
    if strays:
        raise ValueError(f"these entries are not tensors: {', '.join(strays[:8])}")
    return content


def _build(key, tensor, storages):
    storage, offset, shape, strides = (
        tensor.storage,
        tensor.offset,
        tensor.shape,
        tensor.strides,
    )
    numbers = (offset, *shape, *strides)
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(strides)
        or not all(map(_is_count, numbers))
    ):
        raise ValueError(f"tensor {key} is malformed")
    data = storages[storage.key][storage.start :]
    if math.prod(shape) == 0:
        return np.zeros(shape, data.dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # The second condition: with a stride of zero, a few bytes could become any amount of memory.
    if last >= data.size or math.prod(shape) > data.size:
        raise ValueError(f"tensor {key} of shape {tuple(shape)} reaches beyond its storage")
    steps = [stride * data.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(data[offset:], shape, steps, writeable=False)
    return np.ascontiguousarray(view).reshape(shape)
