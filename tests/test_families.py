"""What holds of every family: bfloat16 is near float32, and checkpointing changes no number."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import models, trees
from fgc_jax.models import bridge, conv
from tests import networks, seeded
from tests.small_networks import SMALL

# One of each file of fgc_jax/models, and what only some of a family's networks have.
NAMES = "bottleneck bit inception vgg_bn lite efficientnetv2 vit_registers eva convnextv2 swin"
FAMILIES = {name: SMALL[name] for name in NAMES.split()}
# Each program runs once: to compile it carelessly is faster, as is XLA's own convolution.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, row in FAMILIES.items():
        monkeypatch.setitem(models.BACKBONES, name, row)
    with conv.plain():
        yield


def images(name, batch):
    size = 79 if name == "inception" else 48
    return jnp.asarray(seeded.images(batch, size, size))


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_near_float32(name):
    _, *variables = seeded.trees(name, 5, head="gap")

    def forward(dtype):
        model = models.abstract(seeded.config(name, head="gap", dtype=dtype), 5)
        graphdef = models.evaluation_graphdef(model)
        run = lambda live: live(images(name, 2))  # noqa: E731
        program = jit(lambda *args: models.apply(graphdef, *args, run)[0])
        return jax.device_get(program(*variables))

    exact, _ = forward("float32")
    near, maps = forward("bfloat16")
    maps = {key: x for key, x in maps.items() if not key.startswith(models.ATTENTION)}
    assert {x.dtype for x in maps.values()} == {jnp.dtype(jnp.bfloat16)}
    assert all(np.isfinite(x).all() for x in maps.values())
    assert 0 < networks.relative(near, exact) < 0.1


def training(name, **changes):
    """(loss, new statistics, gradients) of a step with batch statistics and stochastic depth."""
    row = FAMILIES[name]
    rate = 0.0 if name in ("inception", "vgg_bn") else 0.9  # those have no branches to drop
    early = "stage2" if "stage2" in row.channels else "features"  # two blocks
    changes |= {"head": "gap", "feature_map": early, "drop_path": rate}
    config, params, stats = seeded.trees(name, 5, **changes)
    model = nnx.view(
        models.abstract(config, 5),
        use_running_average=False,
        deterministic=False,
        raise_if_not_found=False,
    )

    def loss(params, stats, key):
        def forward(live):
            return live(images(name, 4), rngs=nnx.Rngs(key))[0]

        logits, new = models.apply(nnx.graphdef(model), params, stats, forward)
        return jax.nn.log_softmax(logits)[:, 0].mean(), new

    program = jit(jax.value_and_grad(loss, has_aux=True))
    # 2 is a seed that drops a branch of the second block.
    (value, new), gradients = jax.device_get(program(params, stats, jax.random.key(2)))
    losses = {float(program(params, stats, jax.random.key(seed))[0][0]) for seed in range(2, 9)}
    assert (len(losses) > 1) == (rate > 0)
    new, old = trees.flatten(new), trees.flatten(stats)
    assert all((new[path] != old[path]).all() for path in old)
    return {"loss": value, **new, **trees.flatten(gradients)}


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_changes_no_number(name, monkeypatch):
    kept = training(name)
    wrapped, wrap = [], bridge._computed_again
    monkeypatch.setattr(bridge, "_computed_again", lambda f: wrapped.append(f) or wrap(f))
    again = training(name, remat=True)
    assert wrapped, "nothing is computed again"
    assert again.keys() == kept.keys()
    for path, x in kept.items():
        limit = 1e-4 * np.abs(x).max() + 1e-6
        assert np.abs(again[path] - x).max() <= limit, path
