"""Trees and group rules."""

import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax import trees

TREE = {
    "backbone": {"layer1": {"0": {"kernel": 1}}, "layer10": {"kernel": 2}},
    "head": {"fc": {"bias": 3, "kernel": 4}},
}


def test_flatten_and_unflatten_are_inverse():
    flat = trees.flatten(TREE)
    assert list(flat) == [
        "backbone/layer1/0/kernel",
        "backbone/layer10/kernel",
        "head/fc/bias",
        "head/fc/kernel",
    ]
    assert trees.unflatten(flat) == TREE


def test_is_under_compares_whole_names():
    assert trees.is_under("backbone/layer1/0/kernel", "backbone/layer1")
    assert trees.is_under("backbone/layer1", "backbone/layer1")
    assert not trees.is_under("backbone/layer10/kernel", "backbone/layer1")


def test_select_and_merge_are_inverse():
    chosen, rest = trees.select(TREE, {"head/fc/bias", "backbone/layer10/kernel"})
    assert trees.flatten(chosen) == {"head/fc/bias": 3, "backbone/layer10/kernel": 2}
    assert trees.flatten(rest) == {"backbone/layer1/0/kernel": 1, "head/fc/kernel": 4}
    assert trees.merge(chosen, rest) == TREE


def test_first_matching_rule_wins():
    rules = [("head/.*", "head"), (".*/layer1/.*", "early"), (".*", "late")]
    assert trees.match_rules(rules, trees.flatten(TREE)) == {
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
        trees.match_rules(rules, trees.flatten(TREE))


def test_count_and_bytes():
    tree = {"a": jnp.zeros((2, 3)), "b": {"c": jnp.zeros((4,), jnp.bfloat16)}}
    assert trees.count(tree) == 10
    assert trees.num_bytes(tree) == 2 * 3 * 4 + 4 * 2


def test_fingerprint_sees_every_bit_name_and_type():
    tree = {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}
    same = {"a": jnp.zeros(3), "b": jnp.ones(2)}
    assert trees.fingerprint(tree) == trees.fingerprint(same)
    flipped = {**tree, "a": np.float32([0, 0, -0.0])}
    renamed = {"a": tree["a"], "c": tree["b"]}
    retyped = {**tree, "a": np.zeros(3, np.int32)}
    for other in (flipped, renamed, retyped):
        assert trees.fingerprint(tree) != trees.fingerprint(other)
