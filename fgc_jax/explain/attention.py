"""Attention maps of a trained network, and whether they are on the parts that differ by class."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax import console, mesh
from fgc_jax.data import dataset, pipeline
from fgc_jax.evaluation import inference
from fgc_jax.models import regions
from fgc_jax.training import restored

THRESHOLD, PADDING = 0.1, 0.05  # of the crop at test time, as in WS-DAN
ERASED = 0.35  # share of the map's maximum: the mean threshold of erasing in training


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One image with its attention maps.

    image, crop, erased uint8 [H, W, 3]: the input, the crop by the mean map, and the image without
    the region of the strongest map. box (top, bottom, left, right) of the crop in pixels.
    attention f32 [H, W, M] at the image's size. plain, effect f32 [K]: probabilities from both
    kinds of logits.
    """

    image: np.ndarray
    crop: np.ndarray
    erased: np.ndarray
    box: tuple[int, int, int, int]
    attention: np.ndarray
    plain: np.ndarray
    effect: np.ndarray


def explanations(run: restored.Restored, pictures: Sequence[np.ndarray]) -> Iterator[Explanation]:
    """The attention of a run's network to pictures uint8 [h, w, 3] of any sizes, one by one.

    Raises:
        ValueError: the head has no attention maps.
    """
    if run.plan.settings.model.head != "attention_pooling":
        raise ValueError(
            f"the run's head is {run.plan.settings.model.head!r}; only the head "
            "'attention_pooling', which the methods 'wsdan' and 'cal' train, has attention maps"
        )
    network = run.plan.network
    work = functools.partial(_explain, 255 * jnp.float32(network.preprocess.mean))
    infer = inference.compiled(network, run.plan.mesh, work)
    devices = jax.local_device_count()
    for picture in pictures:
        image = pipeline.transform_image(run.transform, picture)
        # The batch is sharded, so that each device gets the same image.
        batch = mesh.to_global(run.plan.mesh, {"image": np.stack([image] * devices)})
        found = infer(run.params, run.stats, batch)
        found = {name: np.asarray(values[0]) for name, values in found.items()}
        yield Explanation(image=image, **found | {"box": tuple(found["box"].tolist())})


def _explain(grey, forward, images, batch):
    (logits, out), pixels = forward(images), batch["image"]
    attention, size = out["head/attention"], pixels.shape[1:3]
    maps = [regions.upsample(attention[..., k], size) for k in range(attention.shape[-1])]
    maps = jnp.stack(maps, axis=-1)
    strongest = jnp.argmax(maps.sum((1, 2)), axis=-1)
    strongest = jnp.take_along_axis(attention, strongest[:, None, None, None], -1)[..., 0]
    box = regions.boxes(attention.mean(-1), THRESHOLD, PADDING, size)
    # Erased places have the mean colour, which is zero once normalised.
    shown, grey = pixels.astype(jnp.float32), grey.reshape(1, 1, 1, 3)
    erased = regions.drop(shown - grey, strongest, ERASED) + grey
    return {
        "attention": maps,
        "box": box,
        "crop": _pixels(regions.crop(shown, box)),
        "erased": _pixels(erased),
        "plain": jax.nn.softmax(logits),
        "effect": jax.nn.softmax(out["head/effect"]),
    }


def _pixels(images):
    return jnp.clip(jnp.round(images), 0, 255).astype(jnp.uint8)


@dataclasses.dataclass
class Pointing:
    """How often a place is on a part that differs by class (the pointing game, arXiv 1608.00507),
    as sums over the images counted so far.

    mean_map: the maximum of the mean map. single_maps: that of each map that is not zero
    everywhere. shuffled: the maximum of the mean map of another image, as a baseline for the usual
    place of birds. centre: the centre of the image. anywhere: the share of the image that the parts
    cover, which is the probability that a random place is on them.
    """

    images: int = 0
    mean_map: float = 0.0
    single_maps: float = 0.0
    shuffled: float = 0.0
    centre: float = 0.0
    anywhere: float = 0.0
    last: tuple[int, int] | None = None

    def add(self, found: Explanation, covered: np.ndarray) -> None:
        """Counts an image whose parts cover `covered`, bool [H, W]."""
        h, w = covered.shape
        place = peak(found.attention.mean(-1))
        # The first image has no image before it and uses the centre.
        other, self.last = self.last or (h // 2, w // 2), place
        alive = [k for k in range(found.attention.shape[-1]) if found.attention[..., k].any()]
        hits = [covered[peak(found.attention[..., k])] for k in alive]
        self.images += 1
        self.mean_map += covered[place]
        self.single_maps += np.mean(hits) if hits else 0.0
        self.shuffled += covered[other]
        self.centre += covered[h // 2, w // 2]
        self.anywhere += covered.mean()

    def shares(self) -> dict[str, float]:
        """For each kind of place the percentage of images in which it is on such a part."""
        names = ("mean_map", "single_maps", "shuffled", "centre", "anywhere")
        return {name: 100 * float(getattr(self, name)) / self.images for name in names}


def point(run: restored.Restored, split: dataset.Split) -> Pointing:
    """Plays the game on all images of a split whose annotation "telling_boxes" has a box."""
    game = Pointing()
    with console.progress("pointing game", len(split)) as bar:
        everything = (split.read(index) for index in range(len(split)))
        for index, found in enumerate(explanations(run, everything)):
            boxes = split.annotations["telling_boxes"](index)
            if len(boxes):
                game.add(found, coverage(run.transform, split.read(index), boxes))
            bar.update()
    return game


def report(game: Pointing, total: int) -> str:
    """The results of the game on a split of `total` images, as a text."""
    if not game.images:
        return "no image shows a part that tells its species from another one"
    names = {
        "mean_map": "the mean map's maximum",
        "single_maps": "a single map's maximum, on average",
        "shuffled": "the mean map of another image",
        "centre": "the centre of the image",
        "anywhere": "a random place",
    }
    counted = f"{game.images} of {total} images, those that show one"
    shares = game.shares()
    lines = [f"  {words:36} {shares[name]:5.1f} %" for name, words in names.items()]
    return "\n".join([f"on a part that tells the species apart ({counted}):", *lines])


def peak(values: np.ndarray) -> tuple[int, int]:
    """Row and column of the largest of values [H, W]."""
    row, column = np.unravel_index(np.argmax(values), values.shape)
    return int(row), int(column)


def coverage(transform: pipeline.Transform, picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """bool [crop, crop]: the area of the boxes f32 [n, 4] (x0, y0, x1, y1) of a picture uint8
    [h, w, 3] after the transform."""
    filled = np.zeros_like(picture)
    for x0, y0, x1, y1 in boxes:
        filled[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = 255
    return pipeline.transform_image(transform, filled)[..., 0] > 127
