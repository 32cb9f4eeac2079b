"""Draws the birds of `synthetic_birds`: a pose in pixels, its picture, part map and boxes.

Everything that does not depend on the species (pose, plumage) is in `Look`.
"""

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np

from fgc_jax.data.sources import bird_outlines

SHIFT = 4  # OpenCV's fixed-point bits: polygons keep a sixteenth of a pixel
INK = (44, 38, 40)  # spots, bars, feather tips
REGIONS = (bird_outlines.BODY, *bird_outlines.PARTS)


@dataclasses.dataclass(frozen=True)
class Look:
    """Random per image and independent of the species. Angles in radians, lengths in bird units."""

    centre: tuple[float, float]  # of the body, as a fraction of the image side
    scale: float  # image sides per bird unit
    left: bool
    yaw: float  # horizontal foreshortening, <= 1
    tilt: float  # of the body; the five angles are positive for "up"
    head: float
    tail: float
    wing: float
    crest: float
    neck: float  # stretches, about 1
    plumpness: float
    bill_length: float
    crest_length: float
    tail_width: float
    stride: float  # between the feet
    perch: float  # slope of the perch
    body: tuple[int, int, int]  # colours RGB
    wing_colour: tuple[int, int, int]
    head_colour: tuple[int, int, int]
    mark_colour: tuple[int, int, int]
    variations: tuple[str, ...]  # of bird_outlines.VARIATIONS
    brightness: float  # of the trait colours
    warmth: float  # of the trait colours, > 0 towards red
    strength: float  # contrast of bars, spots and patches, <= 1


class Shape(NamedTuple):
    """A layer in pixels; `width` 0 fills the polygon."""

    part: str
    colour: str
    points: np.ndarray  # int32 [n, 2], OpenCV's fixed point
    width: float


class Bird(NamedTuple):
    shapes: tuple[Shape, ...]  # back to front
    feet: np.ndarray  # float64 [2, 2] pixels: far, near
    side: int  # of the image, pixels


def _mix(a, b, share):
    return tuple(share * x + (1 - share) * y for x, y in zip(a, b, strict=True))


def _shade(colour, factor):
    return tuple(int(min(255, max(0, c * factor))) for c in colour)


def palette(traits, look):
    """Colour name -> RGB, 0 to 255."""

    def trait(colour, factor=1.0):
        red, green, blue = _shade(colour, factor * look.brightness)
        return _shade((red, green * (1 - look.warmth), blue), 1.0)

    bill = bird_outlines.BILL_COLOURS[traits.bill_colour]
    belly = trait(bird_outlines.BELLY_COLOURS[traits.belly_colour])
    legs = bird_outlines.LEG_COLOURS[traits.leg_colour]
    return {
        "body": look.body,
        "mark": look.mark_colour,
        "head": look.head_colour,
        "crest": _shade(look.head_colour, 0.9),
        "crest_tip": _mix(INK, look.head_colour, look.strength),
        "crest_dark": _shade(look.head_colour, 0.6),
        "wing": look.wing_colour,
        "wing_dark": _shade(look.wing_colour, 0.62),
        "pale": _mix(trait((240, 236, 222)), look.wing_colour, look.strength),
        "belly": belly,
        "ink": _mix(INK, belly, look.strength),
        "eye_ring": _shade(look.head_colour, 1.3),
        "eye": (18, 14, 14),
        "glint": (250, 250, 250),
        "bill": trait(bill),
        "bill_dark": trait(bill, 0.6),
        "legs": trait(legs),
        "legs_far": trait(legs, 0.72),
    }


def _frame(angle, origin, along=1.0, across=1.0):
    """Affine [2, 3]: scale, turn (positive lifts x), move to `origin`."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c * along, s * across, origin[0]], [-s * along, c * across, origin[1]]])


def _apply(affine, points):
    return points @ affine[:, :2].T + affine[None, :, 2]


def _fixed(points):
    """Pixel coordinates [n, 2] -> OpenCV fixed point; pixel k covers [k, k + 1)."""
    return np.rint((points - 0.5) * (1 << SHIFT)).astype(np.int32)


def _chain(outer, inner):
    """The affine [2, 3] that applies `inner`, then `outer`."""
    turned = outer[:, :2] @ inner
    turned[:, 2] += outer[:, 2]
    return turned


def _at(affine, x, y):
    return _apply(affine, np.array([(x, y)]))[0]


def _legs(body, look, length, to_pixels, unit):
    """Both legs from the hips to a common perch: (far shapes, near shapes, feet [2, 2])."""
    hips = _apply(body, np.array([(0.10, 0.18), (-0.02, 0.20)]))
    middle, ground = hips[:, 0].mean(), hips[:, 1].max() + 0.05 + length
    legs, feet = [], []
    for hip, step, colour in zip(hips, (0.5, -0.5), ("legs_far", "legs"), strict=True):
        x = 0.5 * (hip[0] + middle) + step * look.stride
        foot = np.array([x, ground + look.perch * (x - middle)])
        ankle = np.array([0.5 * (hip[0] + x) - 0.05, 0.5 * (hip[1] + foot[1])])
        toes = ((0.10, 0.012), (0.075, 0.045), (-0.075, 0.02))
        lines = [(np.array([hip, ankle, foot]), 0.034)]
        lines += [(np.array([foot, foot + np.array(toe)]), 0.026) for toe in toes]
        legs.append(
            [Shape("legs", colour, _fixed(_apply(to_pixels, line)), w * unit) for line, w in lines]
        )
        feet.append(_at(to_pixels, *foot))
    return *legs, np.array(feet)


def pose(traits, look, side):
    """A bird with the traits of its species and a look, in pixels of a square image of `side`."""
    body = _frame(look.tilt, (0.0, 0.0), across=look.plumpness)
    head_at = _at(body, 0.40, -0.20) + np.array([0.09, -0.17]) * look.neck
    head = _frame(look.head, head_at)
    frames = {
        "body": body,
        "wing": _frame(look.tilt + look.wing, (0.0, 0.0)),
        "head": head,
        "crest": _frame(look.head + look.crest, head_at, look.crest_length, look.crest_length),
        "bill": _frame(look.head, _at(head, 0.186, 0.02), along=look.bill_length),
        "tail": _frame(look.tilt - look.tail, _at(body, -0.52, -0.045), -1.0, look.tail_width),
    }
    mirror = -1 if look.left else 1
    to_pixels = side * np.array(
        [
            [mirror * look.yaw * look.scale, 0.0, look.centre[0]],
            [0.0, look.scale, look.centre[1]],
        ]
    )
    unit = look.scale * side
    frames = {name: _chain(to_pixels, frame) for name, frame in frames.items()}

    def place(layers):
        return [
            Shape(part, colour, _fixed(_apply(frames[frame], points)), width * unit)
            for part, frame, colour, points, width in layers
        ]

    group = {name: place(layers) for name, layers in bird_outlines.layers(traits).items()}
    marks = {name: place(bird_outlines.VARIATIONS[name]) for name in look.variations}
    collar = _fixed(_apply(frames["body"], bird_outlines.COLLAR))
    hull = cv2.convexHull(np.concatenate([group["head"][0].points, collar]))
    neck = Shape("body", "body", hull[:, 0], 0.0)
    length = bird_outlines.LEG_LENGTHS[traits.legs]
    far, near, feet = _legs(body, look, length, to_pixels, unit)
    shapes = [*group["tail"], *far, *near, *group["crest"], *group["trunk"], neck]
    for name in ("band", "streaks"):
        shapes += marks.get(name, [])
    shapes += [*group["belly"], *group["wing"], *group["head"]]
    for name in ("bib", "cap", "eye_stripe"):
        shapes += marks.get(name, [])
    shapes += [*group["bill"], *group["eye"]]
    return Bird(tuple(shapes), feet, side)


def fill(canvas, points, colour):
    """Fills the polygon `points` [n, 2] pixels in place."""
    cv2.fillPoly(canvas, [_fixed(points)], colour, cv2.LINE_AA, SHIFT)


def stroke(canvas, points, colour, width):
    """Draws the open line `points` [n, 2] pixels, `width` pixels wide, in place."""
    thickness = max(1, round(width))
    cv2.polylines(canvas, [_fixed(points)], False, colour, thickness, cv2.LINE_AA, SHIFT)


def paint(canvas, bird, colours):
    """Draws `bird` on `canvas` uint8 RGB [S, S, 3] in place; `colours` as from `palette`."""
    for _, name, points, width in bird.shapes:
        if width:
            thickness = max(1, round(width))
            cv2.polylines(canvas, [points], False, colours[name], thickness, cv2.LINE_AA, SHIFT)
        else:
            cv2.fillPoly(canvas, [points], colours[name], cv2.LINE_AA, SHIFT)


def paint_front(canvas, shapes):
    """Draws the shapes in front of the bird: (points in fractions of the side, width, colour)."""
    side = canvas.shape[0]
    for points, width, colour in shapes:
        if width:
            stroke(canvas, points * side, colour, width * side)
        else:
            fill(canvas, points * side, colour)


def silhouette(bird, octaves):
    """The bird's soft mask, uint8 [s, s] in 0 to 255, its side halved `octaves` times."""
    side = bird.side >> octaves
    mask = np.zeros((side, side), np.uint8)
    for shape in bird.shapes:
        if not shape.width:  # legs are too thin to shade
            cv2.fillPoly(mask, [shape.points], 255, cv2.LINE_AA, SHIFT + octaves)
    return mask


def coverage(bird, shrink, in_front=()):
    """The share of each pixel that each part covers: uint8 [s, s, 7], 255 is the whole pixel.

    `s` is the image's side over `shrink`; the channels follow REGIONS. A pixel counts for the
    front part only; `in_front`, as for `paint_front`, hides what is under it too.
    """
    # OpenCV draws on at most four channels.
    groups = [REGIONS[:4], REGIONS[4:]]
    by_part = bird._replace(shapes=[s._replace(colour=s.part) for s in bird.shapes])
    canvases = [np.zeros((bird.side, bird.side, len(group)), np.uint8) for group in groups]
    for group, canvas in zip(groups, canvases, strict=True):
        colours = {name: tuple(255 * (name == own) for own in group) for name in REGIONS}
        paint(canvas, by_part, colours)
        paint_front(canvas, [(points, width, (0, 0, 0, 0)) for points, width, _ in in_front])
    size = (bird.side // shrink, bird.side // shrink)
    small = [cv2.resize(canvas, size, interpolation=cv2.INTER_AREA) for canvas in canvases]
    return np.concatenate(small, axis=2)


def box(mask):
    """Extent of the true pixels of `mask` [S, S]: half-open x0, y0, x1, y1, float32 [4].

    NaN if there are none.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return np.full(4, np.nan, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
