"""Chains of augmentations on the device: order, determinism, devices, and what they refuse."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax.data import augment
from fgc_jax.data.augment import geometry, operation

pytestmark = pytest.mark.usefixtures("compiled_quickly")

OPTIONS = {
    "crop": {"size": 16},
    "colour_jitter": {"brightness": 0.4, "hue": 0.2},
    "greyscale": {"p": 0.5},
}
SINGLE = {name: (name, OPTIONS.get(name, {})) for name in augment.OPS if "mix" not in name}
KINDS = (
    "resized_crop",
    "symmetric_warp",
    "colour_jitter",
    "blur",
    "equalise",
    "rand_augment",
    "erase",
)
VARIED = (*(SINGLE[name] for name in KINDS), ("mixup_or_cutmix", {}))
CHAIN = (
    ("flip", {}),
    ("rotate", {"degrees": 15.0}),
    ("resized_crop", {"size": 18}),
    ("lighting", {}),
    ("rand_augment", {}),
    ("erase", {"p": 0.5}),
    ("cutmix", {}),
)


def batch(n=16, side=20):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (n, side, side, 3), np.uint8),
        "label": np.arange(n, dtype=np.int32),
        "mask": np.ones(n, np.float32),
    }


def run(ops, data, seed=0):
    return jax.tree.map(np.asarray, jax.jit(augment.build(ops))(jax.random.key(seed), data))


def test_flip_mirrors_about_half_of_the_images():
    data = batch(64)
    flipped = run((("flip", {}),), data)["image"]
    same = (flipped == data["image"]).all((1, 2, 3))
    mirrored = (flipped == data["image"][:, :, ::-1]).all((1, 2, 3))
    assert (same | mirrored).all()
    assert 16 < mirrored.sum() < 48


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_normalise(kind):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = batch(2)["image"]
    got = jax.jit(augment.normalise, static_argnums=(1, 2))(images.astype(kind), mean, std)
    assert got.dtype == jnp.float32
    expected = (images / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert (np.asarray(got) < 0).any() and (np.asarray(got) > 1).any()


def test_nothing_to_do_gives_the_images_as_floats():
    data = batch()
    out = run((), {**data, "index": np.arange(16)})
    assert out["image"].dtype == np.float32
    np.testing.assert_array_equal(out["image"], data["image"])
    np.testing.assert_array_equal(out["index"], np.arange(16))


@pytest.mark.parametrize("name", SINGLE)
def test_each_operation(name):
    """Changes pixels, keeps to 0..255, depends on the key and on the image's place alone."""
    step, data = jax.jit(augment.build((SINGLE[name],))), batch()

    def images(seed, data):
        return np.asarray(step(jax.random.key(seed), data)["image"])

    out = images(0, data)
    assert out.dtype == np.float32
    assert -1e-3 <= out.min() and out.max() <= 255.001
    assert not np.array_equal(out, data["image"])
    np.testing.assert_array_equal(out, images(0, data))
    assert not np.array_equal(out, images(1, data))
    others = {**data, "image": np.roll(data["image"], 1, axis=0)}
    others["image"][3] = data["image"][3]
    np.testing.assert_array_equal(images(0, others)[3], out[3])


def test_neither_the_type_nor_the_batch_matters():
    data, ops = batch(), (*CHAIN[:3], SINGLE["colour_jitter"], SINGLE["erase"])
    out = run(ops, data)["image"]
    floats = {**data, "image": data["image"].astype(np.float32)}
    np.testing.assert_allclose(run(ops, floats)["image"], out, atol=1e-3)
    few = {key: value[:5] for key, value in data.items()}
    np.testing.assert_allclose(run(ops, few)["image"], out[:5], atol=1e-3)


def test_images_differ_in_what_happens_to_them():
    data = batch()
    data["image"][:] = data["image"][:1]
    out = run((("rotate", {}), ("lighting", {"p": 1.0})), data)["image"]
    assert len({image.tobytes() for image in out}) == len(out)


def test_operations_of_one_name_draw_anew():
    data = batch(64)
    out = run((("flip", {}), ("flip", {})), data)["image"]
    assert 16 < (out != data["image"]).any((1, 2, 3)).sum() < 48
    twice = run((("flip", {"p": 1.0}), ("flip", {"p": 1.0})), data)["image"]
    np.testing.assert_array_equal(twice, data["image"])


def test_a_run_of_warps_is_one_sampling(monkeypatch):
    calls, sample = [], geometry.sample
    monkeypatch.setattr(geometry, "sample", lambda *args: calls.append(args) or sample(*args))
    run(CHAIN[:3], batch())
    assert len(calls) == 1
    run(CHAIN[:6], batch())
    assert len(calls) == 1 + 3  # RandAugment recolours between its own two


def test_a_warp_of_nothing_is_exact():
    still = (("rotate", {"degrees": 0.0}), ("flip", {"p": 1.0}), ("zoom", {"scale": (1.0, 1.0)}))
    data = batch()
    np.testing.assert_array_equal(run(still, data)["image"], data["image"][:, :, ::-1])


def test_different_paddings_are_not_merged():
    white = {**batch(), "image": np.full((16, 20, 20, 3), 255, np.uint8)}
    away = {"x": 0.0, "y": 1.0}
    ops = (("translate", {**away, "padding": "zeros"}), ("rotate", {"degrees": 0.0}))
    assert run(ops, white)["image"].min() == 0
    assert run(ops[1:] + ops[:1], white)["image"].min() == 0
    assert run((("translate", {**away, "padding": "border"}),), white)["image"].min() == 255


def test_an_enlarged_crop_has_no_dark_edges():
    white = {**batch(), "image": np.full((16, 20, 20, 3), 255, np.uint8)}
    still = ("rotate", {"degrees": 0.0, "padding": "zeros"})
    out = run((("resized_crop", {"scale": (0.5, 1.0), "size": 60}), still), white)["image"]
    np.testing.assert_allclose(out, 255, atol=1e-3)


def test_jit_changes_nothing():
    data = batch()
    ops = (CHAIN[1], CHAIN[3], CHAIN[6])
    eager = augment.build(ops)(jax.random.key(0), data)
    for name, value in run(ops, data).items():
        # A level at the edge of a bin may fall to either side.
        assert (np.abs(value - np.asarray(eager[name])) > 0.01).mean() < 1e-3, name


DEVICES = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from fgc_jax.data import augment
from tests import test_augment
results = []
for count in (1, 8):
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    step = jax.jit(augment.build(test_augment.VARIED), out_shardings=sharded)
    batch = jax.device_put(test_augment.batch(), sharded)
    results.append(step(jax.random.key(0), batch))
for name in results[0]:
    np.testing.assert_allclose(results[0][name], results[1][name], atol=1e-3, err_msg=name)
print(len(jax.devices()), "devices agree")
"""


def test_one_and_eight_devices_agree(monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")
    result = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True)
    assert result.stdout == "8 devices agree\n", result.stderr[-2000:]


def test_what_gpus_compute_for_a_choice_equals_what_cpus_do():
    changes = (lambda image, by: image + by, lambda image, by: image * by)
    inputs = jnp.arange(4) % 2, jnp.ones((4, 2, 2, 3)), jnp.arange(4.0)
    choose = jax.jit(lambda number, images, by: operation.choose(number, changes, images, by))
    cpu = np.asarray(choose(*inputs))
    np.testing.assert_array_equal(cpu[:, 0, 0, 0], [1, 1, 3, 3])
    for platform, loops in (("cpu", True), ("cuda", False)):
        module = jax.export.export(choose, platforms=[platform])(*inputs).mlir_module()
        assert ("stablehlo.while" in module) == loops


def test_size_after_crops():
    assert run(CHAIN, batch())["image"].shape == (16, 18, 18, 3)
    with pytest.raises(ValueError, match="size 30 is larger than the images, 20x20"):
        augment.build((("crop", {"size": 30}),))(jax.random.key(0), batch())


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ((("flop", {}),), "unknown augmentation 'flop', allowed: flip, crop"),
        ((("flip", {"q": 1}),), "'flip': q is unknown: allowed: 'p'"),
        ((("crop", {}),), "'crop': size must be given"),
        ((("flip", {"p": 1.5}),), "'flip': p=1.5 must be a number from 0 to 1"),
        ((("flip", {"p": "half"}),), "p='half' must be a number"),
        ((("flip", {"p": float("nan")}),), "p=nan must be a number"),
        ((("rotate", {"padding": "edge"}),), "padding='edge' must be 'reflect' or 'zeros'"),
        ((("zoom", {"scale": 1.1}),), "scale=1.1 must be a tuple of 2 entries"),
        ((("zoom", {"scale": (1.2, 1.1)}),), r"scale=\(1.2, 1.1\) must be .* in ascending order"),
        ((("crop", {"size": 8.0}),), "size=8.0 must be None or a whole number"),
        ((("crop", {"size": 0}),), "size=0 must be None or a whole number at least 1"),
        ((("rand_augment", {"magnitude": 31}),), "magnitude=31 must be .* from 0 to 30"),
        ((("colour_jitter", {}),), "brightness, contrast, saturation and hue must be above 0"),
        ((("erase", {"fill": "red"}),), "fill='red' must be None or 'noise' or a number"),
        (
            (("erase", {"fill": (1, 2)}),),
            "fill=.* or a tuple of 3 entries, each a number from 0 to 255",
        ),
        ((("erase", {"fill": 300}),), "fill=300 must be .* a number from 0 to 255"),
        ((("mixup", {"alpha": 0}),), "alpha=0 must be a number above 0"),
        ((("cutmix", {}), ("flip", {})), "'flip' follows 'cutmix': .* must be the last one"),
        ((("mixup", {}), ("cutmix", {})), "'cutmix' follows 'mixup'"),
        ((("flip", {2: 3}),), "'flip': 2 is unknown"),
    ],
)
def test_what_it_refuses(ops, message):
    with pytest.raises(ValueError, match=message):
        augment.build(ops)


def test_checked_options_are_copies():
    options = {"p": 1.0}
    ((name, copied),) = augment.checked([["flip", options]])
    copied["p"] = 0.0
    assert (name, options) == ("flip", {"p": 1.0})
