"""Everything in a `synthetic_birds` image that does not depend on the species.

The random look of a bird (pose, scale, plumage) and the scene around it: background, perch,
distractors, leaves and twigs in front, light and sensor.
"""

import colorsys
from typing import NamedTuple

import cv2
import numpy as np

from fgc_jax.data.sources import bird_drawing, bird_outlines

REACH = (1.02, 0.86)  # bird units from the body's centre that contain nearly every bird


class Scene(NamedTuple):
    """Random variables of one image, except those of the background and the perch."""

    look: bird_drawing.Look
    brightness: float
    warmth: float  # > 0 red, < 0 blue
    contrast: float
    sun: tuple[float, float]  # direction the light comes from, on screen
    shadow: float  # depth of dappled shadow, 0 to 1
    blur: float  # sigma in pixels of a 192-pixel image
    noise: float  # amplitude in grey levels
    ground: bool  # stands on the ground instead of a branch
    in_front: tuple  # leaves and twigs over the bird, see bird_drawing.paint_front


def _rgb(hue, saturation, value):
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _look(u):
    """A look from uniform numbers in [0, 1), taken in a fixed order from the iterator `u`."""

    def between(low, high):
        return float(low + (high - low) * next(u))

    scale = between(0.28, 0.44)
    slack_x, slack_y = (max(0.5 - reach * scale, 0.0) + 0.03 for reach in REACH)
    # Most birds are brown, grey or olive; some are colourful.
    drab, hue = next(u) < 0.55, next(u)
    hue, saturation = (0.05 + 0.14 * hue, between(0.05, 0.55)) if drab else (hue, between(0.0, 0.5))
    value = between(0.30, 0.74)
    mark_value = between(0.12, 0.35) if next(u) < 0.6 else between(0.75, 0.92)
    return bird_drawing.Look(
        centre=(0.5 + between(-1, 1) * slack_x, 0.53 + between(-1, 1) * slack_y),
        scale=scale,
        left=next(u) < 0.5,
        yaw=between(0.78, 1.0),
        tilt=between(-0.12, 0.75),
        head=between(-0.34, 0.36),
        tail=between(-0.24, 0.28),
        wing=between(-0.04, 0.08),
        crest=between(-0.22, 0.30),
        neck=between(0.85, 1.25),
        plumpness=between(0.90, 1.12),
        bill_length=between(0.88, 1.10),
        crest_length=between(0.82, 1.08),
        tail_width=between(0.75, 1.15),
        stride=between(0.06, 0.26),
        perch=between(-0.22, 0.22),
        body=_rgb(hue, saturation, value),
        wing_colour=_rgb(
            hue + between(-0.05, 0.05), saturation, min(value * between(0.55, 0.9), 0.48)
        ),
        head_colour=_rgb(hue + between(-0.03, 0.03), saturation, value * between(0.6, 1.15)),
        mark_colour=_rgb(hue, 0.5 * saturation, mark_value),
        variations=tuple(name for name in bird_outlines.VARIATIONS if next(u) < 0.4),
        brightness=between(0.78, 1.06),
        warmth=between(-0.06, 0.16),
        strength=between(0.45, 1.0),
    )


HALF_TURN = np.linspace(0.0, np.pi, 9)
LEAF = np.stack(
    [
        np.concatenate([-np.cos(HALF_TURN), np.cos(HALF_TURN)[1:-1]]),
        np.concatenate([np.sin(HALF_TURN) ** 1.4, -(np.sin(HALF_TURN)[1:-1] ** 1.4)]),
    ],
    axis=1,
)
FOLIAGE_HUES = (0.26, 0.30, 0.36, 0.12, 0.08)


def _leaf(x, y, length, width, angle):
    along = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    across = 0.5 * width * np.array([-np.sin(angle), np.cos(angle)])
    return LEAF @ np.stack([along, across]) + np.array([[x, y]])


def _foliage(u, dark=0.0):
    """A leaf's colour from three uniform numbers in [0, 1)."""
    pick = 5 * u[0]
    hue = FOLIAGE_HUES[int(pick)] + 0.08 * (pick % 1.0 - 0.5)
    return _rgb(hue, 0.25 + 0.45 * u[1], (0.25 + 0.45 * u[2]) * (1 - dark))


def _in_front(rng, look, leaves, twigs):
    """Leaves and twigs over the bird, as `bird_drawing.paint_front` takes them."""
    shapes = []
    for _ in range(twigs):
        angle, width = rng.uniform(0, np.pi), rng.uniform(0.006, 0.016)
        middle = np.array(look.centre) + rng.uniform(-0.9, 0.9, 2) * look.scale
        reach = np.array([np.cos(angle), np.sin(angle)]) * 1.5
        line = np.stack([middle - reach, middle + rng.normal(0, 0.02, 2), middle + reach])
        shapes.append((line, width, _rgb(rng.uniform(0.04, 0.12), 0.4, rng.uniform(0.15, 0.5))))
    for _ in range(leaves):
        x, y = np.array(look.centre) + rng.uniform(-0.95, 0.95, 2) * look.scale
        length = rng.uniform(0.25, 0.6) * look.scale
        leaf = _leaf(x, y, length, length * rng.uniform(0.35, 0.6), rng.uniform(0, 2 * np.pi))
        shapes.append((leaf, 0.0, _foliage(rng.random(3).tolist())))
    return tuple(shapes)


def sample(rng):
    """A scene from a NumPy Generator."""
    u = iter(rng.random(64).tolist())
    look = _look(u)

    def between(low, high):
        return float(low + (high - low) * next(u))

    angle = between(0.15, 0.85) * np.pi
    return Scene(
        look=look,
        brightness=between(0.66, 1.24),
        warmth=between(-0.14, 0.14),
        contrast=between(0.75, 1.1),
        sun=(float(np.cos(angle)), float(-np.sin(angle))),
        shadow=between(0.0, 0.55) * (next(u) < 0.6),
        blur=between(0.0, 0.8),
        noise=between(2.0, 13.0),
        ground=next(u) < 0.3,
        in_front=_in_front(
            rng,
            look,
            leaves=int(np.searchsorted((0.5, 0.8), next(u))),
            twigs=int(np.searchsorted((0.65, 0.95), next(u))),
        ),
    )


def background(rng, side):
    """Sky, foliage or field out of focus, then clutter; uint8 RGB [side, side, 3]."""
    small = 64
    u = rng.random(12).tolist()
    kind = int(3 * u[0])
    if kind == 0:
        top = _rgb(0.52 + 0.12 * u[1], 0.05 + 0.45 * u[2], 0.6 + 0.38 * u[3])
        low = _rgb(0.05 + 0.15 * u[4], 0.25 * u[5], 0.65 + 0.33 * u[6])
    elif kind == 1:
        top, low = _foliage(u[1:4], 0.2), _foliage(u[4:7], 0.4)
    else:
        top, low = _foliage(u[1:4]), _rgb(0.05 + 0.09 * u[4], 0.35, 0.3 + 0.45 * u[5])
    ramp = np.linspace(0.0, 1.0, small)[:, None, None] ** (0.5 + 1.5 * u[7])
    canvas = (1 - ramp) * np.array(top)[None, None, :] + ramp * np.array(low)[None, None, :]
    canvas = np.repeat(canvas, small, axis=1).astype(np.uint8)
    for x, y, radius, *v in rng.random((4 + int(30 * u[8]), 6)).tolist():
        centre = (int(small * x), int(small * y))
        cv2.circle(canvas, centre, 1 + int(8 * radius), _foliage(v), -1)
    for x0, y0, x1, y1, hue, value, width in rng.random((int(6 * u[9]), 7)).tolist():
        start, end = ((int(84 * x) - 10, int(84 * y) - 10) for x, y in ((x0, y0), (x1, y1)))
        wood = _rgb(0.04 + 0.06 * hue, 0.4, 0.15 + 0.35 * value)
        cv2.line(canvas, start, end, wood, 1 + int(3 * width))
    cloud = rng.normal(0.0, 4 + 18 * u[10], (9, 9)).astype(np.float32)
    cloud = cv2.resize(cloud, (small, small), interpolation=cv2.INTER_CUBIC)[:, :, None]
    canvas = np.clip(canvas + cloud, 0, 255).astype(np.uint8)
    canvas = cv2.GaussianBlur(canvas, (0, 0), 0.5 + 1.7 * u[11])
    canvas = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_LINEAR)
    for row in rng.random((rng.integers(0, 12), 9)).tolist():
        _clutter(canvas, row)
    return canvas


def _clutter(canvas, u):
    """One sharp stem, berry or leaf behind the bird, from nine uniform numbers in [0, 1)."""
    side = canvas.shape[0]
    x, y, angle, kind = u[0] * side, u[1] * side, 2 * np.pi * u[2], int(4 * u[3])
    if kind == 0:
        length = (0.1 + 0.6 * u[4]) * side
        ends = np.array([(x, y), (x + length * np.cos(angle), y + length * np.sin(angle))])
        wood = _rgb(0.04 + 0.26 * u[5], 0.4, 0.15 + 0.45 * u[6])
        bird_drawing.stroke(canvas, ends, wood, (0.005 + 0.015 * u[7]) * side)
    elif kind == 1:  # as red, yellow and black as bills are
        colour = list(bird_outlines.BILL_COLOURS.values())[int(3 * u[4])]
        radius = (0.008 + 0.018 * u[5]) * side
        bird_drawing.fill(canvas, bird_outlines.circle(x, y, radius, 14), colour)
    else:
        length = (0.05 + 0.15 * u[4]) * side
        leaf = _leaf(x, y, length, length * (0.25 + 0.35 * u[5]), angle)
        bird_drawing.fill(canvas, leaf, _foliage(u[6:9]))


def perch(rng, canvas, scene, feet):
    """The branch or ground through `feet` [2, 2] pixels, drawn in place."""
    side = canvas.shape[0]
    colour = np.array(_rgb(rng.uniform(0.04, 0.13), rng.uniform(0.15, 0.5), rng.uniform(0.2, 0.6)))
    slope = (feet[0, 1] - feet[1, 1]) / (feet[0, 0] - feet[1, 0])
    x = np.linspace(-0.05, 1.05, 8) * side
    top = feet[1, 1] + slope * (x - feet[1, 0]) + 0.004 * side
    near = np.abs(x - feet[:, 0].mean()) < 0.25 * side
    bend = rng.normal(0.0, 0.012 * side, 8)
    thick = side * rng.uniform(0.025, 0.075) * np.linspace(*rng.uniform(0.7, 1.3, 2), 8)
    top = top + np.where(near, 0.0, bend)
    under = np.full(8, 1.1 * side) if scene.ground else top + thick
    outline = np.concatenate([np.stack([x, top], 1), np.stack([x, under], 1)[::-1]])
    bird_drawing.fill(canvas, outline, colour.tolist())
    for _ in range(6):
        depth, gain = rng.uniform(0.15, 0.95), rng.uniform(0.6, 1.3)
        start = rng.integers(0, 5)
        line = np.stack([x, top + depth * (under - top)], 1)[start : start + 3]
        shade = np.clip(colour * gain, 0, 255).tolist()
        bird_drawing.stroke(canvas, line, shade, 0.008 * side)


def light(rng, image, silhouette, scene):
    """Sun, shade, colour temperature, focus and noise: uint8 RGB [S, S, 3] -> the same.

    `silhouette` is the bird's, uint8 [s, s] in 0 to 255; its blurred relief gives the bird volume.
    """
    side, half = image.shape[0], silhouette.shape[0]

    def resize(array, to):
        return cv2.resize(array, (to, to), interpolation=cv2.INTER_LINEAR)

    relief = cv2.resize(silhouette, (48, 48), interpolation=cv2.INTER_AREA).astype(np.float32)
    relief = cv2.GaussianBlur(relief, (0, 0), 2.0)
    dx, dy = cv2.Sobel(relief, cv2.CV_32F, 1, 0), cv2.Sobel(relief, cv2.CV_32F, 0, 1)
    facing = resize(dx * scene.sun[0] + dy * scene.sun[1], half)
    # Masked with the sharp silhouette: the blur must not leave a halo around the bird.
    volume = 1.0 - 0.45 / 255**2 * facing * silhouette
    dapple = rng.normal(0.0, 1.0, (7, 7)).astype(np.float32)
    dapple = cv2.resize(dapple, (half, half), interpolation=cv2.INTER_CUBIC)
    shade = volume * (1.0 - scene.shadow / (1.0 + np.exp(-6.0 * dapple)))
    tint = scene.contrast * scene.brightness * np.array([1 + scene.warmth, 1.0, 1 - scene.warmth])
    field = resize(shade[:, :, None] * tint.astype(np.float32)[None, None, :], side)
    if scene.blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), scene.blur * side / 192)
    grain = rng.integers(0, 256, image.shape, np.uint8).astype(np.float32)
    lit = cv2.scaleAdd(grain, scene.noise / 127.5, cv2.multiply(image, field, dtype=cv2.CV_32F))
    level = 118.0 * (1.0 - scene.contrast) - scene.noise
    return cv2.add(lit, (level, level, level, 0.0), dtype=cv2.CV_8U)
