"""Erasing, mixup and cutmix: boxes, labels, weights and masks add up."""

import jax
import numpy as np
import pytest

from fgc_jax.data import augment

N, SIDE = 64, 24


def batch(mask=None):
    """Each image is one level: its number."""
    image = np.broadcast_to(np.arange(N, dtype=np.uint8).reshape(N, 1, 1, 1), (N, SIDE, SIDE, 3))
    mask = np.ones(N, np.float32) if mask is None else mask
    return {"image": image, "label": np.arange(N, dtype=np.int32), "mask": mask}


def run(name, options=None, data=None, seed=0):
    step = jax.jit(augment.build(((name, options or {}),)))
    return jax.tree.map(np.asarray, step(jax.random.key(seed), data or batch()))


def test_erased_is_one_box_in_the_allowed_range():
    data = {**batch(), "image": np.zeros((N, SIDE, SIDE, 3), np.uint8)}
    out = run("erase", {"p": 1.0, "scale": (0.1, 0.3), "fill": (10, 20, 30)}, data)["image"]
    erased = out[..., 0] > 0
    np.testing.assert_array_equal(out[erased], np.broadcast_to((10, 20, 30), out[erased].shape))
    shares = erased.mean((1, 2))
    assert 0.08 < shares.min() < 0.15 and 0.25 < shares.max() < 0.33
    for one in erased:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        box = one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
    assert erased.any((0, 1)).all() and erased.any((0, 2)).all()  # anywhere


def test_erase_takes_a_share_of_the_images():
    out = run("erase", {"p": 0.25})["image"]
    changed = (out != batch()["image"]).any((1, 2, 3))
    assert 0.1 < changed.mean() < 0.4


@pytest.mark.parametrize(
    ("fill", "colour"), [(None, 127.5), (200, 200), ([1, 2.5, 3], [1, 2.5, 3])]
)
def test_the_colour_of_what_is_erased(fill, colour):
    out = run("erase", {"p": 1.0, "fill": fill})["image"]
    erased = (out != batch()["image"]).all(-1)
    expected = np.broadcast_to(np.float32(colour), (erased.sum(), 3))
    np.testing.assert_array_equal(out[erased], expected)
    assert erased.any()
    if fill is None:
        np.testing.assert_array_equal(run("erase", {"p": 1.0})["image"], out)


def test_erased_with_noise():
    out = run("erase", {"p": 1.0, "fill": "noise"})["image"]
    noise = out[out != batch()["image"]]
    assert 115 < noise.mean() < 140 and noise.min() < 5 and noise.max() > 250
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.05


def test_what_mixup_makes():
    out = run("mixup", {"alpha": 0.4})
    weight, label, other = out["weight"], out["label"], out["label_b"]
    assert weight.dtype == np.float32 and other.dtype == np.int32
    np.testing.assert_array_equal(label, np.arange(N))
    assert sorted(other) == list(range(N)) and (other != label).all()
    expected = (weight * label + (1 - weight) * other).reshape(N, 1, 1, 1)
    expected = np.broadcast_to(expected, out["image"].shape)
    np.testing.assert_allclose(out["image"], expected, atol=1e-3)
    assert len(set(weight)) == N  # each its own


def test_the_weight_of_cutmix_is_the_area_that_is_left():
    out = run("cutmix")
    image, label, other = out["image"], out["label"], out["label_b"]
    own = image == label.reshape(N, 1, 1, 1)
    np.testing.assert_allclose(out["weight"], own[..., 0].mean((1, 2)), rtol=1e-6)
    assert (own | (image == other.reshape(N, 1, 1, 1))).all()
    assert (other != label).all()
    assert out["weight"].min() < 0.3 and out["weight"].max() > 0.9
    for one in ~own[..., 0]:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        if len(rows):
            assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@pytest.mark.parametrize(("alpha", "share"), [(0.2, 0.67), (1.0, 0.2), (8.0, 0.0)])
def test_mixups_weights_come_from_a_beta_distribution(alpha, share):
    """`share` of Beta(alpha, alpha) is below 0.1 or above 0.9, by scipy.stats."""
    weight = np.concatenate([run("mixup", {"alpha": alpha}, seed=i)["weight"] for i in range(4)])
    assert abs(((weight < 0.1) | (weight > 0.9)).mean() - share) < 0.1
    assert abs(weight.mean() - 0.5) < 0.1


@pytest.mark.parametrize("name", ["mixup", "cutmix", "mixup_or_cutmix"])
def test_a_masked_image_is_mixed_with_nothing(name):
    mask = (np.arange(N) % 3 > 0).astype(np.float32)
    out = run(name, data=batch(mask))
    alone = (mask == 0) | (mask[out["label_b"]] == 0)
    assert 20 < alone.sum() < 50
    np.testing.assert_array_equal(out["weight"][alone], 1)
    np.testing.assert_array_equal(out["image"][alone], batch()["image"][alone])
    assert (out["weight"][~alone] < 1).mean() > 0.8
    np.testing.assert_array_equal(out["mask"], mask)


def test_p_and_the_choice_between_the_two():
    out = run("mixup_or_cutmix", {"p": 0.5, "cutmix": 0.3})
    mixed = out["weight"] < 1
    assert 0.3 < mixed.mean() < 0.7
    boxed = (out["image"] == batch()["image"]).any((1, 2, 3)) & mixed
    assert 0.1 < boxed.sum() / mixed.sum() < 0.55
    np.testing.assert_array_equal(out["image"][~mixed], batch()["image"][~mixed])


def test_a_single_image_stays_what_it_is():
    one = {name: value[:1] for name, value in batch().items()}
    out = run("mixup", data=one)
    np.testing.assert_allclose(out["image"], one["image"], atol=1e-5)
    np.testing.assert_array_equal(out["label_b"], one["label"])
