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
AVERAGES = ("logits", "probabilities")
LOGITS = ("plain", "effect")


@dataclasses.dataclass(frozen=True)
class View:
    """One view of a spec. kind: "raw" or a key of KINDS."""

    kind: str
    numbers: tuple[float, ...] = ()
    mirrored: bool = False


@dataclasses.dataclass(frozen=True)
class Pass:
    """One forward pass.

    weight: its share of the result; the sum over all passes is 1. corner: (top, left) in pixels of
    the square from the host. attended: (threshold, padding) of an attention crop, else None.
    maps: whether later crops use the attention of this pass. side: of the network's input, pixels.
    """

    weight: float
    mirrored: bool
    corner: tuple[int, int]
    attended: tuple[float, float] | None
    maps: bool
    side: int


@dataclasses.dataclass(frozen=True)
class Views:
    """Views and the passes that compute them; `make` builds them, `str` describes them.

    side: pixels of the square from the host. crop: pixels of a raw view. feature_map: the map used
    instead of attention, see `multiview.attention`.
    """

    spec: str
    passes: tuple[Pass, ...]
    side: int
    crop: int
    average: str
    logits: str
    feature_map: str

    @property
    def is_raw(self) -> bool:
        """Whether there is one view, the unchanged image."""
        first, *others = self.passes
        return not others and first.maps and not first.mirrored

    @property
    def placed(self) -> bool:
        """Whether the device crops the images, so the host must not."""
        return self.side > self.crop

    @property
    def cost(self) -> float:
        """The cost in forward passes of `crop` pixels; other sizes count by their pixels."""
        return sum((each.side / self.crop) ** 2 for each in self.passes)

    @property
    def attentive(self) -> bool:
        """Whether there is an attention crop."""
        return any(each.attended for each in self.passes)

    def __str__(self):
        about = [] if self.is_raw else [f"{self.cost:.3g} forward passes an image"]
        if len(self.passes) > 1 and self.average != "logits":
            about.append(f"mean of {self.average}")
        if self.logits != "plain":
            about.append(f"{self.logits} logits")
        return f"{self.spec} ({', '.join(about)})" if about else self.spec


def parse(spec: str) -> dict[View, float]:
    """The views of a spec with their weights, whose sum is 1.

    Raises:
        ValueError: the spec is wrong; the message says what is wrong and what is allowed.
    """
    try:
        found = _terms(ast.parse(spec.strip(), mode="eval").body, (spec,))
    except (SyntaxError, ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        kinds = [f"{kind}({', '.join(name for name, *_ in of)})" for kind, of in KINDS.items()]
        raise ValueError(
            f"views {spec!r}: {why}; allowed: {', '.join(VIEWS)}, or a sum such as "
            f"'2*raw + crop(0.1, 0.05) + 0.5*mirror(raw)' of raw, {', '.join(kinds)}, mirror(...)"
        ) from None
    total = sum(found.values())
    return {view: weight / total for view, weight in found.items()}


def _terms(node: ast.AST, names: tuple[str, ...]) -> dict[View, float]:
    """The views and weights of a part of a spec; `names`: the names of VIEWS that contain it."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _added(_terms(node.left, names), _terms(node.right, names))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        weight = _number(node.left, "weight", 1e-6, 1e6)
        return {view: weight * share for view, share in _terms(node.right, names).items()}
    if isinstance(node, ast.Name):
        if node.id == "raw":
            return {View("raw"): 1.0}
        if node.id in VIEWS:
            return _terms(ast.parse(VIEWS[node.id], mode="eval").body, (*names, node.id))
        raise ValueError(f"unknown view {node.id!r}")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id == "mirror" and len(node.args) == 1:
            return {
                dataclasses.replace(view, mirrored=not view.mirrored): weight
                for view, weight in _terms(node.args[0], names).items()
            }
        bounds = KINDS.get(node.func.id)
        if bounds and len(node.args) == len(bounds):
            numbers = [_number(node, *of) for node, of in zip(node.args, bounds, strict=True)]
            return {View(node.func.id, tuple(numbers)): 1.0}
    raise ValueError(f"{ast.unparse(node)!r} is not a view")


def _added(left: dict[View, float], right: dict[View, float]) -> dict[View, float]:
    """The sum of both; a view in both gets the sum of its weights and is computed once."""
    return {view: left.get(view, 0.0) + right.get(view, 0.0) for view in {**left, **right}}


def _number(node: ast.AST, name: str, least: float, most: float) -> float:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, not {ast.unparse(node)!r}")
    if not least <= value <= most:
        raise ValueError(f"{name}={value} must be from {least:g} to {most:g}")
    return float(value)


def make(
    spec: str,
    *,
    crop: int,
    resize: int,
    stride: int,
    average: str = "logits",
    logits: str = "plain",
    feature_map: str = "features",
) -> Views:
    """The views of a spec, for squares of `crop` pixels that the host crops from `resize` pixels.

    stride: a scaled side differs from `crop` by a multiple of it. average: the mean is one of
    "logits" or of "probabilities". logits: the network's "plain" logits, or "effect" for
    "head/effect" of its `out` (counterfactual attention learning). feature_map: see
    `multiview.attention`.

    Raises:
        ValueError: a wrong spec, average or logits, or a view without effect at these sizes.
    """
    for name, value, allowed in (("average", average, AVERAGES), ("logits", logits, LOGITS)):
        if value not in allowed:
            raise ValueError(f"unknown {name} {value!r}, allowed: {', '.join(allowed)}")
    found = parse(spec)
    placed = any(view.kind == "place" for view in found)
    if placed and resize == crop:
        raise ValueError(
            f"views {spec!r}: resize={resize} equals the crop, so there is only one place to crop"
        )
    side = resize if placed else crop
    # Each crop comes after the raw view of its own, perhaps mirrored, image, whose maps it needs.
    for mirrored in {view.mirrored for view in found if view.kind == "crop"}:
        found.setdefault(View("raw", mirrored=mirrored), 0.0)
    ordered = sorted(found.items(), key=lambda item: (item[0].mirrored, item[0].kind == "crop"))
    passes = tuple(_pass(spec, view, weight, side, crop, stride) for view, weight in ordered)
    return Views(spec, passes, side, crop, average, logits, feature_map)


def _pass(spec, view, weight, side, crop, stride) -> Pass:
    room, scaled = side - crop, crop
    corner = (round(room / 2),) * 2
    if view.kind == "place":
        corner = tuple(round(room * share) for share in view.numbers)
    if view.kind == "scale":
        # Whole strides more or less than the crop, because patches may overlap.
        steps = round((view.numbers[0] - 1) * crop / stride)
        scaled = crop + max(steps, -((crop - 1) // stride)) * stride
        if scaled == crop:
            raise ValueError(
                f"views {spec!r}: scale({view.numbers[0]:g}) of {crop} pixels is {scaled} again, "
                f"because sizes change in steps of {stride}"
            )
    return Pass(
        weight=weight,
        mirrored=view.mirrored,
        corner=corner,
        attended=view.numbers if view.kind == "crop" else None,
        maps=view.kind == "raw",
        side=scaled,
    )


RAW = make("raw", crop=1, resize=1, stride=1)
