"""Inception-v3 as torchvision has it, and its FID variant, against PyTorch, by `make parity`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchvision
from torch.nn import functional

from fgc_jax import models, trees
from fgc_jax.convert import timm as convert
from fgc_jax.models import pretrained
from scripts import make_golden
from tests import networks, seeded
from tests.parity import oracles

LIMIT = 1e-4
SIZES = ((299, 299), (140, 107))


def torchvisions(**options):
    return torchvision.models.inception_v3(init_weights=False, transform_input=False, **options)


def pooling_by(pool, block):
    """The block with another pooling before its last convolution, under the same names."""

    def forward(x):
        branches = block._forward(x)[:-1]
        return torch.cat([*branches, block.branch_pool(pool(x, 3, stride=1, padding=1))], 1)

    block.forward = forward


def fid_network():
    """torchvision's Inception-v3 with what sets the network of FID apart, as pytorch-fid says:
    averages leave out the padding, the last block takes maxima, and there are 1008 classes."""
    model = torchvisions(num_classes=1008, aux_logits=False)
    for name, block in model.named_children():
        if name.startswith("Mixed") and hasattr(block, "branch_pool"):
            inside = functools.partial(functional.avg_pool2d, count_include_pad=False)
            pooling_by(functional.max_pool2d if name == "Mixed_7c" else inside, block)
    return make_golden.load_seeded(model)


def features_and_logits(model, pixels):
    """(pooled features [B, 2048], logits) of a torchvision network, inputs not resized."""
    found = {}
    hook = model.avgpool.register_forward_hook(lambda *x: found.update(features=x[-1].flatten(1)))
    logits = model(make_golden.to_torch(pixels))
    hook.remove()
    return found["features"], logits


def test_torchvisions_file_gives_torchvisions_logits(tmp_path):
    model = make_golden.load_seeded(torchvisions())
    assert model.AuxLogits is not None
    path = tmp_path / "inception_v3.pth"
    torch.save(model.state_dict(), path)
    loaded = models.load("inception_v3", str(path))
    assert "left out on purpose: AuxLogits" in loaded.report
    for height, width in SIZES:
        images = seeded.images(2, height, width)
        difference = networks.relative(loaded(images)[0], oracles.run_torch(model, images))
        print(
            f"\n| torchvision inception_v3 from .pth | {height}x{width} {difference:.1e} |", end=" "
        )
        assert difference <= LIMIT


def test_the_network_of_fid_gives_its_features(tmp_path):
    model = fid_network()
    path = tmp_path / "fid.pth"
    torch.save(model.state_dict(), path)
    loaded = models.load("inception_v3_fid", str(path))
    assert loaded.num_classes == loaded.preprocess.classes == 1008
    plain = models.load("inception_v3", str(path), num_classes=1008)
    for height, width in SIZES:
        pixels = np.clip(0.5 + seeded.images(2, height, width) / 4, 0, 1)
        with torch.no_grad():
            features, logits = features_and_logits(model, 2 * pixels - 1)
        facts = loaded.preprocess
        images = (pixels - np.float32(facts.mean)) / np.float32(facts.std)
        found, out = loaded(images)
        differences = [
            networks.relative(out["features"].mean((1, 2)), features.numpy()),
            networks.relative(found, logits.numpy()),
        ]
        other = networks.relative(plain(images)[1]["features"].mean((1, 2)), features.numpy())
        print(
            f"\n| inception_v3_fid | {height}x{width} features {differences[0]:.1e}, logits "
            f"{differences[1]:.1e}, Inception-v3 with its weights {other:.1e} |",
            end=" ",
        )
        assert max(differences) <= LIMIT
        assert other > 100 * LIMIT  # Otherwise the poolings were not compared.


def test_the_network_of_fid_has_its_gradients():
    model = fid_network()
    state = oracles.state_of(model)
    abstract, params, stats = oracles.trees_of("inception_v3_fid", state, 1008)
    graphdef = models.evaluation_graphdef(abstract)
    images = seeded.images(2, 139, 107)
    keys = [
        "Conv2d_1a_3x3.conv.weight",
        "Mixed_5c.branch_pool.conv.weight",
        "Mixed_6b.branch7x7dbl_3.bn.weight",
        "Mixed_7c.branch_pool.conv.weight",
    ]
    weights = np.random.default_rng(0).normal(size=(2, 2048)).astype(np.float32)
    features, _ = features_and_logits(model, images)
    (features * torch.from_numpy(weights)).sum().backward()
    expected = {key: dict(model.named_parameters())[key].grad.numpy() for key in keys}

    @jax.jit
    @jax.grad
    def gradient(params):
        _, out = models.apply(graphdef, params, stats, lambda live: live(images))[0]
        return (out["features"].mean((1, 2)) * weights).sum()

    pairs = pretrained.original_names(models.BACKBONES["inception_v3_fid"])
    found = convert.to_state_dict(gradient(jax.tree.map(jnp.asarray, params)), {}, pairs)
    assert found.keys() == {key for key in state if "running" not in key}
    assert len(trees.flatten(params)) == len(found)
    for key in keys:
        difference = np.abs(found[key] - expected[key]).max() / np.abs(expected[key]).max()
        print(f"\n| inception_v3_fid, gradient of {key} | {difference:.1e} |", end=" ")
        assert difference <= 1e-3
