"""timm's networks with seeded weights, and ours with the same."""

import jax
import numpy as np
import timm
import torch

from fgc_jax import models, trees
from fgc_jax.convert import timm as convert
from fgc_jax.models import pretrained
from scripts import make_golden
from tests import seeded


def as_numpy(state):
    return {key: x.detach().numpy() for key, x in state.items()}


def seeded_timm(name, **options):
    """timm's network in evaluation mode, with weights of tests/seeded.py."""
    return make_golden.load_seeded(timm.create_model(name, **options))


def another_size(name) -> tuple[int, int]:
    """Rows and columns of an image unlike the one that the weights were trained on."""
    if name.startswith("swin"):
        # Windows are padded but not smaller: those have tables of their own in timm.
        return (480, 416) if name.endswith("384") else (288, 256)
    if name.startswith(("vit", "deit")):
        patch = int(name.partition("patch")[2].partition("_")[0])
        return 11 * patch, 9 * patch
    if name.startswith("resnetaa"):  # timm takes sides of multiples of 32 alone.
        return 192, 160
    return 193, 161


def at_size(name, height, width):
    """The options of timm.create_model for images of a size."""
    if name.startswith("swin"):
        return {"img_size": (height, width)}
    if name.startswith(("vit", "deit")):
        return {"dynamic_img_size": True}
    return {}


def trees_of(name, state, num_classes=1000):
    """(abstract model, params, stats) with the values of a timm state dict, in NumPy.

    A head that the state has no weights for is zero.
    """
    row = models.BACKBONES[name]
    model = models.abstract(seeded.config(name), num_classes)
    params, stats = models.split(model)
    names, left_out = pretrained.names(row, "backbone", state, params, head=True, classifier=True)
    filled = convert.fill(params, stats, state, names, left_out)
    filled = jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, filled
    )
    return model, *filled


def state_of(model) -> dict[str, np.ndarray]:
    """A PyTorch network's state dict under timm's names, in NumPy."""
    return convert.normalise(as_numpy(model.state_dict()))


def paths(name, params) -> dict[str, str]:
    """timm's key of each parameter -> our path."""
    pairs = pretrained.original_names(models.BACKBONES[name])
    return {convert.source_key(path, pairs): path for path in trees.flatten(params)}


@torch.no_grad()
def run_torch(model, images):
    return model(make_golden.to_torch(images)).numpy()
