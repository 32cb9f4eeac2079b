import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from fgc_jax.convert import torch_file
from tests import commands, pickles
from tests.pickles import Call, Name

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "half": np.array([1.5, -2.25], np.float16),
    "double": np.array([[1e-300]], np.float64),
    "bfloat": np.array([1.5, -3.0, 1e30], ml_dtypes.bfloat16),
    "bn.num_batches_tracked": np.array(2**40, np.int64),
    "flag": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}


def same(actual, expected):
    assert list(actual) == list(expected)
    for key, array in expected.items():
        assert actual[key].dtype == array.dtype
        np.testing.assert_array_equal(actual[key], array)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_every_type_is_read(tmp_path, legacy, ordered):
    path = pickles.write(tmp_path / "a.pth", ARRAYS, legacy=legacy, ordered=ordered)
    same(torch_file.read(path), ARRAYS)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state, "best": None},
        lambda state: {"model": state, "args": ["x", 1]},
        lambda state: {"model": {"state_dict": state}},
    ],
)
def test_wrapped_checkpoints_are_opened(tmp_path, legacy, wrap):
    path = pickles.write(tmp_path / "a.pth", ARRAYS, legacy=legacy, wrap=wrap)
    same(torch_file.read(path), ARRAYS)


def test_tensors_may_share_a_storage_and_be_strided(tmp_path):
    data = np.arange(12, dtype=np.float32)
    content = {
        "transposed": pickles.tensor("0", "float32", 12, (4, 3), (1, 4)),
        "tail": pickles.tensor("0", "float32", 12, (5,), (1,), offset=7),
        "every other": pickles.tensor("0", "float32", 12, (2, 2), (6, 2), offset=1),
    }
    expected = {
        "transposed": data.reshape(3, 4).T,
        "tail": data[7:],
        "every other": np.array([[1, 3], [7, 9]], np.float32),
    }
    pickles.write_zip(tmp_path / "a.pt", content, {"0": data.tobytes()})
    same(torch_file.read(tmp_path / "a.pt"), expected)


def test_parameters_are_read_as_their_tensors(tmp_path):
    data = np.array([1, 2], np.float32)
    inner = pickles.whole("0", data)
    call = Call(Name("torch._utils", "_rebuild_parameter"), (inner, True, OrderedDict()))
    pickles.write_zip(tmp_path / "a.pt", {"w": call}, {"0": data.tobytes()})
    same(torch_file.read(tmp_path / "a.pt"), {"w": data})


@pytest.mark.parametrize("dtype", ["float32", "int64", "bfloat16", "float16"])
def test_big_endian_archives_are_swapped(tmp_path, dtype):
    data = np.array([1, 2, 300], ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    swapped = data.view(f"u{data.itemsize}").byteswap().tobytes()
    content = {"w": pickles.whole("0", data)}
    pickles.write_zip(tmp_path / "a.pt", content, {"0": swapped}, byteorder="big")
    same(torch_file.read(tmp_path / "a.pt"), {"w": data})


def test_a_legacy_storage_may_be_a_view_of_another(tmp_path):
    data = np.arange(6, dtype=np.float32)
    saved_id = ("storage", Name("torch", "FloatStorage"), "root", "cpu", 6, ("view", 2, 3))
    arguments = (pickles.Persistent(saved_id), 1, (2,), (1,), False, OrderedDict())
    content = {"w": Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)}
    pickles.write_legacy(tmp_path / "a.pth", content, {"root": (6, data.tobytes())})
    same(torch_file.read(tmp_path / "a.pth"), {"w": data[3:5]})


class Mine:
    """Pickled by reference, like any class of a user."""

    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.hub", "_load_local"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "OrderedDict.__init__"),
        ("functools", "partial"),
    ],
)
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, module, name, legacy):
    marker = tmp_path / "executed"
    content = {"w": Call(Name(module, name), (f"touch {marker}",))}
    write = pickles.write_legacy if legacy else pickles.write_zip
    write(tmp_path / "a.pth", content, {})
    with pytest.raises(ValueError, match=f"{module}.{name}.*not allowed"):
        torch_file.read(tmp_path / "a.pth")
    assert not marker.exists()


def test_code_hidden_in_any_pickle_of_the_old_format_is_refused(tmp_path, capsys):
    path = pickles.write(tmp_path / "a.pth", ARRAYS, legacy=True)
    clean = path.read_bytes()
    first = pickles.dumps(pickles.MAGIC)
    for evil in (pickle.dumps(Mine(), 2), first + pickle.dumps(Mine(), 2)):
        path.write_bytes(evil + clean)
        with pytest.raises(ValueError, match="print.*not allowed"):
            torch_file.read(path)
    assert not capsys.readouterr().out


def test_allowed_functions_cannot_be_changed_by_a_pickle(tmp_path):
    rebuild = pickles._encode(Name("torch._utils", "_rebuild_tensor_v2"))
    state = pickles._encode((None, {"__defaults__": (1,)}))
    evil = pickle.PROTO + b"\x02" + rebuild + state + pickle.BUILD + pickle.STOP
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", evil)
    with pytest.raises(ValueError, match="no dict of tensors"):
        torch_file.read(tmp_path / "evil.pt")
    same(torch_file.read(pickles.write(tmp_path / "a.pt", ARRAYS)), ARRAYS)


STATES = {
    "of np.dtype": (3, ">", None, None, None, 8, 8, 0),
    "a dict": {"name": "DoubleStorage", "key": "1", "storage": 0},
    "slots": (None, {"name": "DoubleStorage", "key": "1", "storage": 0}),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", sorted(torch_file._DTYPES))
def test_no_state_reaches_a_storage_type(tmp_path, name, state, legacy):
    dtype = torch_file._DTYPES[name]
    before = dict(torch_file._DTYPES), dtype.itemsize, dtype.byteorder, dtype.alignment, str(dtype)
    build_and_read(tmp_path / "evil.pt", Name("torch", name), STATES[state], legacy)
    after = dict(torch_file._DTYPES), dtype.itemsize, dtype.byteorder, dtype.alignment, str(dtype)
    assert after == before
    assert np.zeros(2, dtype).nbytes == 2 * dtype.itemsize
    same(torch_file.read(pickles.write(tmp_path / "a.pt", ARRAYS)), ARRAYS)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("persistent", [False, True])
def test_no_state_reaches_a_tensor_or_storage(tmp_path, state, persistent):
    target = pickles.whole("0", np.zeros(1, np.float32))
    target = target.arguments[0] if persistent else target
    build_and_read(tmp_path / "evil.pt", target, STATES[state], False, match="changes the state")


def build_and_read(path, target, state, legacy, match="evil.pt"):
    """Reads a file that sets the state of an object; the file must be refused."""
    encoded = pickles._encode(target) + pickles._encode(state) + pickle.BUILD
    evil = pickle.PROTO + b"\x02" + encoded + pickle.STOP
    if legacy:
        path.write_bytes(b"".join(map(pickles.dumps, (pickles.MAGIC, 1001, {}))) + evil)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", evil)
            archive.writestr("archive/data/0", bytes(4))
    with pytest.raises(ValueError, match=match):
        torch_file.read(path)


def bomb(depth=60):
    """A list of two references to a list of two references to ...: 2 to the 60 items as text."""
    layers = b"".join(
        pickle.BINPUT + bytes([i]) + pickle.POP + pickle.EMPTY_LIST + pickle.MARK
        + 2 * (pickle.BINGET + bytes([i])) + pickle.APPENDS
        for i in range(depth)
    )  # fmt: skip
    return pickle.EMPTY_LIST + layers


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"(X\x03\0\0\0abcN", b"NNtQ"),
        (b"(X\x07\0\0\0storage", b"X\x01\0\0\0aNK\x01tQ"),
        (b"(X\x07\0\0\0storagectorch\nFloatStorage\n", b"NK\x01tQ"),
        (b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0aN", b"tQ"),
        (b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0a", b"K\x01(NK\x05K\x05ttQ"),
    ],
)
def test_objects_of_the_file_are_never_turned_into_text(tmp_path, before, after):
    evil = pickle.PROTO + b"\x02" + before + bomb() + after + pickle.STOP
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", evil)
    # The child limits its own memory: doing so between fork and exec is unsafe beside threads.
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32));"
        "from fgc_jax.convert import torch_file; torch_file.read(sys.argv[1])"
    )
    # In a process of its own: text of 2 to the 60 items could not be interrupted.
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "evil.pt"],
        cwd=commands.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "ValueError" in done.stderr
    assert "storage" in done.stderr.splitlines()[-1] and len(done.stderr.splitlines()[-1]) < 300


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file_is_an_error_at_every_length(tmp_path, legacy):
    path = pickles.write(tmp_path / "a.pth", ARRAYS, legacy=legacy)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"a\.pth"):
            torch_file.read(path)


def test_a_flipped_bit_in_an_archive_is_noticed(tmp_path):
    path = pickles.write(tmp_path / "a.pth", ARRAYS)
    data = bytearray(path.read_bytes())
    data[data.index(ARRAYS["conv.weight"].tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="CRC"):
        torch_file.read(path)


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "numel"),
    [
        ((5,), (1,), 0, 4),
        ((2,), (1,), 3, 4),
        ((2, 2), (4, 1), 0, 4),
        ((10**9,), (0,), 0, 4),
        ((2,), (-1,), 1, 4),
        ((2, 2), (1,), 0, 4),
        ((2.0,), (1,), 0, 4),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, shape, strides, offset, numel):
    if 2.0 in shape:
        shape = ("2",)
    content = {"w": pickles.tensor("0", "float32", numel, shape, strides, offset)}
    pickles.write_zip(tmp_path / "a.pt", content, {"0": bytes(4 * numel)})
    with pytest.raises(ValueError, match="tensor w"):
        torch_file.read(tmp_path / "a.pt")


def test_what_is_not_a_state_dict_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    cases = {
        "no dict of tensors": [1, 2],
        "not tensors: lr": {"w": pickles.whole("0", np.zeros(1, np.float32)), "lr": 3},
        "no dict": {},
    }
    for message, content in cases.items():
        pickles.write_zip(path, content, {"0": bytes(4)})
        with pytest.raises(ValueError, match=message):
            torch_file.read(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        torch_file.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"")
    with pytest.raises(ValueError, match="without a data.pkl"):
        torch_file.read(path)
    pickles.write_legacy(path, {}, {}, magic=7)
    with pytest.raises(ValueError, match="magic"):
        torch_file.read(path)


def test_compressed_storages_are_refused(tmp_path):
    content = {"w": pickles.whole("0", np.zeros(1000, np.float32))}
    storages = {"0": bytes(4000)}
    pickles.write_zip(tmp_path / "a.pt", content, storages, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        torch_file.read(tmp_path / "a.pt")


@pytest.mark.parametrize("member", ["data.pkl", "byteorder", "data/0"])
def test_no_member_is_inflated(tmp_path, member, monkeypatch):
    array = np.zeros(1, np.float32)
    path = pickles.write(tmp_path / "a.pt", {"w": array})
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["archive/byteorder"] = b"little"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            chosen = name == f"archive/{member}"
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if chosen else zipfile.ZIP_STORED)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)  # nothing is read at all
    with pytest.raises(ValueError, match=f"{member} is compressed"):
        torch_file.read(path)


def test_members_that_claim_more_than_the_file_holds_are_refused(tmp_path, monkeypatch):
    path = pickles.write(tmp_path / "a.pt", {"w": np.zeros(1000, np.float32)})
    clean = path.read_bytes()
    # The sizes in the central directory, compressed and plain, of the 4,000 bytes.
    at = clean.rindex(struct.pack("<II", 4000, 4000))
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    for sizes, message in (((4000, 10**9), "two sizes differ"), ((10**9, 10**9), "larger than")):
        path.write_bytes(clean[:at] + struct.pack("<II", *sizes) + clean[at + 8 :])
        with pytest.raises(ValueError, match=message):
            torch_file.read(path)


def test_a_dict_inside_itself_does_not_hang(tmp_path):
    # {} memoised as 0, then put into itself under "a".
    loop = pickle.EMPTY_DICT + pickle.BINPUT + b"\0" + pickles._encode("a")
    loop += pickle.BINGET + b"\0" + pickle.SETITEM
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.PROTO + b"\x02" + loop + pickle.STOP)
    with pytest.raises(ValueError, match="not tensors: a"):
        torch_file.read(tmp_path / "a.pt")
