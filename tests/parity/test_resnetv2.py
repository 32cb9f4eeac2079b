"""A shallow BiT against timm's modules, by `make parity`.

On small grids one activation that rounding lifts over the kink of a ReLU changes gradients by a
percent, in timm as here. So all are lifted over it: what is left is smooth.
"""

import functools

import jax
import numpy as np
import torch
from timm.layers import StdConv2d
from timm.models.resnetv2 import ResNetV2

from fgc_jax import models
from fgc_jax.convert import timm as convert
from fgc_jax.models import pretrained
from fgc_jax.models.backbones import resnetv2
from scripts import make_golden
from tests import networks, seeded
from tests.parity import oracles

DEPTHS = (1, 1, 1, 2)


def test_a_shallow_bit_has_all_of_timms_gradients(monkeypatch):
    row = resnetv2.row(DEPTHS, bit=True)
    monkeypatch.setitem(models.BACKBONES, "shallow", row)
    convolution = functools.partial(StdConv2d, eps=1e-8)
    model = make_golden.load_seeded(ResNetV2(DEPTHS, stem_type="fixed", conv_layer=convolution))
    with torch.no_grad():
        for key, x in model.named_parameters():
            if "norm" in key and key.endswith("bias"):
                x += 10
    abstract, params, stats = oracles.trees_of("shallow", oracles.state_of(model))
    graphdef = models.evaluation_graphdef(abstract)
    images, labels = seeded.images(2, 139, 107), np.array([3, 1])

    logits = model(make_golden.to_torch(images))
    (-torch.log_softmax(logits, -1)[range(2), labels].mean()).backward()

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        found, _ = models.apply(graphdef, params, stats, lambda live: live(images)[0])
        return -jax.nn.log_softmax(found)[np.arange(2), labels].mean(), found

    (_, found), gradients = loss(params)
    assert networks.relative(found, logits.detach().numpy()) < 1e-4
    mine = convert.to_state_dict(gradients, {}, pretrained.original_names(row))
    theirs = {key: x.grad.numpy() for key, x in model.named_parameters()}
    assert mine.keys() == theirs.keys()
    off = {k: np.abs(mine[k] - x).max() / np.abs(x).max() for k, x in theirs.items()}
    print(f"\n| shallow BiT, worst gradient | {max(off.values()):.1e} |", end=" ")
    assert max(off.values()) < 1e-4, max(off, key=off.get)
