"""Gradients of heads and losses: against references in NumPy, and whether each weight has one."""

import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax import models, trees
from fgc_jax.models.classifier import Classifier
from tests import test_losses

STEP = 1e-6


def assert_those_of(reference, function, tree):
    """That function(tree) -> f32 [N] in JAX has the values of reference(tree) in float64, and its
    slopes.

    Each leaf of the tree moves along one random direction, forth and back in the reference.
    """
    tree = jax.tree.map(np.float64, tree)
    leaves, structure = jax.tree.flatten(tree)
    both = jax.jit(lambda tree: (function(tree), jax.jacrev(function)(tree)))
    values, found = both(jax.tree.map(jnp.float32, tree))
    wanted = np.array(reference(tree))
    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
    # No seed that draws arrays: where scale does not matter, a leaf has no slope along itself.
    rng = np.random.default_rng(170508016)
    for index, (path, slopes) in enumerate(jax.tree.leaves_with_path(found)):
        slopes = np.float64(slopes)
        assert slopes.any(), path
        direction = rng.normal(size=slopes.shape[1:])
        ends = []
        for step in (STEP, -STEP):
            moved = [*leaves]
            moved[index] = leaves[index] + step * direction
            ends.append(np.array(reference(structure.unflatten(moved))))
        np.testing.assert_allclose(
            np.sum(slopes * direction, axis=tuple(range(1, slopes.ndim))),
            (ends[0] - ends[1]) / (2 * STEP),
            rtol=1e-4,
            atol=1e-5 * np.abs(slopes).max(),
            err_msg=jax.tree_util.keystr(path),
        )


def assert_those_of_a_loss(reference, method, names, head, maps, batch):
    """That a method's loss and the terms `names` beside it have the values and slopes of
    reference(head, maps), for the maps and for every weight of the head."""
    graphdef, (weights, stats) = nnx.graphdef(head), models.split(head)
    batch = jax.tree.map(jnp.asarray, batch)

    def live(tree):
        return nnx.merge(graphdef, tree["weights"], stats)

    def computed(tree):
        def model(images, rngs):
            logits, named = live(tree)(tree["maps"])
            return logits, {f"head/{name}": x for name, x in named.items()}

        value, report = test_losses.call(method, model, batch)
        return jnp.stack([value, *(report.scalars[name] for name in names)])

    tree = {"weights": weights, "maps": maps}
    assert_those_of(lambda tree: reference(live(tree), tree["maps"]), computed, tree)


def layers(tree):
    """Nested dicts as attributes, so that a formula reads arrays as it reads a head's."""
    if not isinstance(tree, Mapping):
        return tree
    return types.SimpleNamespace(**{name: layers(each) for name, each in tree.items()})


class Given(nnx.Module):
    """A backbone whose maps are the images: an array, or several of them."""

    def __call__(self, images, *, rngs=None):
        several = images if isinstance(images, tuple) else (images,)
        return {str(index): x for index, x in enumerate(several)}


def assert_in_all_weights(head, method, batch):
    """That each parameter of a head has a finite gradient other than 0 by a method's loss, with
    batch["image"] for the maps that it reads."""
    maps = batch["image"] if isinstance(batch["image"], tuple) else (batch["image"],)
    names = tuple(str(index) for index in range(len(maps)))
    model = Classifier(Given(), head, feature_maps=(names,))
    variables, stats = models.split(model)
    graphdef = nnx.graphdef(model)
    batch = jax.tree.map(jnp.asarray, batch)

    def total(variables):
        call = lambda live: test_losses.call(method, live, batch)[0]  # noqa: E731
        return models.apply(graphdef, variables, stats, call)[0]

    for path, slope in trees.flatten(jax.jit(jax.grad(total))(variables)).items():
        assert jnp.isfinite(slope).all() and (slope != 0).any(), path
