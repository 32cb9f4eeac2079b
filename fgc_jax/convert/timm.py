"""Converts between state dicts of timm or torchvision and the parameter trees of fgc_jax.

Module names equal timm's, so only the leaves differ: weight becomes kernel or scale, running_mean
becomes mean, convolutions go from OIHW to HWIO, and linear layers are transposed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fgc_jax import trees
from fgc_jax.convert import originals

# Other leaves (cls_token, pos_embed, gamma, ...) have timm's own names.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_WRAPPING = ("module.", "_orig_mod.")  # Left by DataParallel and torch.compile.
_CONSTANTS = ("num_batches_tracked", ".relative_position_index", ".attn_mask")
_TORCHVISION_VGG = {
    "classifier.0.": "pre_logits.fc1.",
    "classifier.3.": "pre_logits.fc2.",
    "classifier.6.": "head.fc.",
}


class Pointwise(str):
    """timm's name of a module that is a 1x1 convolution in timm and a linear layer here."""


def normalise(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict with timm's key names.

    Translates the names of torchvision's VGG, `efficientnet_lite_pytorch` and `originals`, and
    removes wrapping prefixes. Drops entries that no computation reads: num_batches_tracked, and
    those that are computed from Swin's window size.
    """
    state = {key: x for key, x in state.items() if not key.endswith(_CONSTANTS)}
    for prefix in _WRAPPING:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): x for key, x in state.items()}
    if "classifier.0.weight" in state and any(key.startswith("features.") for key in state):
        return {_from_torchvision_vgg(key): x for key, x in state.items()}
    if "_conv_stem.weight" in state:
        return _from_lite(state)
    return originals.swin(originals.convnext(state))


def _from_torchvision_vgg(key):
    for old, new in _TORCHVISION_VGG.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _from_lite(state):
    """From the names of efficientnet_lite_pytorch, whose block numbers do not restart at each
    stage."""
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    top["_fc"] = "classifier"
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw"}
    separable["_bn2"] = "bn2"
    inverted = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    inverted |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}

    # A stage begins where the number of output channels changes.
    places, stage, index, before = {}, -1, 0, None
    while (width := state.get(f"_blocks.{len(places)}._project_conv.weight")) is not None:
        stage, index = (stage, index + 1) if len(width) == before else (stage + 1, 0)
        before = len(width)
        places[str(len(places))] = f"blocks.{stage}.{index}"

    renamed = {}
    for key, x in state.items():
        found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if found and found[1] in places:
            expanded = f"_blocks.{found[1]}._expand_conv.weight" in state
            names = inverted if expanded else separable
            renamed[f"{places[found[1]]}.{names.get(found[2], found[2])}.{found[3]}"] = x
        else:
            module, _, leaf = key.rpartition(".")
            renamed[f"{top.get(module, module)}.{leaf}"] = x
    return renamed


def source_key(path: str, names: Sequence[tuple[str, str | None]]) -> str | None:
    """Key in a timm state dict for a path of ours, or None if `names` does not cover it.

    names: pairs (our module path, timm's module name); the first whose module contains the path is
    used. None instead of timm's name leaves the module out.
    """
    ours, theirs = _covering(path, names)
    if theirs is None:
        return None
    *modules, leaf = path[len(ours) + 1 :].split("/")
    return ".".join(filter(None, [theirs, *modules, _LEAVES.get(leaf, leaf)]))


def _covering(path, names):
    return next((pair for pair in names if trees.is_under(path, pair[0])), ("", None))


def fill(
    params: trees.Tree,
    stats: trees.Tree,
    state: Mapping[str, np.ndarray],
    names: Sequence[tuple[str, str]],
    left_out: Iterable[str] = (),
) -> tuple[dict, dict]:
    """(params, stats) with the leaves covered by `names` replaced from `state`, as float32 NumPy.

    names: see `source_key`. left_out: timm module names whose keys may stay unused.

    Raises:
        ValueError: keys of `state` have no place, covered parameters have no key, shapes differ or
            arrays are not finite. The message lists all of them.
    """
    flat = [trees.flatten(params), trees.flatten(stats)]
    used, missing, shapes, infinite = set(), [], [], []
    for tree in flat:
        for path, leaf in tree.items():
            key = source_key(path, names)
            if key is None:
                continue
            if key not in state:
                missing.append(f"{path} (expected {key})")
                continue
            used.add(key)
            value = from_torch(state[key], path, leaf.shape)
            if value.shape != tuple(leaf.shape):
                shapes.append(f"{key} {state[key].shape} for {path} {tuple(leaf.shape)}")
            if not np.isfinite(value).all():
                infinite.append(key)
            tree[path] = value
    left_out = tuple(name + "." for name in left_out)
    strays = [key for key in state if key not in used and not key.startswith(left_out)]
    problems = [
        f"{title}: {_listed(items)}"
        for title, items in (
            ("keys of the weights without a place in the model", strays),
            ("parameters of the model without a key in the weights", missing),
            ("shapes that differ", shapes),
            ("weights that are not finite", infinite),
        )
        if items
    ]
    if problems:
        raise ValueError("the weights do not fit the model; " + "; ".join(problems))
    return trees.unflatten(flat[0]), trees.unflatten(flat[1])


def from_torch(value: np.ndarray, path: str, shape: Sequence[int]) -> np.ndarray:
    """A PyTorch weight in our axis order, float32; `shape` is that of our leaf at `path`."""
    with np.errstate(over="ignore"):  # `fill` raises an error for infinite values.
        value = np.asarray(value).astype(np.float32, copy=False)
    if not path.endswith("/kernel"):
        return value
    if len(shape) == 4 and value.ndim == 2 and value.size == np.prod(shape):
        # torchvision's VGG stores a linear layer where timm and fgc_jax have a convolution.
        value = value.reshape(shape[3], shape[2], shape[0], shape[1])
    if len(shape) == 2 and value.ndim == 4 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]  # A Pointwise module.
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(2, 3, 1, 0))
    return np.ascontiguousarray(value.T)


def to_state_dict(
    params: trees.Tree, stats: trees.Tree, names: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
    """The inverse of `fill`: the leaves covered by `names`, with timm's keys and PyTorch's axes."""
    state = {}
    for path, leaf in {**trees.flatten(params), **trees.flatten(stats)}.items():
        key = source_key(path, names)
        if key is not None:
            value = np.asarray(leaf)
            if path.endswith("/kernel"):
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
                if isinstance(_covering(path, names)[1], Pointwise):
                    value = value[:, :, None, None]
            state[key] = np.ascontiguousarray(value)
    return state


def _listed(items, most=6):
    items = sorted(items)
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown}, ... ({len(items)} in all)"
