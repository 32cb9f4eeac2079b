"""Test-time views: the versions of an image whose predictions are averaged.

A spec is a sum of weighted views, such as "2*raw + crop(0.1, 0.05) + 0.5*mirror(raw)". A name in
VIEWS can be used like a view; it stands for its sum. The views are

    raw                        the image without changes, a square of `crop` pixels
    crop(THRESHOLD, PADDING)   an attention crop: the box around the positions where the mean
                               attention of the network is at least THRESHOLD of its maximum, wider
                               by PADDING of the image on each side, enlarged to `crop` pixels
    place(TOP, LEFT)           a square of `crop` pixels from the square of `resize` pixels; 0 is
                               its top or left edge and 1 its bottom or right edge
    scale(FACTOR)              the image resized (antialiased) to about FACTOR times `crop` pixels;
                               the difference is a multiple of the network's largest stride
    mirror(VIEWS)              these views of the mirrored image, with its own attention
"""

import ast
import dataclasses
from typing import Self

from fgc_jax.config.languages import Text

VIEWS = {
    "raw": "raw",
    "raw_crop": "raw + crop(0.1, 0.05)",
    "crop3": "raw + crop(0.3, 0.1) + crop(0.2, 0.1) + crop(0.1, 0.05)",
    "crop3_flip": "crop3 + mirror(crop3)",
    "flip": "raw + mirror(raw)",
    "five_crop": "place(0, 0) + place(0, 1) + place(1, 0) + place(1, 1) + place(0.5, 0.5)",
    "ten_crop": "five_crop + mirror(five_crop)",
    "multi_scale": "scale(0.86) + raw + scale(1.14)",
}
# Kind of view -> its numbers, each as (name, least, most).
KINDS = {
    "crop": (("threshold", 0.01, 0.99), ("padding", 0.0, 0.99)),
    "place": (("top", 0.0, 1.0), ("left", 0.0, 1.0)),
    "scale": (("factor", 0.1, 8.0),),
}
AVERAGES = ("logits", "probabilities")  # the first one is the default
LOGITS = ("plain", "effect")


@dataclasses.dataclass(frozen=True)
class View:
    """One view of a spec. kind: "raw" or a key of KINDS."""

    kind: str
    numbers: tuple[float, ...] = ()
    mirrored: bool = False


@dataclasses.dataclass(frozen=True, repr=False)
class ViewSpec(Text):
    """A sum of weighted views; the sum of the weights is 1."""

    weights: tuple[tuple[View, float], ...]

    FORMS = {"a sum of views, such as 'raw' or 'flip + crop(0.1, 0.05)'": ""}

    @classmethod
    def parse(cls, text: str) -> Self:
        """The views of a text and their weights.

        Raises:
            ValueError: the spec is wrong; the message says what is wrong and what is allowed.
        """
        try:
            found = _terms(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, SyntaxError) else str(error)
            kinds = [f"{kind}({', '.join(name for name, *_ in of)})" for kind, of in KINDS.items()]
            raise ValueError(
                f"views {text!r}: {why}; allowed: {', '.join(VIEWS)}, or a sum such as "
                f"'2*raw + crop(0.1, 0.05) + 0.5*mirror(raw)' of raw, {', '.join(kinds)}, "
                "mirror(...)"
            ) from None
        total = sum(found.values())
        return cls(text, tuple((view, weight / total) for view, weight in found.items()))


def _terms(node: ast.AST) -> dict[View, float]:
    """The views and weights of a part of a spec. A view that comes twice is computed once."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _terms(node.left), _terms(node.right)
        return {view: left.get(view, 0.0) + right.get(view, 0.0) for view in {**left, **right}}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        weight = _number(node.left, "weight", 1e-6, 1e6)
        return {view: weight * share for view, share in _terms(node.right).items()}
    if isinstance(node, ast.Name):
        if node.id == "raw":
            return {View("raw"): 1.0}
        if node.id in VIEWS:
            return _terms(ast.parse(VIEWS[node.id], mode="eval").body)
        raise ValueError(f"unknown view {node.id!r}")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id == "mirror" and len(node.args) == 1:
            return {
                dataclasses.replace(view, mirrored=not view.mirrored): weight
                for view, weight in _terms(node.args[0]).items()
            }
        bounds = KINDS.get(node.func.id)
        if bounds and len(node.args) == len(bounds):
            numbers = [_number(node, *of) for node, of in zip(node.args, bounds, strict=True)]
            return {View(node.func.id, tuple(numbers)): 1.0}
    raise ValueError(f"{ast.unparse(node)!r} is not a view")


def _number(node: ast.AST, name: str, least: float, most: float) -> float:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, not {ast.unparse(node)!r}")
    if not least <= value <= most:
        raise ValueError(f"{name}={value} must be from {least:g} to {most:g}")
    return float(value)
