"""Files that scripts/convert_weights.py writes, in timm's hands, and timm's in ours."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from fgc_jax import models
from fgc_jax.cli import convert_weights
from fgc_jax.training import restored
from tests import networks, seeded
from tests.parity import oracles
from tests.tiny_run import run  # noqa: F401  (a fixture)

LIMIT = 1e-4
NAMES = ("resnet18", "convnextv2_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224")


@pytest.mark.parametrize("name", NAMES)
def test_files_go_to_timm_and_back(name, tmp_path):
    """timm's file is ours, rewritten by convert_weights.py is timm's again: the same logits."""
    theirs = oracles.seeded_timm(name, num_classes=7)
    images = seeded.images(2, 224, 224)
    expected = oracles.run_torch(theirs, images)
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    ours = models.load(name, str(tmp_path / "timm.safetensors"))
    assert networks.relative(ours(images)[0], expected) <= LIMIT

    output = tmp_path / "ours.safetensors"
    flags = [f"--model={name}", f"--input={tmp_path / 'timm.safetensors'}", f"--output={output}"]
    assert convert_weights.main(flags) == 0
    # timm loads strictly unless told otherwise.
    again = timm.create_model(name, num_classes=7, checkpoint_path=str(output)).eval()
    assert (oracles.run_torch(again, images) == expected).all()


def test_a_run_gives_timm_its_logits(run, tmp_path, capsys):  # noqa: F811
    output = tmp_path / "birds.safetensors"
    assert convert_weights.main([f"--workdir={run / 'run'}", f"--output={output}"]) == 0
    theirs = timm.create_model("resnet18", num_classes=3, checkpoint_path=str(output)).eval()
    images = seeded.images(2, 96, 96)
    expected = oracles.run_torch(theirs, images)
    loaded = restored.load_run(run / "run")
    model = models.abstract(loaded.plan.settings.model, 3)
    graphdef = models.evaluation_graphdef(model)
    found, _ = models.forward(graphdef, loaded.params, loaded.stats, images)
    assert networks.relative(found, expected) <= LIMIT
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    back = models.load("resnet18", str(tmp_path / "timm.pth"))
    assert networks.relative(back(images)[0], expected) <= LIMIT


def with_last_stride(model):
    """As docs/weights.md says it."""
    for name, module in list(model.layer4[0].named_modules()):
        if isinstance(module, torch.nn.Conv2d):
            module.stride = (1, 1)
        elif isinstance(module, torch.nn.AvgPool2d):
            model.layer4[0].set_submodule(name, torch.nn.Identity())


def with_patch_stride(model):
    model.patch_embed.proj.stride = (12, 12)


@pytest.mark.parametrize(
    ("name", "options", "change"),
    [
        ("resnet18", {"last_stride": 1}, with_last_stride),
        ("resnetaa50d", {"last_stride": 1}, with_last_stride),
        ("vit_tiny_patch16_224", {"patch_stride": 12}, with_patch_stride),
    ],
)
def test_timm_computes_the_same_with_a_backbones_options(name, options, change):
    height, width = (64, 112) if "patch_stride" in options else (96, 64)
    theirs = oracles.seeded_timm(name, **oracles.at_size(name, height, width))
    images = seeded.images(2, height, width)
    _, params, stats = oracles.trees_of(name, oracles.state_of(theirs))
    settings = seeded.config(name, backbone_options=options)
    graphdef = models.evaluation_graphdef(models.abstract(settings, 1000))
    found, _ = models.forward(graphdef, params, stats, images)
    assert networks.relative(found, oracles.run_torch(theirs, images)) > 100 * LIMIT
    change(theirs)
    assert networks.relative(found, oracles.run_torch(theirs, images)) <= LIMIT
