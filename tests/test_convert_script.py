"""`fgc convert_weights`: exit codes, and nothing half written."""

import dataclasses
import functools
import resource
import types

import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

from fgc_jax import config, models, trees
from fgc_jax.cli import convert_weights
from fgc_jax.convert import weights
from fgc_jax.models import pretrained
from fgc_jax.training import restored
from tests import seeded
from tests.tiny_run import run  # noqa: F401  (a fixture)

STATE = {"conv.weight": np.arange(20_000, dtype=np.float32)}


@pytest.fixture
def convert(monkeypatch):
    monkeypatch.setattr(models, "timm_state", lambda name, spec: (STATE, ""))

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
    written = safetensors_numpy.load_file(output)
    np.testing.assert_array_equal(written["conv.weight"], STATE["conv.weight"])
    assert [path.name for path in output.parent.iterdir()] == ["a.safetensors"]
    (tmp_path / "other").touch()
    assert output.stat().st_mode == (tmp_path / "other").stat().st_mode
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
    assert not list(tmp_path.glob("*.tmp"))


def test_unusable_weights_exit_with_1(tmp_path, capsys):
    (tmp_path / "a.pth").write_bytes(b"<html>")
    arguments = [f"--input={tmp_path / 'a.pth'}", f"--output={tmp_path / 'a.safetensors'}"]
    code = convert_weights.main(["--model=resnet18", *arguments])
    failed_with_one_line(code, capsys, "not a PyTorch checkpoint")


def test_a_run_goes_to_timms_names_and_back_bit_for_bit(run, tmp_path, capsys):  # noqa: F811
    output = tmp_path / "birds.safetensors"
    assert convert_weights.main([f"--workdir={run / 'run'}", f"--output={output}"]) == 0
    told = capsys.readouterr().out
    assert "step 7" in told
    call = "timm.create_model('resnet18', num_classes=3).load_state_dict(..., strict=True)"
    assert call in told
    said = {"format": "pt", "architecture": "resnet18", "weights_tag": "a1_in1k"}
    assert weights.metadata(output) == said
    trained = restored.load_run(run / "run")
    loaded = models.load("resnet18", str(output))
    assert loaded.num_classes == 3
    for mine, theirs in ((loaded.params, trained.params), (loaded.stats, trained.stats)):
        mine, theirs = trees.flatten(mine), trees.flatten(theirs)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[path], theirs[path]) for path in mine)
    flags = [f"--workdir={run / 'run'}", "--checkpoint=last", f"--output={output}"]
    assert convert_weights.main(flags) == 0
    again = models.load("resnet18", str(output))
    fc = [x.params["head"]["fc"]["kernel"] for x in (loaded, again)]
    assert not np.array_equal(*fc)


def test_a_file_says_whose_weights_it_holds_and_how_they_see(tmp_path):
    name, ap = "tf_efficientnet_b0", "ap_in1k"
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    state, _, _ = models.to_timm(*seeded.trees(name, 7))
    convert_weights.write(first, state, pretrained.metadata(name, ap))
    assert convert_weights.main([f"--model={name}", f"--input={first}", f"--output={second}"]) == 0
    assert models.load(name, str(second)).preprocess == models.BACKBONES[name].weights[ap]

    def fill(**changes):
        config = seeded.config(name, pretrained=str(second), **changes)
        return models.initialise(config, 7, seed=0)

    # A run's config shows how its images go in: the file may refuse, not choose.
    message = (
        f"mean and std of '{ap}', .* not those of .*weights_tag='ns_jft_in1k': set it to '{ap}'"
    )
    for tag in ("", "ns_jft_in1k"):
        with pytest.raises(ValueError, match=message):
            fill(weights_tag=tag)
    assert "fills backbone" in fill(weights_tag=ap)[2]
    # Mean and std of the recipe's own say so too.
    initialise = functools.partial(models.initialise, num_classes=7, seed=0)
    config = seeded.config(name, pretrained=str(second))
    with pytest.raises(ValueError, match=message):
        initialise(config)
    assert "fills backbone" in initialise(config, own_input=True)[2]
    two = {"backbone_b": name, "pretrained_b": str(second), "head": "bilinear"}
    with pytest.raises(ValueError, match=f"of '{ap}', .* not those of the first tag of its"):
        initialise(seeded.config(name, weights_tag=ap, **two))
    with pytest.raises(ValueError, match=f"are weights of {name}.* shapes as efficientnet_b0 but"):
        models.load("efficientnet_b0", str(second))


def test_a_run_that_is_none_is_one_line(tmp_path, capsys):
    flags = [f"--workdir={tmp_path}", f"--output={tmp_path / 'a.safetensors'}"]
    failed_with_one_line(convert_weights.main(flags), capsys, "config.json does not exist")


@pytest.mark.parametrize("stride", [1, 2])
def test_what_no_file_holds_is_said(stride, tmp_path, capsys, monkeypatch):
    settings = seeded.config("resnet18", backbone_options={"last_stride": stride})
    _, filled, stats = seeded.trees("resnet18", 5)
    used = dataclasses.replace(models.preprocess(settings), std=(0.3, 0.2, 0.1))
    settings_of_run = types.SimpleNamespace(model=settings)
    network = types.SimpleNamespace(preprocess=used)
    plan = types.SimpleNamespace(settings=settings_of_run, network=network)
    loaded = types.SimpleNamespace(plan=plan, params=filled, stats=stats, step=3)
    monkeypatch.setattr(restored, "load_run", lambda *_: loaded)
    flags = ["--workdir=run", f"--output={tmp_path / 'a.safetensors'}"]
    assert convert_weights.main(flags) == 0
    _, call, *told, mean = capsys.readouterr().out.splitlines()
    assert "num_classes=5).load_state_dict(..., strict=True)" in call
    if stride == 1:  # 2 is timm's own
        text = "trained with last_stride=1, which is not in the file: give the conv"
        assert told[0].startswith(text) and "layer4[0] stride 1" in told.pop(0)
    assert not told
    assert mean.startswith("trained with mean=(0.485,") and "std=(0.3, 0.2, 0.1)" in mean
    # So the file names no tag, whose mean and std would be others.
    assert weights.metadata(tmp_path / "a.safetensors").keys() == {"format", "architecture"}
    known = {option for row in models.BACKBONES.values() for option in config.defaults(row.adapt)}
    assert convert_weights.TIMM_NEEDS.keys() == known


def to_timm(name, **changes):
    config = seeded.config(name, **changes)
    return models.to_timm(config, *models.split(models.abstract(config, 5)))


BILINEAR = {"head": "bilinear", "head_options": {"projection": 8}}


@pytest.mark.parametrize(
    ("name", "changes", "complete"),
    [
        ("resnet18", BILINEAR, True),
        ("resnet18", {"head_options": {"pool": "avgmax"}}, True),
        # timm's network pools another map: the class token, the mean, and the normalised mean.
        ("vit_tiny_patch16_224", {"feature_map": "features"}, True),
        ("vit_small_patch16_dinov3", {"feature_map": "class_token"}, True),
        ("convnextv2_atto", {"feature_map": "features"}, False),
        ("vgg11", {"head": "gap"}, False),
        ("vit_tiny_patch16_224", {"backbone_options": {"part_selection": True}}, True),
    ],
)
def test_a_head_unlike_timms_is_left_out(name, changes, complete):
    state, classes, found = to_timm(name, **changes)
    assert (classes, found) == (0, complete)
    heads = ("fc", "head", "classifier", "pre_logits")
    assert state
    assert not [key for key in state if key.startswith(heads)]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resnet18", {"feature_map": "stage2"}, "the map 'stage2' is inside resnet18"),
        ("resnet18", {"backbone_b": "resnet34", "head": "bilinear"}, "no classifier of two"),
        ("inception_v3_fid", {}, "timm has no network inception_v3_fid"),
    ],
)
def test_what_timm_cannot_hold_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        to_timm(name, **changes)
