import json
from pathlib import Path

from fgc_jax import models
from fgc_jax.cli import list_models


def test_every_backbone_and_tag_is_listed(capsys):
    assert list_models.main([]) == 0
    text = capsys.readouterr().out
    for name, row in models.BACKBONES.items():
        assert name in text
        for facts in row.weights.values():
            assert (facts.source or facts.url) in text


def test_a_tag_without_weights_says_so(capsys):
    assert list_models.main(["efficientnet_b6", "inception_v3_fid"]) == 0
    *_, fid, none, tf, _, _ = capsys.readouterr().out.splitlines()
    assert fid.split()[-6:-1] == ["299", "1008", "apache-2.0", "the", "file"]
    assert fid.endswith("/pt_inception-2015-12-05-6726825d.pth")
    assert none.startswith("efficientnet_b6 ")
    assert none.split()[5:] == ["untrained", "528", "none", "published"]
    assert "tf_efficientnet_b6" in tf and "none" not in tf


def test_layers_are_named_by_their_paths():
    """These names are values of config.phases[i].train, and must not change."""
    for name, row in models.BACKBONES.items():
        first, *others = row.layers
        assert first in ("stem", "embed") or first in row.layers[first], name
        assert all(layer in row.layers[layer] for layer in others), name
    swin = models.BACKBONES["swin_tiny_patch4_window7_224"].layers
    assert next(iter(swin)) == "patch_embed"


def test_the_readme_counts_them():
    rows = models.BACKBONES.values()
    weights = sum(bool(x.source or x.url) for row in rows for x in row.weights.values())
    counted = f"{len(models.BACKBONES)} networks with {weights} sets of published weights"
    assert counted in (Path(__file__).parents[1] / "README.md").read_text()


def test_words_choose(capsys):
    assert list_models.main(["vgg16", "resnet18"]) == 0
    header, rule, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["model", "parameters", "GFLOP", "MB"]
    assert set(rule) == {"-"}
    first = [line.split()[0] for line in lines]
    assert {"resnet18", "vgg16", "vgg16_bn"} <= set(first)
    assert "vgg11" not in first
    row = next(line for line in lines if line.startswith("vgg16 "))
    assert row.split()[1:] == [
        *("138.4", "M", "15.5", "553", "tv_in1k", "224", "1000", "bsd-3-clause"),
        "hub:timm/vgg16.tv_in1k",
    ]


def test_json_holds_all_facts(capsys):
    assert list_models.main(["resnet50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["resnet50"]
    assert found["parameters"] == 25_557_032
    assert found["feature_maps"]["stage3"] == {"channels": 1024, "stride": 16}
    assert found["layers"][-1] == "layer4/2"
    assert found["weights"]["tv2_in1k"]["test_crop_fraction"] == 0.965


def test_an_unknown_word_is_one_line(capsys):
    assert list_models.main(["vgg16", "resnot"]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err == "error: no backbone has 'resnot' in its name\n"
