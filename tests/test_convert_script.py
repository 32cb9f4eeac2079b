"""scripts/convert_weights.py: exit codes, and nothing half written."""

import resource

import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

from fgc_jax import models
from scripts import convert_weights

STATE = {"conv.weight": np.arange(20_000, dtype=np.float32)}


@pytest.fixture
def convert(monkeypatch):
    monkeypatch.setattr(models, "timm_state", lambda name, spec: STATE)

    def convert(output, model="resnet18"):
        return convert_weights.main([f"--model={model}", "--input=a.pth", f"--output={output}"])

    return convert


def failed_with_one_line(code, capsys, message):
    out, err = capsys.readouterr()
    assert code == 1 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_a_file_is_written(convert, tmp_path, capsys):
    output = tmp_path / "new" / "a.safetensors"
    assert convert(output) == 0
    np.testing.assert_array_equal(
        safetensors_numpy.load_file(output)["conv.weight"], STATE["conv.weight"]
    )
    assert [path.name for path in output.parent.iterdir()] == ["a.safetensors"]
    assert "1 tensors" in capsys.readouterr().out


def test_a_full_disk_leaves_nothing(convert, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        code = convert(tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    failed_with_one_line(code, capsys, "File too large")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [OSError, safetensors.SafetensorError])
def test_any_failing_write_leaves_nothing(convert, tmp_path, capsys, monkeypatch, kind):
    def save_file(state, path, metadata):
        path.write_bytes(b"half")
        raise kind("no space left")

    monkeypatch.setattr(safetensors_numpy, "save_file", save_file)
    (tmp_path / "a.safetensors").write_bytes(b"old")
    failed_with_one_line(convert(tmp_path / "a.safetensors"), capsys, "no space left")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").read_bytes() == b"old"


def test_an_output_that_cannot_be_made_is_one_line(convert, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    failed_with_one_line(convert(tmp_path / "file" / "a.safetensors"), capsys, "file")
    (tmp_path / "folder.safetensors").mkdir()
    failed_with_one_line(convert(tmp_path / "folder.safetensors"), capsys, "directory")
    assert not list(tmp_path.glob("*.partial"))


def test_unusable_weights_exit_with_1(tmp_path, capsys):
    (tmp_path / "a.pth").write_bytes(b"<html>")
    arguments = [f"--input={tmp_path / 'a.pth'}", f"--output={tmp_path / 'a.safetensors'}"]
    code = convert_weights.main(["--model=resnet18", *arguments])
    failed_with_one_line(code, capsys, "no PyTorch checkpoint")


def test_wrong_flags_exit_with_2(convert, tmp_path, capsys):
    for output, model, message in (
        ("a.pth", "resnet18", "--output must end in .safetensors, not 'a.pth'"),
        ("a.safetensors", "resnet19", "invalid choice: 'resnet19'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            convert(tmp_path / output, model)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
