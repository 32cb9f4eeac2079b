"""Trees and group rules."""

import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax import params

TREE = {
    "backbone": {"layer1": {"0": {"kernel": 1}}, "layer10": {"kernel": 2}},
    "head": {"fc": {"bias": 3, "kernel": 4}},
}


def test_flatten_and_unflatten_are_inverse():
    flat = params.flatten(TREE)
    assert list(flat) == [
        "backbone/layer1/0/kernel",
        "backbone/layer10/kernel",
        "head/fc/bias",
        "head/fc/kernel",
    ]
    assert params.unflatten(flat) == TREE


def test_is_under_compares_whole_names():
    assert params.is_under("backbone/layer1/0/kernel", "backbone/layer1")
    assert params.is_under("backbone/layer1", "backbone/layer1")
    assert not params.is_under("backbone/layer10/kernel", "backbone/layer1")


def test_select_and_merge_are_inverse():
    chosen, rest = params.select(TREE, {"head/fc/bias", "backbone/layer10/kernel"})
    assert params.flatten(chosen) == {"head/fc/bias": 3, "backbone/layer10/kernel": 2}
    assert params.flatten(rest) == {"backbone/layer1/0/kernel": 1, "head/fc/kernel": 4}
    assert params.merge(chosen, rest) == TREE


def test_first_matching_rule_wins():
    rules = [("head/.*", "head"), (".*/layer1/.*", "early"), (".*", "late")]
    assert params.match_rules(rules, params.flatten(TREE)) == {
        "backbone/layer1/0/kernel": "early",
        "backbone/layer10/kernel": "late",
        "head/fc/bias": "head",
        "head/fc/kernel": "head",
    }


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("head/.*", 1)], "no group rule matches.*backbone/layer1/0/kernel"),
        ([("haed/.*", 1), (".*", 2)], "match no parameter.*haed"),
        ([(".*", 1), ("head/.*", 2)], "match no parameter.*head"),
        ([("head", 1), (".*", 2)], "match no parameter"),  # the whole path must match
        ([("(", 1), (".*", 2)], "not a regular expression"),
    ],
)
def test_rules_that_would_train_nothing_are_errors(rules, message):
    with pytest.raises(ValueError, match=message):
        params.match_rules(rules, params.flatten(TREE))


def test_count_and_bytes():
    tree = {"a": jnp.zeros((2, 3)), "b": {"c": jnp.zeros((4,), jnp.bfloat16)}}
    assert params.count(tree) == 10
    assert params.num_bytes(tree) == 2 * 3 * 4 + 4 * 2


def test_fingerprint_sees_every_bit_name_and_type():
    tree = {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}
    same = {"a": jnp.zeros(3), "b": jnp.ones(2)}
    assert params.fingerprint(tree) == params.fingerprint(same)
    flipped = {**tree, "a": np.float32([0, 0, -0.0])}
    renamed = {"a": tree["a"], "c": tree["b"]}
    retyped = {**tree, "a": np.zeros(3, np.int32)}
    for other in (flipped, renamed, retyped):
        assert params.fingerprint(tree) != params.fingerprint(other)
