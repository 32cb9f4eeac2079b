"""The anatomy of `synthetic_birds`: the outlines and markings from which a species is drawn.

Lengths are in bird units (the body is 1.06 long), x forward, y down. Each layer has the frame of
the limb that it moves with; `bird_drawing.pose` maps frames to pixels.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

PARTS = ("bill", "crest", "wing", "tail", "belly", "legs")
BODY = "body"  # everything that belongs to no part: trunk, neck, head

HEAD_RADIUS = 0.19
LEG_LENGTHS = {"short": 0.17, "long": 0.40}
BILL_COLOURS = {"black": (38, 36, 40), "yellow": (236, 186, 44), "red": (206, 54, 40)}
LEG_COLOURS = {"black": (44, 42, 46), "yellow": (230, 172, 48), "red": (204, 72, 62)}
BELLY_COLOURS = {"white": (238, 235, 226), "yellow": (232, 202, 76), "rufous": (178, 88, 46)}


@dataclasses.dataclass(frozen=True)
class Traits:
    """The definition of a species; every field is one visible trait of one part."""

    bill: str  # cone, straight, curved, hooked
    bill_colour: str  # black, yellow, red
    crest: str  # none, peaked, plumed, fan
    wing: str  # plain, one_bar, two_bars, patch
    tail: str  # short, long, forked, banded
    belly: str  # plain, spotted, barred
    belly_colour: str  # white, yellow, rufous
    legs: str  # short, long
    leg_colour: str  # black, yellow, red


class Layer(NamedTuple):
    """A filled outline, or an open line where `width` > 0, in the frame it is attached to."""

    part: str  # one of PARTS, or BODY
    frame: str
    colour: str  # a key of `bird_drawing.palette`
    points: np.ndarray  # float64 [n, 2]
    width: float = 0.0


def points(text):
    """Reads "x,y x,y ..." (as SVG writes polygons), float64 [n, 2]."""
    return np.array([pair.split(",") for pair in text.split()], np.float64)


def smooth(corners, samples=5):
    """Closed Catmull-Rom curve through `corners` [n, 2] -> [n * samples, 2]."""
    t = (np.arange(samples) / samples)[None, :, None]
    a, b, c, d = (np.roll(corners, shift, axis=0)[:, None, :] for shift in (1, 0, -1, -2))
    curve = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3
    return 0.5 * curve.reshape(-1, 2)


def circle(x, y, radius, n=16, stretch=1.0):
    """Polygon of `n` corners around a circle whose width is `stretch` times its height."""
    angle = 2 * np.pi * np.arange(n) / n
    return np.stack([x + stretch * radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


TRUNK = points(
    "0.48,-0.10 0.45,0.08 0.30,0.22 0.08,0.28 -0.16,0.235 -0.38,0.11 "
    "-0.58,0.00 -0.54,-0.09 -0.34,-0.16 -0.06,-0.25 0.20,-0.30 0.40,-0.25"
)
COLLAR = TRUNK[[0, 1, 9, 10, 11]]  # where the neck leaves the trunk
BELLY = points(
    "0.47,0.00 0.44,0.09 0.30,0.215 0.08,0.275 -0.16,0.23 -0.38,0.105 "
    "-0.46,0.055 -0.20,0.10 0.08,0.09 0.30,0.02"
)
WING = points(
    "0.30,-0.09 0.16,-0.19 -0.08,-0.205 -0.34,-0.14 -0.64,0.01 -0.38,0.055 "
    "-0.14,0.11 0.08,0.10 0.24,0.02"
)
# The outline and the line between the mandibles; the origin is the bill's root.
BILLS = {
    "cone": (
        "-0.06,-0.085 0.05,-0.07 0.17,0.012 0.05,0.06 -0.06,0.075",
        "0.0,0.005 0.08,0.0 0.165,0.012",
    ),
    "straight": (
        "-0.06,-0.045 0.02,-0.036 0.20,-0.018 0.40,0.004 0.20,0.022 0.02,0.036 -0.06,0.045",
        "0.0,0.0 0.20,0.002 0.39,0.004",
    ),
    "curved": (
        "-0.06,-0.05 0.04,-0.04 0.18,-0.016 0.29,0.05 0.36,0.165 0.25,0.085 0.15,0.03 "
        "0.03,0.034 -0.06,0.045",
        "0.0,0.0 0.15,0.008 0.26,0.062",
    ),
    "hooked": (
        "-0.06,-0.07 0.06,-0.068 0.15,-0.035 0.185,0.035 0.165,0.105 0.13,0.045 0.06,0.055 "
        "-0.06,0.06",
        "0.0,0.01 0.07,0.018 0.13,0.03",
    ),
}
# The origin is the root, x points away from the bird.
TAILS = {
    "short": "-0.12,-0.07 0.10,-0.085 0.29,-0.095 0.31,0.085 0.10,0.075 -0.12,0.06",
    "long": "-0.12,-0.065 0.2,-0.06 0.5,-0.055 0.62,-0.02 0.62,0.02 0.5,0.05 0.2,0.055 -0.12,0.06",
    "forked": "-0.12,-0.065 0.2,-0.10 0.56,-0.19 0.33,-0.035 0.22,0.0 0.33,0.035 0.56,0.17 "
    "0.2,0.09 -0.12,0.06",
    "banded": "-0.12,-0.065 0.2,-0.105 0.43,-0.145 0.47,0.0 0.43,0.135 0.2,0.095 -0.12,0.06",
}
PLUMES = (
    "0.04,-0.15 -0.10,-0.26 -0.26,-0.33 -0.42,-0.44 -0.27,-0.28 -0.14,-0.18 -0.06,-0.11",
    "-0.04,-0.14 -0.18,-0.19 -0.31,-0.20 -0.45,-0.26 -0.31,-0.155 -0.17,-0.12 -0.10,-0.07",
)
PEAK = "0.13,-0.11 0.05,-0.24 -0.13,-0.40 -0.15,-0.27 -0.21,-0.15 -0.17,-0.02 0.0,-0.05"
FEATHER = "0.10,-0.03 0.31,-0.05 0.42,0.0 0.31,0.05 0.10,0.03"
FEATHER_TIP = "0.34,-0.048 0.39,-0.034 0.42,0.0 0.39,0.034 0.34,0.048"


def _bill(shape):
    outline, gape = BILLS[shape]
    yield Layer("bill", "bill", "bill", smooth(points(outline)))
    yield Layer("bill", "bill", "bill_dark", points(gape), 0.012)


def _crest(shape):
    if shape == "peaked":
        yield Layer("crest", "crest", "crest", smooth(points(PEAK)))
        fold = points("0.0,-0.16 -0.06,-0.24 -0.115,-0.36")
        yield Layer("crest", "crest", "crest_dark", fold, 0.014)
    elif shape == "plumed":
        for plume in PLUMES:
            yield Layer("crest", "crest", "crest_dark", smooth(points(plume)))
    elif shape == "fan":
        for degrees in (54, 76, 98, 120, 142):
            c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
            turn = np.array([[c, -s], [s, c]])
            yield Layer("crest", "crest", "crest", points(FEATHER) @ turn)
            yield Layer("crest", "crest", "crest_tip", points(FEATHER_TIP) @ turn)


def _tail(shape):
    outline = points(TAILS[shape])
    yield Layer("tail", "tail", "wing", outline)
    if shape == "banded":
        for x in (0.14, 0.25, 0.36):
            half = 0.075 + 0.17 * x
            band = [(x, -half), (x + 0.05, -half - 0.008), (x + 0.055, 0.0)]
            band += [(x + 0.05, half), (x, half - 0.008), (x + 0.008, 0.0)]
            yield Layer("tail", "tail", "pale", np.array(band))
    else:
        end = (0.38, 0.115) if shape == "forked" else (0.72 * outline[:, 0].max(), 0.03)
        for side in (-1, 1):
            line = np.array([(0.02, 0.02), end]) * (1, side)
            yield Layer("tail", "tail", "wing_dark", line, 0.012)


def _belly(pattern):
    yield Layer("belly", "body", "belly", smooth(BELLY))
    if pattern == "spotted":
        rows = ((0.125, -0.24, 0.40), (0.185, -0.23, 0.34), (0.235, -0.11, 0.22))
        for y, back, front in rows:
            for x in np.arange(back, front, 0.095):
                spot = circle(x, y - 0.12 * max(x - 0.2, 0), 0.021, 8, 1.15)
                yield Layer("belly", "body", "ink", spot)
    elif pattern == "barred":
        for x in np.arange(-0.26, 0.43, 0.095):
            low = np.interp(x, BELLY[5:0:-1, 0], BELLY[5:0:-1, 1] - 0.01)
            high = 0.095 - 0.34 * max(x - 0.1, 0)
            bar = np.array([(x + 0.015, high), (x, 0.5 * (low + high)), (x + 0.02, low)])
            yield Layer("belly", "body", "ink", bar, 0.024)


def _wing(marks):
    yield Layer("wing", "wing", "wing", smooth(WING))
    for y0, y1 in ((-0.10, -0.055), (-0.05, -0.02), (0.0, 0.012), (0.05, 0.035)):
        quill = np.array([(-0.22, y0), (-0.42, 0.5 * (y0 + y1)), (-0.57, 0.4 * y1)])
        yield Layer("wing", "wing", "wing_dark", quill, 0.012)
    for x in {"one_bar": (0.03,), "two_bars": (0.09, -0.07)}.get(marks, ()):
        top = -0.185 if x > 0 else -0.175
        bar = [(0.06, top), (0.005, top), (-0.055, -0.04), (-0.075, 0.085), (-0.02, 0.085)]
        bar = np.array([*bar, (0.0, -0.04)]) + (x, 0.0)
        yield Layer("wing", "wing", "pale", bar)
    if marks == "patch":
        patch = points("-0.10,-0.05 -0.34,-0.06 -0.38,0.02 -0.30,0.045 -0.12,0.07")
        yield Layer("wing", "wing", "pale", smooth(patch))


def _eye():
    for colour, x, y, radius in (
        ("eye_ring", 0.07, -0.045, 0.05),
        ("eye", 0.07, -0.045, 0.038),
        ("glint", 0.083, -0.06, 0.013),
    ):
        yield Layer(BODY, "head", colour, circle(x, y, radius, 12))


# Plumage that varies within a species: markings on the trunk or head that belong to no part.
VARIATIONS = {
    "cap": (
        Layer(
            BODY,
            "head",
            "mark",
            points("0.17,-0.08 0.10,-0.165 0.0,-0.185 -0.12,-0.15 -0.18,-0.05"),
        ),
    ),
    "eye_stripe": (Layer(BODY, "head", "mark", points("0.17,-0.01 0.06,-0.04 -0.18,-0.02"), 0.05),),
    "bib": (
        Layer(BODY, "head", "mark", points("0.18,0.03 0.08,0.05 0.0,0.14 0.06,0.18 0.15,0.12")),
    ),
    "band": (Layer(BODY, "body", "mark", points("0.475,-0.04 0.36,-0.03 0.27,-0.03"), 0.06),),
    "streaks": tuple(
        Layer(BODY, "body", "mark", np.array([(x, -0.225), (x - 0.07, -0.19)]), 0.016)
        for x in (0.24, 0.15, 0.06, -0.03, -0.12)
    ),
}


@functools.cache
def layers(traits):
    """Group -> layers from back to front. Neck and legs follow the pose: `bird_drawing.pose`."""
    return {
        "tail": tuple(_tail(traits.tail)),
        "crest": tuple(_crest(traits.crest)),
        "trunk": (Layer(BODY, "body", "body", smooth(TRUNK)),),
        "belly": tuple(_belly(traits.belly)),
        "wing": tuple(_wing(traits.wing)),
        "head": (Layer(BODY, "head", "head", circle(0.0, 0.0, HEAD_RADIUS, 24, 1.05)),),
        "bill": tuple(_bill(traits.bill)),
        "eye": tuple(_eye()),
    }
