"""The generated data set: drawings of bird species that differ only in their parts.

Nothing is read from disk: image i of a split is a pure function of (seed, split, i). A species is a
fixed combination of part traits (bill, crest, wing, tail, belly, legs); plumage, pose, size,
position, light, background, distractors and occlusion are random and independent of the species.
"""

import dataclasses
import functools
from typing import Annotated

import cv2
import numpy as np

from fgc_jax.config.limits import Count, at_least, between
from fgc_jax.data import dataset
from fgc_jax.data.sources import bird_drawing, bird_outlines, bird_scenery

SPLIT_IDS = {"train": 0, "val": 1, "test": 2}
OVERSAMPLING = 2
FAINTEST = 32  # of 255: the least coverage with which a pixel belongs to a part

# A genus fixes the outline and some markings (the first dict); its four species are the even-parity
# choices among three two-valued traits of different parts, so siblings differ in exactly two parts.
GENERA = {
    "finch": (
        dict(bill="cone", crest="none", tail="forked", legs="short")
        | dict(belly_colour="white", leg_colour="black"),
        dict(belly=("spotted", "barred"), wing=("one_bar", "two_bars"))
        | dict(bill_colour=("yellow", "red")),
    ),
    "grosbeak": (
        dict(bill="cone", crest="peaked", tail="short", legs="short")
        | dict(bill_colour="red", belly="plain"),
        dict(belly_colour=("rufous", "yellow"), wing=("plain", "one_bar"))
        | dict(leg_colour=("black", "yellow")),
    ),
    "sandpiper": (
        dict(bill="straight", crest="none", tail="short", legs="long")
        | dict(wing="one_bar", belly_colour="white"),
        dict(leg_colour=("yellow", "red"), belly=("barred", "spotted"))
        | dict(bill_colour=("black", "red")),
    ),
    "lapwing": (
        dict(bill="straight", crest="plumed", legs="long")
        | dict(bill_colour="black", belly="plain", belly_colour="white"),
        dict(tail=("short", "forked"), wing=("one_bar", "two_bars"))
        | dict(leg_colour=("red", "yellow")),
    ),
    "curlew": (
        dict(bill="curved", crest="none", tail="banded", legs="long")
        | dict(wing="patch", belly_colour="white"),
        dict(bill_colour=("black", "yellow"), belly=("barred", "plain"))
        | dict(leg_colour=("black", "red")),
    ),
    "hoopoe": (
        dict(bill="curved", tail="long", legs="short")
        | dict(belly="plain", belly_colour="rufous", leg_colour="black"),
        dict(crest=("fan", "peaked"), wing=("two_bars", "patch"))
        | dict(bill_colour=("red", "black")),
    ),
    "shrike": (
        dict(bill="hooked", crest="none", legs="short")
        | dict(bill_colour="black", belly="barred", belly_colour="yellow"),
        dict(tail=("long", "forked"), wing=("patch", "one_bar"))
        | dict(leg_colour=("black", "red")),
    ),
    "cockatoo": (
        dict(tail="banded", legs="short", wing="plain")
        | dict(bill_colour="yellow", belly="plain", leg_colour="red"),
        dict(crest=("fan", "peaked"), bill=("hooked", "cone"))
        | dict(belly_colour=("yellow", "white")),
    ),
}
SIBLINGS = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0))
ADJECTIVES = {
    "bill": {"hooked": "hook_billed", "cone": "thick_billed"},
    "bill_colour": {c: f"{c}_billed" for c in bird_outlines.BILL_COLOURS},
    "crest": {"fan": "fan_crested", "peaked": "peak_crested"},
    "wing": {"plain": "plain_winged", "one_bar": "bar_winged", "two_bars": "double_barred"}
    | {"patch": "patch_winged"},
    "tail": {"short": "short_tailed", "long": "long_tailed", "forked": "fork_tailed"},
    "belly": {"plain": "plain_bellied", "spotted": "spotted", "barred": "barred"},
    "belly_colour": {c: f"{c}_bellied" for c in bird_outlines.BELLY_COLOURS},
    "leg_colour": {c: f"{c}_legged" for c in bird_outlines.LEG_COLOURS},
}


def _species():
    """Species name -> Traits; any first n are spread evenly over the genera."""
    table = {}
    for choice in SIBLINGS:
        for noun, (fixed, varied) in GENERA.items():
            picked = {t: values[k] for (t, values), k in zip(varied.items(), choice, strict=True)}
            # Siblings differ in two of the three varied traits.
            words = [ADJECTIVES[trait][picked[trait]] for trait in list(varied)[:2]]
            table["_".join([*words, noun])] = bird_outlines.Traits(**fixed, **picked)
    return table


SPECIES = _species()


@dataclasses.dataclass(frozen=True)
class BirdSplit:
    """A `dataset.Split` whose images are drawn when they are read.

    Thread safe and cheap to pickle: it stores a few numbers, and boxes after their first use.
    """

    split: str
    species: int
    per_class: int
    size: int  # pixels, images are square
    seed: int

    def __len__(self):
        return self.species * self.per_class

    @functools.cached_property
    def labels(self):
        """int32 [N]; neighbours are of different species."""
        return (np.arange(len(self)) % self.species).astype(np.int32)

    @functools.cached_property
    def names(self):
        """N names like those of files. They contain the seed, so that pictures with the same number
        but another seed have other names."""
        words = list(SPECIES)
        return dataset.text_array(
            [f"{self.split}/{words[k]}/{self.seed}_{i:06d}.png" for i, k in enumerate(self.labels)]
        )

    def traits(self, i):
        return SPECIES[list(SPECIES)[i % self.species]]

    def scene(self, i):
        """The nuisance variables of image i."""
        return bird_scenery.sample(self._rng(i))

    def read(self, i):
        """Image i, uint8 RGB [size, size, 3]."""
        rng = self._rng(i)
        scene, side = bird_scenery.sample(rng), OVERSAMPLING * self.size
        bird = bird_drawing.pose(self.traits(i), scene.look, side)
        canvas = bird_scenery.background(rng, side)
        bird_scenery.perch(rng, canvas, scene, bird.feet)
        bird_drawing.paint(canvas, bird, bird_drawing.palette(self.traits(i), scene.look))
        bird_drawing.paint_front(canvas, scene.in_front)
        image = cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)
        mask = bird_drawing.silhouette(bird, octaves=2)
        return bird_scenery.light(rng, image, mask, scene)

    def parts(self, i):
        """Part name -> box float32 [4] of its visible area on the bird, ignoring leaves in front.

        Half-open pixels x0, y0, x1, y1, clipped to the image; every pixel of which the part fills
        an eighth or more is inside. NaN for a part that the species lacks or that is outside the
        image.
        """
        cover = self._coverage(i)
        return {
            name: bird_drawing.box(cover[:, :, channel] >= FAINTEST)
            for channel, name in enumerate(bird_drawing.REGIONS)
            if name in bird_outlines.PARTS
        }

    def visible(self, i):
        """Part name -> share of it, 0 to 1, that no leaf or twig hides; NaN if `parts` is NaN."""
        whole, shown = self._coverage(i), self._coverage(i, self.scene(i).in_front)
        there = whole.max(axis=(0, 1)) >= FAINTEST
        whole, shown = (cover.sum(axis=(0, 1), dtype=np.float64) for cover in (whole, shown))
        share = np.divide(shown, whole, out=np.full_like(whole, np.nan), where=there)
        return {
            name: float(share[channel])
            for channel, name in enumerate(bird_drawing.REGIONS)
            if name in bird_outlines.PARTS
        }

    def part_points(self, i):
        """float32 [P, 3], a row for each of bird_outlines.PARTS: x and y of the centre of the
        part's box in pixels, and 1 if at least a tenth of the part is visible, else 0 (NaN, NaN, 0
        if there is no such part)."""
        shown, points = self.visible(i), []
        for name, (x0, y0, x1, y1) in self.parts(i).items():
            points.append(((x0 + x1) / 2, (y0 + y1) / 2, shown[name] >= 0.1))
        return np.array(points, np.float32)

    def telling_boxes(self, i):
        """float32 [n, 4]: the boxes of the parts in which the species of image i differs from its
        siblings in this data set, as in `parts`; parts that are not visible are left out."""
        own, words = self.traits(i), list(SPECIES)[: self.species]
        genus = words[i % self.species].rpartition("_")[2]
        siblings = [SPECIES[word] for word in words if word.rpartition("_")[2] == genus]
        varied = [
            field.name
            for field in dataclasses.fields(own)
            if len({getattr(bird, field.name) for bird in siblings}) > 1
        ]
        names = {"legs" if trait == "leg_colour" else trait.split("_")[0] for trait in varied}
        boxes = [box for name, box in self.parts(i).items() if name in names]
        return np.array([box for box in boxes if not np.isnan(box).any()], np.float32).reshape(
            -1, 4
        )

    @property
    def annotations(self):
        return {"parts": self.part_points, "telling_boxes": self.telling_boxes}

    @property
    def box_source(self):
        return lambda: self.boxes

    @property
    def sizes(self):
        return None  # no box reaches beyond its picture

    @property
    def raw_boxes(self):
        return self.boxes

    @functools.cached_property
    def boxes(self):
        """Boxes of the birds as in `parts`, float32 [N, 4]; computed once, about 2 ms per image."""
        whole = (self._coverage(i).sum(axis=2, dtype=np.uint16) for i in range(len(self)))
        return np.stack([bird_drawing.box(cover >= FAINTEST) for cover in whole])

    def _rng(self, i):
        if not 0 <= i < len(self):
            raise IndexError(f"{self.split} has images 0 to {len(self) - 1}, not {i}")
        return np.random.default_rng((self.seed, SPLIT_IDS[self.split], i))

    def _coverage(self, i, in_front=()):
        side = OVERSAMPLING * self.size
        bird = bird_drawing.pose(self.traits(i), self.scene(i).look, side)
        return bird_drawing.coverage(bird, OVERSAMPLING, in_front)


def load(
    root,
    *,
    species: Annotated[int, between(2, len(SPECIES))] = 24,
    train_per_class: Count = 40,
    val_per_class: Count = 10,
    test_per_class: Count = 25,
    size: Annotated[int, at_least(32)] = 192,
    seed: Annotated[int, at_least(0)] = 0,
):
    """The synthetic birds as a Dataset with splits train, val and test.

    species: 2 to 32, the first of SPECIES. size: side of the square images in pixels, 32 or more.
    Raises ValueError for a root: there are no files.
    """
    if root:
        raise ValueError(f"synthetic_birds has no files: root must be '', got {str(root)!r}")
    counts = {"train": train_per_class, "val": val_per_class, "test": test_per_class}
    return dataset.Dataset(
        name="synthetic_birds",
        class_names=tuple(SPECIES)[:species],
        splits={
            split: BirdSplit(split, species, count, size, seed) for split, count in counts.items()
        },
        part_names=bird_outlines.PARTS,
        notes=f"generated, seed {seed}, {size} pixels; species differ in parts only",
    )
