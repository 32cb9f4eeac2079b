"""What a spec of test-time views means: its grammar, its weights, its passes and its errors."""

import pytest

from fgc_jax.config.views import VIEWS, View, ViewSpec
from fgc_jax.evaluation import views

SIZES = {"crop": 64, "resize": 72, "stride": 32}
MIRRORED = View("raw", (), True)
CROPS = [View("crop", numbers) for numbers in ((0.3, 0.1), (0.2, 0.1), (0.1, 0.05))]


def mirrored(found):
    return [View(view.kind, view.numbers, not view.mirrored) for view in found]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("raw", {View("raw"): 1}),
        ("raw_crop", dict.fromkeys([View("raw"), View("crop", (0.1, 0.05))], 1 / 2)),
        ("crop3", dict.fromkeys([View("raw"), *CROPS], 1 / 4)),
        (
            "crop3_flip",
            dict.fromkeys([View("raw"), *CROPS, *mirrored([View("raw"), *CROPS])], 1 / 8),
        ),
        ("flip", {View("raw"): 1 / 2, MIRRORED: 1 / 2}),
        (
            " 2*raw + crop(0.1, 0.05) + 0.5*mirror(raw) ",
            {View("raw"): 4 / 7, CROPS[2]: 2 / 7, MIRRORED: 1 / 7},
        ),
        # A view that comes twice is computed once; a name and a sum weigh each view in them.
        ("2*raw + mirror(mirror(raw)) + mirror(raw)", {View("raw"): 3 / 4, MIRRORED: 1 / 4}),
        ("3*flip + raw", {View("raw"): 4 / 7, MIRRORED: 3 / 7}),
        ("2*(raw + 3*scale(2))", {View("raw"): 1 / 4, View("scale", (2.0,)): 3 / 4}),
        ("mirror(place(0, 1))", {View("place", (0.0, 1.0), True): 1}),
    ],
)  # fmt: skip
def test_specs(spec, expected):
    assert dict(ViewSpec.parse(spec).weights) == pytest.approx(expected)


@pytest.mark.parametrize("name", VIEWS)
def test_names_are_known_by_their_cost(name):
    passes = {"raw": 1, "raw_crop": 2, "crop3": 4, "crop3_flip": 8, "flip": 2, "five_crop": 5,
              "ten_crop": 10, "multi_scale": 1 + (192 / 224) ** 2 + (256 / 224) ** 2}  # fmt: skip
    made = views.make(ViewSpec.parse(name), crop=224, resize=256, stride=32)
    assert made.cost == pytest.approx(passes[name])
    assert sum(each.weight for each in made.passes) == pytest.approx(1)
    assert str(made) == (
        "raw" if name == "raw" else f"{name} ({made.cost:.3g} forward passes an image)"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "invalid syntax"),
        ("crop4", "unknown view 'crop4'; allowed: raw, raw_crop, crop3, crop3_flip"),
        ("raw +", "invalid syntax"),
        ("raw - flip", "'raw - flip' is not a view"),
        ("raw, flip", "not a view"),
        ("crop(0.1)", r"'crop\(0.1\)' is not a view.* crop\(threshold, padding\)"),
        ("crop(0.1, padding=0.1)", "is not a view"),
        ("crop(1, 0.1)", "threshold=1 must be from 0.01 to 0.99"),
        ("crop(0.1, raw)", "padding must be a number, not 'raw'"),
        ("place(0, 1.5)", "left=1.5 must be from 0 to 1"),
        ("0*raw", "weight=0 must be from"),
        ("-1*raw + flip", "weight must be a number, not '-1'"),
        ("True*raw", "weight must be a number, not 'True'"),
        ("1e999*raw", "weight=inf must be from"),
        ("raw*2", "weight must be a number, not 'raw'"),
        ("__import__('os')", "is not a view"),
        ("mirror(raw, raw)", "is not a view"),
        ("(" * 3000 + "raw" + ")" * 3000, "allowed: raw"),
        ("raw\0", "null bytes"),
    ],
)
def test_what_is_no_spec_is_one_error(spec, message):
    with pytest.raises(ValueError, match=message) as raised:
        ViewSpec.parse(spec)
    assert str(raised.value).startswith("views ")


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ("five_crop", {"resize": 64}, "resize=64 equals the crop, so there is only one place"),
        ("multi_scale", {}, r"scale\(0.86\) of 64 pixels is 64 again, because sizes"),
        ("raw", {"average": "median"}, "unknown average 'median', allowed: logits, probabilities"),
        ("raw", {"logits": "both"}, "unknown logits 'both', allowed: plain, effect"),
    ],
)
def test_what_cannot_be_made(spec, changes, message):
    with pytest.raises(ValueError, match=message):
        views.make(ViewSpec.parse(spec), **SIZES | changes)


def test_places_and_sides_in_pixels():
    made = views.make(ViewSpec.parse("ten_crop + raw"), **SIZES)
    corners = [each.corner for each in made.passes if not each.mirrored]
    assert (made.side, made.crop, made.placed) == (72, 64, True)
    assert sorted(corners) == [(0, 0), (0, 8), (4, 4), (4, 4), (8, 0), (8, 8)]
    scaled = views.make(
        ViewSpec.parse("scale(0.1) + scale(0.8) + raw"), crop=80, resize=80, stride=16
    )
    assert sorted(each.side for each in scaled.passes) == [16, 64, 80]
    assert not scaled.placed
    # Patches of 16 pixels each 12: sides of 16 + 12 n.
    overlapping = views.make(ViewSpec.parse("multi_scale"), crop=448, resize=512, stride=12)
    assert sorted(each.side for each in overlapping.passes) == [388, 448, 508]


def test_each_crop_comes_behind_the_image_that_it_is_cut_from():
    made = views.make(ViewSpec.parse("mirror(crop(0.2, 0.1)) + 3*crop(0.1, 0.05)"), **SIZES)
    seen = [(each.mirrored, each.maps, each.weight) for each in made.passes]
    assert seen == [
        (False, True, 0),
        (False, False, 0.75),
        (True, True, 0),
        (True, False, 0.25),
    ]
    assert (made.cost, made.attentive, made.is_raw) == (4, True, False)


def test_what_stands_beside_a_result():
    made = views.make(ViewSpec.parse("crop3"), average="probabilities", logits="effect", **SIZES)
    assert str(made) == ("crop3 (4 forward passes an image, mean of probabilities, effect logits)")
    assert str(views.make(ViewSpec.parse("raw"), logits="effect", **SIZES)) == "raw (effect logits)"
    for spec, is_raw in (("raw", True), ("2*raw", True), ("mirror(raw)", False), ("flip", False)):
        assert views.make(ViewSpec.parse(spec), **SIZES).is_raw == is_raw
