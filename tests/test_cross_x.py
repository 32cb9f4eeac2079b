"""Cross-X's head and loss against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax.methods import cross_x
from fgc_jax.models.heads.cross_x import CrossX
from tests import networks, slopes, test_losses
from tests.by_hand import array, linear, norm, softmax, with_random_norms

LOW, HIGH = 6, 9


def make_head(**options):
    return with_random_norms(CrossX((LOW, HIGH), 5, reduction=3, rngs=nnx.Rngs(0), **options))


def random_maps(low=(4, 6), high=(2, 3), images=2):
    rng = np.random.default_rng(1)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(np.float32))

    return normal(images, *low, LOW), normal(images, *high, HIGH)


def excite(module, x):
    gates = linear(module.fc2, np.maximum(linear(module.fc1, x.mean((1, 2))), 0))
    return x * (1 / (1 + np.exp(-gates)))[:, None, None, :]


def convolve(kernel, x):
    _, h, w, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    result = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i, j in np.ndindex(h, w):
        window = padded[:, i : i + 3, j : j + 3]
        result[:, i, j] = np.einsum("bijc,ijcd->bd", window, kernel)
    return result


def by_hand(head, maps, parts, low_pool):
    low, high = (np.asarray(x, np.float64) for x in maps)
    pooled = {"low": [], "high": [], "merged": []}
    for p in range(parts):
        fine, coarse = excite(head.excite_low[p], low), excite(head.excite_high[p], high)
        pooled["low"].append(fine.max((1, 2)) if low_pool == "max" else fine.mean((1, 2)))
        pooled["high"].append(coarse.mean((1, 2)))
        thin = coarse @ array(head.reduce[p].kernel)[0, 0]
        large = np.zeros_like(fine)
        for i, j in np.ndindex(fine.shape[1:3]):
            row = i * thin.shape[1] // fine.shape[1]
            large[:, i, j] = thin[:, row, j * thin.shape[2] // fine.shape[2]]
        x = norm(head.norm[p], convolve(array(head.merge[p].kernel), fine + large))
        pooled["merged"].append(x.mean((1, 2)))
    named = {f"{name}_parts": np.stack(vectors, 1) for name, vectors in pooled.items()}
    for name, vectors in pooled.items():
        named[name] = linear(getattr(head, f"fc_{name}"), np.concatenate(vectors, 1))
    return named


@pytest.mark.parametrize(("parts", "low_pool", "high"), [(2, "max", (2, 3)), (3, "avg", (3, 4))])
def test_the_head_is_its_formula(parts, low_pool, high):
    head, maps = make_head(parts=parts, low_pool=low_pool), random_maps(high=high)
    logits, named = jax.jit(lambda maps: head(maps))(maps)
    wanted = by_hand(head, maps, parts, low_pool)
    assert named.keys() == wanted.keys()
    for name, value in wanted.items():
        networks.assert_near(named[name], value)
    total = wanted["low"] + wanted["high"] + wanted["merged"]
    networks.assert_near(logits, total)


def test_excitations_squeeze_to_no_less_than_one_unit():
    head = CrossX((LOW, HIGH), 5, rngs=nnx.Rngs(0))
    assert head.excite_low[0].fc1.kernel.shape == (LOW, 1)


def regulariser(parts, mask):
    """Cosines of every pair of images and parts."""
    images = [part for part, valid in zip(np.float64(parts), mask, strict=True) if valid]
    count = parts.shape[1]
    similar = np.zeros((count, count))
    for p, q in np.ndindex(count, count):
        cosines = [
            a[p] @ b[q] / (np.linalg.norm(a[p]) * np.linalg.norm(b[q]))
            for a in images
            for b in images
        ]
        similar[p, q] = np.mean(cosines)
    alike = sum(1 - similar[p, p] for p in range(count))
    return alike + sum(similar[p, q] for p in range(count) for q in range(p + 1, count))


@pytest.mark.parametrize("mask", [(1, 1, 1, 1), (1, 0, 1, 0)])
@pytest.mark.parametrize("count", [2, 3])
def test_c3s_is_its_formula(count, mask):
    parts = np.random.default_rng(2).normal(0.3, 1, (4, count, 7)).astype(np.float32)
    got = cross_x.c3s(jnp.asarray(parts), jnp.asarray(mask, jnp.float32))
    np.testing.assert_allclose(got, regulariser(parts, mask), rtol=1e-5)


def test_c3s_by_hand():
    # Parts the same in all images and orthogonal: none. Both parts equal: S = 1 off the diagonal.
    mask = jnp.ones(2)
    ideal = jnp.tile(jnp.array([[[2.0, 0.0], [0.0, 5.0]]]), (2, 1, 1))
    np.testing.assert_allclose(cross_x.c3s(ideal, mask), 0, atol=1e-6)
    np.testing.assert_allclose(cross_x.c3s(jnp.ones((2, 2, 2)), mask), 1, rtol=1e-6)
    # One part turns by a right angle from image to image: its mean cosine is 1/2.
    turned = ideal.at[1, 0].set(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(cross_x.c3s(turned, mask), 0.5 + 0.5, rtol=1e-6)
    assert float(cross_x.c3s(ideal, jnp.zeros(2))) == 0


def test_zero_maps_are_finite_with_their_gradients():
    head = make_head()

    def total(maps):
        logits, named = head(maps)
        mask = jnp.ones(2)
        terms = [cross_x.c3s(named[f"{name}_parts"], mask) for name in ("low", "high", "merged")]
        return sum(terms) + logits.sum() + cross_x.divergence(named["high"], named["low"]).sum()

    zeros = jax.tree.map(jnp.zeros_like, random_maps())
    value, gradients = jax.jit(jax.value_and_grad(total))(zeros)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_a_divergence_of_sure_levels_is_finite():
    sure = jnp.array([[200.0, 0.0, 0.0]])
    total = lambda x, y: cross_x.divergence(x, y).sum()  # noqa: E731
    value, gradient = jax.value_and_grad(total, argnums=(0, 1))(sure, sure[:, ::-1])
    np.testing.assert_allclose(value, 200, rtol=1e-6)
    assert np.isfinite(gradient).all()


def make_batch(mask=(1, 1, 1, 1), mixed=False):
    return test_losses.of_five_classes(np.zeros((4, 2, 2, 3)), mask, mixed)


def test_each_weight_of_the_head_learns():
    batch = make_batch() | {"image": random_maps(images=4)}
    slopes.assert_in_all_weights(make_head(), cross_x.make(None), batch)


LEVELS = ("high", "low", "merged")
GAMMAS = {"high": 1.0, "low": 0.25, "merged": 0.1}
TERMS = ("class_loss", "c3s_loss", "kl_loss")


def make_method():
    gammas = {f"gamma_{name}": gamma for name, gamma in GAMMAS.items()}
    return cross_x.make(None, **gammas, kl_weight=0.5)


def loss_by_hand(named, batch):
    """(value, *TERMS) of what the head names."""
    share = {name: softmax(np.float64(named[name])) for name in LEVELS}
    total = softmax(sum(np.float64(named[name]) for name in LEVELS))
    goals = np.stack([test_losses.goal_of(batch, image, 5) for image in range(4)])
    entropies = -(goals * np.log(total)).sum(1)
    high = share["high"]
    apart = sum((high * np.log(high / share[name])).sum(1) for name in ("low", "merged"))
    valid = np.array(batch["mask"], bool)
    parts = {name: regulariser(named[f"{name}_parts"], valid) for name in LEVELS}
    alike = sum(gamma * parts[name] for name, gamma in GAMMAS.items())
    terms = entropies[valid].mean(), alike, apart[valid].mean()
    return terms[0] + terms[1] + 0.5 * terms[2], *terms


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("mask", [(1, 1, 1, 1), (1, 0, 1, 0)])
def test_the_loss_is_its_formula(mask, mixed):
    rng = np.random.default_rng(4)
    named = {name: rng.normal(0, 2, (4, 5)).astype(np.float32) for name in LEVELS}
    named |= {f"{name}_parts": rng.normal(size=(4, 2, 7)).astype(np.float32) for name in LEVELS}
    logits = sum(named[name] for name in LEVELS)
    batch = make_batch(mask, mixed)
    out = {f"head/{name}": value for name, value in named.items()}
    model = test_losses.answering(logits, **out)
    value, report = test_losses.call(make_method(), model, batch)
    found = [value, *(report.scalars[name] for name in TERMS)]
    np.testing.assert_allclose(found, loss_by_hand(named, batch), rtol=1e-5)
    np.testing.assert_array_equal(report.outputs["logits"], logits)


@pytest.mark.parametrize(("parts", "low_pool"), [(2, "max"), (3, "avg")])
def test_its_gradients_are_those_of_the_formula(parts, low_pool):
    head, batch = make_head(parts=parts, low_pool=low_pool), make_batch((1, 0, 1, 1))

    def reference(head, maps):
        return loss_by_hand(by_hand(head, maps, parts, low_pool), batch)

    maps = random_maps(low=(3, 4), images=4)
    slopes.assert_those_of_a_loss(reference, make_method(), TERMS, head, maps, batch)
