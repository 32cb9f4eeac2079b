"""Predictions for new images with the network of a finished run."""

import os
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from fgc_jax import mesh
from fgc_jax.config.views import AVERAGES
from fgc_jax.data import images, pipeline
from fgc_jax.evaluation import inference, multiview
from fgc_jax.training import restored

Picture = str | os.PathLike | Image.Image | np.ndarray


class Predictor:
    """Class probabilities of images, from a trained run: `predictor(["a.jpg", "b.png"])`.

    `class_names` are the names of the columns; `restored.load_run` describes `views`, `average` and
    `logits`. It works in one process, with any number of devices.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        views: str = "",
        average: str = AVERAGES[0],
        logits: str = "auto",
        checkpoint: str = "best",
        batch_size: int | None = None,
    ):
        self.run = restored.load_run(
            directory,
            checkpoint,
            batch_size=batch_size,
            views=views,
            average=average,
            logits=logits,
        )
        self.class_names = self.run.class_names
        self._infer = inference.compiled(self.run.plan.network, self.run.plan.mesh, self._work)

    def __call__(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Probabilities f32 [N, K], in the order of `pictures`: image files, PIL images, or
        uint8 RGB arrays [H, W, 3], each of any size.

        Raises:
            ValueError: a picture is missing, damaged, or of another kind; the message names it.
        """
        rows = [np.zeros((0, len(self.class_names)), np.float32)]
        for row in self.each(pictures):
            if isinstance(row, ValueError):
                raise row
            rows.append(row[None])
        return np.concatenate(rows)

    def each(self, pictures: Sequence[Picture]) -> Iterator[np.ndarray | ValueError]:
        """For each picture, in order: its probabilities f32 [K], or a ValueError that names the
        picture and says why it cannot be read.

        Raises:
            ValueError: `pictures` is a single picture.
        """
        if isinstance(pictures, (str, os.PathLike, Image.Image)):
            raise ValueError(f"give a list of images, not the single image {pictures!r}")
        size = self._batch_size(len(pictures))
        running = None
        with futures.ThreadPoolExecutor(self.run.plan.settings.data.threads) as pool:
            for start in range(0, len(pictures), size):
                chunk = range(start, min(start + size, len(pictures)))
                batch = list(pool.map(lambda index: self._prepare(index, pictures[index]), chunk))
                # The device works on one batch while the next one is decoded.
                if running is not None:
                    yield from _rows(*running)
                running = batch, self._dispatch(batch, size)
        if running is not None:
            yield from _rows(*running)

    def _batch_size(self, number: int) -> int:
        """The run's batch size; for fewer images the next power of two, which computes few unused
        rows and needs few compiled programs."""
        power = 1 << max(0, number - 1).bit_length()
        most = self.run.plan.settings.eval_batch_size
        return min(most, restored.up_to_multiple(power, jax.device_count()))

    def _prepare(self, index: int, picture: Picture) -> np.ndarray | ValueError:
        try:
            pixels = as_array(picture, f"image {index}")
        except ValueError as error:
            return error
        return pipeline.transform_image(self.run.transform, pixels)

    def _work(self, forward, images: jax.Array, batch: dict) -> jax.Array:
        """Probabilities f32 [B, K] of normalised images, traced."""
        return jax.nn.softmax(multiview.scores(self.run.views, forward, images))

    def _dispatch(self, batch: list[np.ndarray | ValueError], size: int) -> jax.Array:
        """Starts the network on `size` images: the batch, with black images in the other rows."""
        side = self.run.transform.crop
        padded = np.zeros((size, side, side, 3), np.uint8)
        for row, pixels in enumerate(batch):
            if not isinstance(pixels, ValueError):
                padded[row] = pixels
        on_device = mesh.to_global(self.run.plan.mesh, {"image": padded})
        return self._infer(self.run.params, self.run.stats, on_device)


def _rows(batch: list, probabilities: jax.Array) -> Iterator[np.ndarray | ValueError]:
    for pixels, row in zip(batch, np.asarray(probabilities), strict=False):  # padding comes last
        yield pixels if isinstance(pixels, ValueError) else row


def as_array(picture: Picture, name: str) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a file, PIL image or array, read as in training.

    Raises:
        ValueError: the picture cannot be read; the message names the file, or else `name`.
    """
    if isinstance(picture, (str, os.PathLike)):
        return images.decode(picture)
    if isinstance(picture, Image.Image):
        if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
            raise ValueError(f"{name}: a PIL image of mode {picture.mode!r} has no known range")
        return np.array(picture.convert("RGB"))
    if not isinstance(picture, np.ndarray):
        kind = type(picture).__name__
        raise ValueError(f"{name} must be a path, a PIL image or a NumPy array, not {kind}")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(
            f"{name}: an array must be uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}"
        )
    return picture
