"""MATLAB files against what scipy writes and reads, and damaged ones."""

import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io

from fgc_jax.data.sources import matlab
from tests import data_benchmarks

NUMBERS = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
VARIABLES = {
    "texts": data_benchmarks.cell(["one", "a longer one", "drei Käfer", ""]),
    "text": "Ram C/V",
    "single": data_benchmarks.cell(["alone"]),
    "grid": np.array([["a", "b"], ["c", "d"]], object),
    "flag": np.array([[True, False]]),
    "structs": data_benchmarks.structs(["a", "b"], [(1.5, "x"), (np.uint8(7), "y")]),
    "nothing": np.zeros((0, 0)),
}


@pytest.fixture(params=[True, False], ids=["compressed", "plain"])
def path(request, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {kind: rng.uniform(0, 100, (3, 4, 2)).astype(kind) for kind in NUMBERS}
    file = tmp_path / "some.mat"
    scipy.io.savemat(file, arrays | VARIABLES, do_compression=request.param)
    return file


def test_numbers_equal_scipy(path):
    expected = scipy.io.loadmat(path)
    for kind, found in zip(NUMBERS, matlab.read(path, *NUMBERS), strict=True):
        assert found.dtype == kind
        np.testing.assert_array_equal(found, expected[kind])
    flag, nothing = matlab.read(path, "flag", "nothing")
    assert list(flag) == [1, 0] and nothing.size == 0


def test_texts_and_structs(path):
    texts, text, single, grid = matlab.read(path, "texts", "text", "single", "grid")
    assert grid.tolist() == [["a", "b"], ["c", "d"]]
    assert list(texts) == ["one", "a longer one", "drei Käfer", ""]
    assert list(text) == ["Ram C/V"] and list(single) == ["alone"]
    assert matlab.columns(path, "structs", "b", "a") == [["x", "y"], ["1.5", "7"]]
    with pytest.raises(ValueError, match=r"some\.mat: 'structs' has no field 'c', 'd'"):
        matlab.columns(path, "structs", "c", "b", "d")
    with pytest.raises(ValueError, match=r"some\.mat: 'text' has no field 'c'"):
        matlab.columns(path, "text", "c")
    with pytest.raises(ValueError, match=r"some\.mat: 'structs' is a struct"):
        matlab.read(path, "structs")
    with pytest.raises(ValueError, match=r"some\.mat: there is no variable 'u', 'v'"):
        matlab.read(path, "u", "text", "v")


def test_kinds_that_nobody_needs_are_refused_only_if_asked_for(tmp_path):
    file = tmp_path / "some.mat"
    odd = {"complex": np.array([1j]), "sparse": scipy.sparse.eye(3).tocsc()}
    scipy.io.savemat(file, odd | {"lines": np.array(["ab", "cd"]), "plain": 3})
    assert list(matlab.read(file, "plain")[0]) == [3]
    for name in ("complex", "sparse", "lines"):
        with pytest.raises(ValueError, match=r"some\.mat: damaged or not a MATLAB file \(a"):
            matlab.read(file, name)


def test_the_other_byte_order(tmp_path):
    """As older Macintoshes wrote it, by hand: a 1 x 3 array of uint16 and its header."""
    body = struct.pack(">IIII", 6, 8, 11, 0) + struct.pack(">IIii", 5, 8, 1, 3)
    body += struct.pack(">HH4s", 1, 1, b"n") + struct.pack(">IIHHHxx", 4, 6, 1, 2, 300)
    content = b"MATLAB".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body
    assert list(scipy.io.loadmat(io.BytesIO(content))["n"][0]) == [1, 2, 300]
    (tmp_path / "big.mat").write_bytes(content)
    (found,) = matlab.read(tmp_path / "big.mat", "n")
    assert list(found) == [1, 2, 300] and found.dtype == np.uint16


def test_damaged_files_end_in_one_error_or_in_data(path):
    """Also the ones on which scipy.io ends the process; all of them at once, and quickly."""
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for n in range(400):
        changed = bytearray(content[: rng.integers(len(content))] if n % 5 == 0 else content)
        for place in rng.integers(0, len(changed), rng.integers(1, 6)):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            matlab.read(path, *NUMBERS, "texts")
            matlab.columns(path, "structs", "a")
        except ValueError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "header"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", "header"),
        (bytes(124) + b"\x00\x01IM" + b"abc", "unpack_from"),
        (bytes(124) + b"\x00\x01IM" + struct.pack("<II", 14, 999), "999 bytes is truncated"),
        (bytes(124) + b"\x00\x01IM" + struct.pack("<II", 15, 4) + b"abcd", "header check"),
    ],
)
def test_other_files_are_refused(tmp_path, content, says):
    path = tmp_path / "some.mat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"some\.mat: damaged or not a MATLAB file \(.*{says}"):
        matlab.read(path, "x")
    with pytest.raises(ValueError, match=r"gone\.mat: cannot be read \(No such file"):
        matlab.read(tmp_path / "gone.mat", "x")


def test_a_variable_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(matlab, "LARGEST", 1000)
    packed = zlib.compress(bytes(5000))
    path = tmp_path / "some.mat"
    path.write_bytes(bytes(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        matlab.read(path, "x")
