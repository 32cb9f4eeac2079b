import numpy as np
import pytest

from fgc_jax.convert import timm
from tests import seeded

NAMES = [("backbone", ""), ("head/fc", "fc")]


def small():
    params = {
        "backbone": {
            "conv1": {"kernel": np.zeros((3, 3, 2, 4))},
            "bn1": {"scale": np.zeros(4), "bias": np.zeros(4)},
        },
        "head": {"fc": {"kernel": np.zeros((4, 5)), "bias": np.zeros(5)}},
    }
    stats = {"backbone": {"bn1": {"mean": np.zeros(4), "var": np.zeros(4)}}}
    shapes = {
        "conv1.weight": (4, 2, 3, 3),
        "bn1.weight": (4,),
        "bn1.bias": (4,),
        "bn1.running_mean": (4,),
        "bn1.running_var": (4,),
        "fc.weight": (5, 4),
        "fc.bias": (5,),
    }
    return params, stats, seeded.state_dict(shapes)


def test_leaves_are_renamed_and_reordered():
    params, stats, state = small()
    params, stats = timm.fill(params, stats, state, NAMES)
    kernel = params["backbone"]["conv1"]["kernel"]
    assert kernel.dtype == np.float32
    assert kernel[2, 1, 0, 3] == state["conv1.weight"][3, 0, 2, 1]
    np.testing.assert_array_equal(params["backbone"]["bn1"]["scale"], state["bn1.weight"])
    np.testing.assert_array_equal(params["backbone"]["bn1"]["bias"], state["bn1.bias"])
    np.testing.assert_array_equal(stats["backbone"]["bn1"]["mean"], state["bn1.running_mean"])
    np.testing.assert_array_equal(stats["backbone"]["bn1"]["var"], state["bn1.running_var"])
    np.testing.assert_array_equal(params["head"]["fc"]["kernel"], state["fc.weight"].T)


def test_to_state_dict_is_the_inverse():
    params, stats, state = small()
    back = timm.to_state_dict(*timm.fill(params, stats, state, NAMES), NAMES)
    assert back.keys() == state.keys()
    for key, array in state.items():
        np.testing.assert_array_equal(back[key], array)


def test_every_stray_gap_and_shape_is_listed():
    params, stats, state = small()
    state["fc.bias"] = np.zeros(6, np.float32)
    state["AuxLogits.conv.weight"] = state.pop("conv1.weight")
    with pytest.raises(ValueError) as caught:
        timm.fill(params, stats, state, NAMES)
    message = str(caught.value)
    assert "without a place in the model: AuxLogits.conv.weight" in message
    assert "without a key in the weights: backbone/conv1/kernel (expected conv1.weight)" in message
    assert "fc.bias (6,) for head/fc/bias (5,)" in message


def test_what_is_left_out_must_be_named():
    params, stats, state = small()
    filled, _ = timm.fill(params, stats, state, NAMES[:1], left_out=["fc"])
    assert filled["head"]["fc"]["kernel"] is params["head"]["fc"]["kernel"]
    assert not np.array_equal(filled["backbone"]["bn1"]["scale"], np.zeros(4))
    with pytest.raises(ValueError, match="without a place in the model: fc.bias, fc.weight"):
        timm.fill(params, stats, state, NAMES[:1])
    with pytest.raises(ValueError, match="without a place"):
        timm.fill(params, stats, state, NAMES[:1], left_out=["f"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapping_prefixes_and_counters_are_dropped(prefix):
    state = {"bn1.weight": np.ones(1), "bn1.num_batches_tracked": np.array(3)}
    assert list(timm.normalise({prefix + k: x for k, x in state.items()})) == ["bn1.weight"]


def test_torchvisions_vgg_names_and_its_linear_layers():
    linear = seeded.value("classifier.0.weight", (6, 2 * 7 * 7))
    state = timm.normalise(
        {"features.0.weight": np.zeros(1), "classifier.0.weight": linear, "classifier.6.bias": 1}
    )
    assert list(state) == ["features.0.weight", "pre_logits.fc1.weight", "head.fc.bias"]
    kernel = timm.from_torch(linear, "head/fc1/kernel", (7, 7, 2, 6))
    # PyTorch flattens [C, H, W], so the convolution must see the same order.
    x = seeded.images(1, 7, 7)[..., :2]
    expected = x.transpose(0, 3, 1, 2).reshape(1, -1) @ linear.T
    np.testing.assert_allclose(np.einsum("bhwc,hwco->bo", x, kernel), expected, rtol=1e-4)
