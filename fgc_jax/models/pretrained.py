"""Published weights of a backbone: their names, sources, and the parts that are used."""

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from fgc_jax import trees
from fgc_jax.config import Weights
from fgc_jax.convert import timm, weights
from fgc_jax.models.backbone import Backbone, Preprocess


def metadata(name: str, tag: str) -> dict[str, str]:
    """The metadata for a .safetensors file of the network `name`; tag: "" if not known."""
    said = {"format": "pt", "architecture": name}
    return said | {"weights_tag": tag} if tag else said


def read(
    spec: Weights, name: str, rows: Mapping[str, Backbone]
) -> tuple[dict[str, np.ndarray], str]:
    """(state dict of `spec` with timm's names, for the network `name` of `rows`; the tag of the
    weights as stated in the file or else by its name, "" if it is not stated).

    Raises:
        ValueError: the file is missing (the message names the known sources) or not readable, its
            checksum is not the one in its name, or it has the published weights of another network
            that has the same shapes but computes something different.
    """
    row = rows[name]
    _refuse_twins(spec, _owners(spec, rows), name, rows)
    path = weights.locate(spec, advice(name, row))
    said, local = weights.metadata(path), Weights.parse(str(path))
    architecture = said.get("architecture")
    owners = [architecture] if architecture in rows else _owners(local, rows)
    _refuse_twins(spec, owners, name, rows)
    if tag_of(row.weights, local) and facts_of(row.weights, local) != facts_of(row.weights, spec):
        # The preprocessing of a run must not depend on the content of a directory.
        raise ValueError(f"{spec} contains {path.name}: give the path of the file itself")
    published = {facts.url.rpartition("/")[2] for facts in row.weights.values()}
    digest = _digest(path.name)
    if digest and path.name in published:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(digest):
            raise ValueError(
                f"{path} is damaged or not the published file: its sha256 begins with {found[:8]}, "
                f"not with {digest} as in its name; download it again"
            )
    tag = said.get("weights_tag") if architecture == name else None
    if tag not in row.weights:
        tag = tag_of(row.weights, spec)
    return timm.normalise(weights.read_file(path)), tag


def tag_of(table: Mapping[str, Preprocess], spec: Weights) -> str:
    """The tag whose source is `spec` (with any revision), or whose original file has its name; ""
    if there is none."""
    return next((tag for tag, facts in table.items() if _is_of(facts, spec)), "")


def facts_of(table: Mapping[str, Preprocess], spec: Weights) -> Preprocess:
    """The facts for `tag_of`, or else the first ones of the table."""
    return table[tag_of(table, spec) or next(iter(table))]


def _is_of(facts: Preprocess, spec: Weights) -> bool:
    if spec.kind != "path":
        return facts.source == f"{spec.kind}:{spec.name}"
    return bool(spec) and facts.url.endswith("/" + spec.name.rpartition("/")[2])


def _owners(spec, rows):
    """The networks whose published weights have this source or file name."""
    return [name for name, row in rows.items() if tag_of(row.weights, spec)]


def _refuse_twins(spec, owners, name, rows):
    """Raises ValueError if `spec` has the weights of another network with the same shapes. Such
    networks differ in padding or pooling, for example, so loading finds no error. owners: the
    networks that the weights belong to."""
    own = rows[name]
    twins = [
        other
        for other in owners
        if rows[other].parameters == own.parameters and rows[other].layers == own.layers
    ]
    if twins and name not in owners:
        raise ValueError(
            f"{spec} are weights of {twins[0]}, which has the same shapes as {name} but computes "
            f"something different: use config.model.backbone={twins[0]!r}"
        )


# Hosts of original files that can be read (with timm's names or those of `convert.originals`).
_READ = (
    "https://github.com/huggingface/",
    "https://github.com/rwightman/",
    "https://github.com/mseitzer/",
    "https://download.pytorch.org/",
    "https://github.com/SwinTransformer/",
    "https://dl.fbaipublicfiles.com/semiweaksupervision/",
    "https://dl.fbaipublicfiles.com/convnext/",
)


def advice(name: str, row: Backbone) -> str:
    """The sources of a backbone's weights, for an error message."""
    if not any(facts.source or facts.url for facts in row.weights.values()):
        return f"No weights of {name} are published: set config.model.pretrained=''."
    lines = [f"Weights known to fit {name} (about {row.parameters * 4 / 1e6:.0f} MB each):"]
    for facts in row.weights.values():
        places = [facts.source]
        if facts.url.startswith(_READ):
            digest = _digest(facts.url)
            places.append(f"the file {facts.url}")
            places[-1] += f" (sha256 begins with {digest})" if digest else ""
        lines.append(f"  {', or '.join(filter(None, places))} ({facts.license})")
    lines.append(
        "Save a file anywhere and give its path or directory instead. A hub download is stored in "
        "the cache in HF_HOME, which can be copied to a machine without a network."
    )
    return "\n".join(lines)


def _digest(name):
    """The first digits of a file's sha256 at the end of its name, or None."""
    found = re.search(r"-([0-9a-f]{8})\.pth$", name)
    return found and found[1]


def original_names(row: Backbone) -> list[tuple[str, str]]:
    """Pairs (our module path, timm's) of a one-stream classifier with the original head."""
    heads = row.head_names.items()
    return [("backbone", ""), *((f"head/{ours}", theirs) for theirs, ours in heads)]


def names(
    row: Backbone,
    root: str,
    state: Mapping[str, np.ndarray],
    params: trees.Tree,
    *,
    head: bool,
    classifier: bool,
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """(pairs for convert.timm.fill, timm modules left out on purpose) of the stream at `root`.

    params: those of the model; layers that are not built are left out. head: whether the head is of
    the kind that the weights were trained with. classifier: whether to use its last linear layer.
    """
    built = trees.flatten(params[root])
    lacking = [
        prefix
        for prefix in row.optional
        if any(trees.is_under(path, prefix) for path in built)
        and not any(key.startswith(prefix.replace("/", ".") + ".") for key in state)
    ]
    pairs = [*((f"{root}/{prefix}", None) for prefix in lacking), (root, "")]
    left_out = list(row.unused)
    for ours, theirs in original_names(row)[1:]:
        there = head and ours.removeprefix("head/") in params["head"]
        if there and (classifier or ours != "head/fc") and f"{theirs}.weight" in state:
            pairs.append((ours, theirs))
        else:
            left_out.append(theirs)
    for prefixes in row.layers.values():
        for prefix in prefixes:
            if not any(trees.is_under(path, prefix) for path in built):
                left_out.append(prefix.replace("/", "."))
    return pairs, left_out


def describe(
    pairs: Sequence[tuple[str, str | None]],
    left_out: Sequence[str],
    state: Mapping[str, np.ndarray],
) -> str:
    """One line for the user: which modules were filled and which were left out."""
    unused = [name for name in left_out if any(key.startswith(name + ".") for key in state)]
    left = f"; left out on purpose: {', '.join(unused)}" if unused else ""
    lacking = [ours for ours, theirs in pairs if theirs is None]
    anew = f"; random, because the weights lack them: {', '.join(lacking)}" if lacking else ""
    return f"fills {', '.join(ours for ours, theirs in pairs if theirs is not None)}{anew}{left}"


def resample(row: Backbone, params: trees.Tree, state: Mapping, names: Sequence):
    """(state whose leaves of row.resample have the model's shapes, text for the user)."""
    state, changes = dict(state), []
    for path, leaf in trees.flatten(params).items():
        fit = row.resample.get(path.rpartition("/")[2])
        key = timm.source_key(path, names) if fit else None
        if key in state and state[key].shape != tuple(leaf.shape):
            changes.append(f"{key} {state[key].shape} to {tuple(leaf.shape)}")
            state[key] = fit(state[key], tuple(leaf.shape))
    return state, f"; resampled: {', '.join(changes)}" if changes else ""


def count_classes(row: Backbone, state: Mapping[str, np.ndarray] | None) -> int | None:
    """The number of classes of the state dict's own classifier; None if it has none."""
    (last,) = (theirs for theirs, ours in row.head_names.items() if ours == "fc")
    kernel = (state or {}).get(f"{last}.weight")
    return None if kernel is None else len(kernel)
