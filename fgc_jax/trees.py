"""Parameter trees: paths, group rules, splitting, merging and counting.

A tree is a pure nested dict with string keys. A path joins the keys with "/", as in
``backbone/layer4/2/conv3/kernel``; a flat dict maps paths to leaves.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Tree = Mapping[str, Any]


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Nested dict -> flat dict with "/"-joined paths, in sorted order of the keys."""
    flat = {}
    for key in sorted(tree):
        path = f"{prefix}/{key}" if prefix else key
        if isinstance(tree[key], Mapping):
            flat.update(flatten(tree[key], path))
        else:
            flat[path] = tree[key]
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat dict with "/"-joined paths -> nested dict."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = leaf
    return tree


def is_under(path: str, prefix: str) -> bool:
    """Whether a path is the prefix itself or below it ("layer10" is not below "layer1")."""
    return path == prefix or path.startswith(prefix + "/")


def select(tree: Tree, paths: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a tree into (the leaves at `paths`, the rest)."""
    chosen, rest = {}, {}
    for path, leaf in flatten(tree).items():
        (chosen if path in paths else rest)[path] = leaf
    return unflatten(chosen), unflatten(rest)


def merge(first: Tree, second: Tree) -> dict[str, Any]:
    """The leaves of both trees, the inverse of `select`; of the same path, the leaf of `second`."""
    return unflatten({**flatten(first), **flatten(second)})


def match_rules(rules: Sequence[tuple[str, Any]], paths: Iterable[str]) -> dict[str, Any]:
    """For each path, the value of the first rule `(regex, value)` that matches the whole path.

    Raises:
        ValueError: a pattern is not a regular expression; no rule matches a path; or a rule is not
            the first match of any path (a rule with a typo would otherwise silently do nothing).
    """
    compiled = []
    for pattern, value in rules:
        try:
            compiled.append((re.compile(pattern), value))
        except re.error as error:
            raise ValueError(
                f"group rule {pattern!r} is not a regular expression: {error}"
            ) from None
    paths = list(paths)
    hits = [0] * len(compiled)
    values, uncovered = {}, []
    for path in paths:
        for index, (pattern, value) in enumerate(compiled):
            if pattern.fullmatch(path):
                hits[index] += 1
                values[path] = value
                break
        else:
            uncovered.append(path)
    if uncovered:
        raise ValueError(f"no group rule matches these parameters: {_shorten(uncovered)}")
    dead = [rules[index][0] for index, count in enumerate(hits) if not count]
    if dead:
        raise ValueError(
            f"these group rules match no parameter, or only those of earlier rules: {dead}; "
            f"the parameters are {_shorten(paths)}"
        )
    return values


def count(tree: Tree) -> int:
    """Number of scalars in a tree of arrays or shape structs."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def num_bytes(tree: Tree) -> int:
    """Size in bytes of a tree of arrays or shape structs."""
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def fingerprint(tree: Any) -> str:
    """sha256 of the paths, shapes, types and bytes of all leaves: equal only for identical bits."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _shorten(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"
