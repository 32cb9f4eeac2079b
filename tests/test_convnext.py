import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from fgc_jax import models, trees
from fgc_jax.convert import timm
from fgc_jax.models.backbones import convnext
from tests import networks, seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def paths(name, **changes):
    model = models.abstract(seeded.config(name, **changes), 10)
    return {p for p in trees.flatten(models.split(model)[0]) if p.startswith("backbone/")}


def test_the_second_version_normalises_responses_in_place_of_layer_scale():
    first, second = paths("convnext_tiny"), paths("convnextv2_tiny")
    scales = {path for path in first if path.endswith("/gamma")}
    assert len(scales) == 3 + 3 + 9 + 3
    assert first - second == scales
    assert {path.split("/")[-2] for path in second - first} == {"grn"}


def test_responses_of_a_silent_image_have_a_finite_gradient():
    norm = convnext.ResponseNorm(4, dtype=jnp.float32)
    norm.scale[...] = jnp.ones(4)
    x = jnp.asarray(seeded.images(2, 3, 3))
    x = jnp.concatenate([x, jnp.zeros_like(x[..., :1])], -1).at[1].set(0)
    y, transpose = jax.vjp(norm, x)
    (gradient,) = transpose(jnp.ones_like(y))
    assert (y[1] == 0).all() and (y[..., 3] == 0).all()
    assert jnp.isfinite(gradient).all()


def test_pooled_is_the_norm_of_the_mean_of_features():
    run = networks.forward("convnextv2_atto", 10)
    logits, out = run(seeded.images(2, 64, 64))
    _, params, _ = seeded.trees("convnextv2_atto", 10)
    mean = np.asarray(out["features"]).mean((1, 2))
    centred = mean - mean.mean(-1, keepdims=True)
    norm = params["backbone"]["head"]["norm"]
    pooled = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
    pooled = pooled * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(out["pooled"][:, 0, 0], pooled, rtol=1e-4, atol=1e-5)
    fc = params["head"]["fc"]
    np.testing.assert_allclose(logits, pooled @ fc["kernel"] + fc["bias"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["convnext_tiny", "convnextv2_tiny", "convnextv2_atto"])
def test_metas_own_files_are_understood(name):
    model = models.abstract(seeded.config(name), 10)
    pairs = models.pretrained.original_names(models.BACKBONES[name])
    zeros = (jax.tree.map(lambda x: np.zeros(x.shape, bool), tree) for tree in models.split(model))
    shapes = {key: x.shape for key, x in timm.to_state_dict(*zeros, pairs).items()}
    expected = {key: np.broadcast_to(i, shape) for i, (key, shape) in enumerate(shapes.items())}
    theirs = {}
    for key, x in expected.items():
        key = key.replace("stem.", "downsample_layers.0.").replace("blocks.", "")
        key = re.sub(r"stages.(.).downsample", r"downsample_layers.\1", key)
        key = key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        key = key.replace("head.norm", "norm").replace("head.fc", "head")
        if ".grn." in key:
            key = key.replace("mlp.grn.weight", "grn.gamma").replace("mlp.grn.bias", "grn.beta")
            x = x.reshape(1, 1, 1, -1)
        # Meta's are linear layers in every size.
        theirs[key] = x[:, :, 0, 0] if "pwconv" in key and x.ndim == 4 else x
    assert "stages.0.1.pwconv2.weight" in theirs
    found = timm.normalise(theirs)
    assert found.keys() == expected.keys()
    params, _ = timm.fill(*models.split(model), found, pairs)
    again = timm.to_state_dict(params, {}, pairs)
    assert all((again[key] == x).all() for key, x in expected.items())


def test_weights_of_masked_autoencoding_have_no_norm_behind_the_pooling(tmp_path):
    name = "convnextv2_atto"
    _, params, stats = seeded.trees(name, 10)
    pairs = models.pretrained.original_names(models.BACKBONES[name])
    state = timm.to_state_dict(params, stats, pairs)
    path = tmp_path / "fcmae.safetensors"
    kept = {key: x for key, x in state.items() if not key.startswith("head.")}
    safetensors.save_file(kept, path)
    loaded = models.load(name, str(path), num_classes=10)
    told = f"{path} fills backbone; random, because the weights lack them: backbone/head/norm"
    assert loaded.report == f"backbone ({name}): {told}"
    found = loaded.params["backbone"]
    assert (found["head"]["norm"]["scale"] == 1).all() and not found["head"]["norm"]["bias"].any()
    biases = [tree["stem"]["0"]["bias"] for tree in (found, params["backbone"])]
    np.testing.assert_array_equal(*biases)
    del kept["stem.0.bias"]
    safetensors.save_file(kept, path)
    with pytest.raises(ValueError, match="without a key in the weights: backbone/stem/0/bias"):
        models.load(name, str(path))
