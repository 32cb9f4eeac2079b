import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax.models.heads import basic
from tests import networks, seeded

GRIDS = ((7, 7), (2, 3), (9, 5), (10, 8))


def maps(height, width, channels, seed=0, batch=2):
    images = seeded.images(batch, height, width, seed)
    return jnp.asarray(np.tile(images, (1, 1, 1, -(-channels // 3)))[..., :channels])


def bilinear(channels=(4,), classes=3, **options):
    return basic.Bilinear(channels, classes, rngs=nnx.Rngs(0), **options)


def by_hand(head, first, second, epsilon):
    """The definition, position by position."""
    b, h, w, _ = first.shape
    total = np.zeros((b, first.shape[3], second.shape[3]))
    for row in range(h):
        for column in range(w):
            total += first[:, row, column, :, None] * second[:, row, column, None, :]
    x = (total / (h * w)).reshape(b, -1)
    x = np.sign(x) * np.sqrt(np.abs(x) + epsilon)
    x /= np.sqrt((x**2).sum(1, keepdims=True))
    return x @ np.asarray(head.fc.kernel[...]) + np.asarray(head.fc.bias[...])


def test_bilinear_with_itself():
    x = maps(3, 5, 4)
    head = bilinear(epsilon=1e-3)
    expected = by_hand(head, np.asarray(x, np.float64), np.asarray(x, np.float64), 1e-3)
    networks.assert_near(head((x,))[0], expected)


def test_bilinear_of_two_streams():
    first, second = maps(3, 5, 4), maps(3, 5, 7, seed=1)
    head = bilinear((4, 7))
    expected = by_hand(head, np.asarray(first, np.float64), np.asarray(second, np.float64), 1e-5)
    networks.assert_near(head((first, second))[0], expected)


def test_bilinear_projects_each_stream():
    first, second = maps(3, 5, 4), maps(3, 5, 7, seed=1)
    head = bilinear((4, 7), projection=2)
    assert head.fc.kernel.shape == (4, 3)
    kernels = [np.asarray(p.kernel[...], np.float64) for p in head.projections]
    projected = [np.asarray(x) @ kernel for x, kernel in zip((first, second), kernels, strict=True)]
    expected = by_hand(head, *projected, 1e-5)
    networks.assert_near(head((first, second))[0], expected)
    alone = bilinear((4,), projection=2)
    assert len(alone.projections) == 1


def test_signed_sqrt_has_a_bounded_slope():
    x = jnp.array([-4.0, -1e-9, 0.0, 1e-9, 4.0])
    epsilon = 1e-4
    root = np.sqrt([4 + epsilon, 1e-9 + epsilon])
    expected = [-root[0], -root[1], 0, root[1], root[0]]
    np.testing.assert_allclose(basic.signed_sqrt(x, epsilon), expected, rtol=1e-5)
    slopes = jax.vmap(jax.grad(lambda v: basic.signed_sqrt(v, epsilon)))(x)
    assert (jnp.abs(slopes) <= 0.5 / np.sqrt(epsilon) + 1e-3).all()


def test_l2_normalise():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(basic.l2_normalise(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    gradient = jax.grad(lambda v: basic.l2_normalise(v)[:, 0].sum())(x)
    assert jnp.isfinite(gradient).all()


def classify(head, pooled):
    return pooled @ np.float64(head.fc.kernel[...]) + np.float64(head.fc.bias[...])


def test_gap_averages():
    head = basic.Gap((4,), 3, rngs=nnx.Rngs(0))
    x = maps(3, 5, 4)
    networks.assert_near(head((x,))[0], classify(head, np.float64(x).mean((1, 2))))


def test_avgmax_puts_the_maximum_first_as_fastai_does():
    head = basic.Gap((4,), 3, pool="avgmax", rngs=nnx.Rngs(0))
    x = np.float64(maps(3, 5, 4))
    pooled = np.concatenate([x.max((1, 2)), x.mean((1, 2))], 1)
    networks.assert_near(head((jnp.float32(x),))[0], classify(head, pooled))


def test_the_mlp_is_fastais():
    head = basic.Gap((4,), 3, pool="avgmax", mlp=True, hidden=6, dropout=0.5, rngs=nnx.Rngs(0))
    assert (head.dropout1.rate, head.dropout.rate) == (0.25, 0.5)
    assert head.fc1.kernel.shape == (8, 6)
    eval_head = nnx.view(head, use_running_average=True, deterministic=True)
    x = np.float64(maps(3, 5, 4))
    pooled = np.concatenate([x.max((1, 2)), x.mean((1, 2))], 1)
    normed = lambda v: v / np.sqrt(1 + 1e-5)  # noqa: E731  (statistics are 0 and 1 at the start)
    hidden = np.maximum(normed(pooled) @ np.asarray(head.fc1.kernel[...]), 0)
    expected = normed(hidden) @ np.asarray(head.fc.kernel[...])
    networks.assert_near(eval_head((jnp.float32(x),))[0], expected)


@pytest.mark.parametrize("grid", GRIDS)
def test_vgg_fc_equals_timms(grid):
    head = basic.VggFc((32,), 5, hidden=16, rngs=nnx.Rngs(0))
    names = {"fc1": "pre_logits.fc1", "fc2": "pre_logits.fc2", "fc": "head.fc"}
    shapes = {"fc1": (16, 32, 7, 7), "fc2": (16, 16, 1, 1), "fc": (5, 16)}
    for ours, theirs in names.items():
        weight = seeded.value(f"{theirs}.weight", shapes[ours])
        axes = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
        getattr(head, ours).kernel[...] = jnp.asarray(weight.transpose(axes))
        getattr(head, ours).bias[...] = jnp.asarray(
            seeded.value(f"{theirs}.bias", shapes[ours][:1])
        )
    stored = np.load(networks.GOLDEN / "vgg_head.npz")["logits_{}x{}".format(*grid)]
    assert networks.relative(head((maps(*grid, 32),))[0], stored) < 1e-5


@pytest.mark.parametrize(
    "head",
    [
        lambda: basic.Gap((4,), 3, dropout=0.5, rngs=nnx.Rngs(0)),
        lambda: basic.Bilinear((4,), 3, dropout=0.5, rngs=nnx.Rngs(0)),
        lambda: basic.VggFc((4,), 3, hidden=8, dropout=0.5, rngs=nnx.Rngs(0)),
    ],
)
def test_dropout_draws_anew_and_is_off_in_evaluation(head):
    head, x = head(), maps(7, 7, 4)
    first, again, other = (head((x,), rngs=nnx.Rngs(dropout=seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    quiet = nnx.view(head, deterministic=True)
    np.testing.assert_array_equal(quiet((x,))[0], quiet((x,))[0])
