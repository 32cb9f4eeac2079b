"""The forward passes that compute the test-time views of an image (see `fgc_jax.config.views`)."""

import dataclasses

from fgc_jax.config.views import AVERAGES, LOGITS, View, ViewSpec


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

    spec: ViewSpec
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
        return f"{self.spec} ({', '.join(about)})" if about else str(self.spec)


def make(
    spec: ViewSpec,
    *,
    crop: int,
    resize: int,
    stride: int,
    average: str = AVERAGES[0],
    logits: str = "plain",
    feature_map: str = "features",
) -> Views:
    """The views of a spec, for squares of `crop` pixels that the host crops from `resize` pixels.

    stride: a scaled side differs from `crop` by a multiple of it. average: the mean is one of
    "logits" or of "probabilities". logits: the network's "plain" logits, or "effect" for
    "head/effect" of its `out` (counterfactual attention learning). feature_map: see
    `multiview.attention`.

    Raises:
        ValueError: a wrong average or logits, or a view without effect at these sizes.
    """
    for name, value, allowed in (("average", average, AVERAGES), ("logits", logits, LOGITS)):
        if value not in allowed:
            raise ValueError(f"unknown {name} {value!r}, allowed: {', '.join(allowed)}")
    found = dict(spec.weights)
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
    return Views(
        spec=spec,
        passes=passes,
        side=side,
        crop=crop,
        average=average,
        logits=logits,
        feature_map=feature_map,
    )


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


RAW = make(ViewSpec.parse("raw"), crop=1, resize=1, stride=1)
