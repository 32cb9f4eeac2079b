"""Batches for training and evaluation: decode, resize, crop on the host, in threads or processes.

Image i of the endless shuffled stream is always the same picture with the same crop, so the step
alone determines the position in the data. A run that starts at step n continues exactly like a run
that never stopped, for any number of threads, workers or processes.
"""

import dataclasses
import os
import threading
import time
from collections.abc import Iterator

import grain
import numpy as np

from fgc_jax.data import dataset, images

ON_BAD_IMAGE = ("raise", "skip")
ENDLESS = 2**62  # images: more than any run reads


@dataclasses.dataclass(frozen=True)
class Transform:
    """From a picture of any size to uint8 `[crop, crop, 3]`.

    The picture is resized to `resize` pixels. mode "squash": both sides, the aspect ratio changes;
    "short_side": the shorter side; "letterbox": the longer side if it is larger, and black borders
    are added to make a square. Then a square of `crop` pixels is taken: the centre, or with
    `random_crop` any place with equal probability. interpolation: "bilinear" or "bicubic".
    """

    resize: int
    mode: str
    crop: int
    random_crop: bool
    interpolation: str


@dataclasses.dataclass(frozen=True)
class Ready:
    """Used instead of a Transform if the split already reads float32 arrays of this `shape`."""

    shape: tuple[int, ...]
    random_crop: bool = False


def transform_image(transform, image, rng=None):
    """Applies a Transform to uint8 `[H, W, 3]`; a random crop draws its place from `rng`."""
    resized = images.resized_shape(image.shape, transform.resize, transform.mode)
    # If the width of the border is odd, the top and the left get the larger half.
    border = [-(-max(0, transform.resize - length) // 2) for length in resized]
    room = [max(length, transform.resize) - transform.crop for length in resized]
    if transform.random_crop:
        top, left = rng.integers(0, room, endpoint=True)
    else:
        top, left = np.round(np.divide(room, 2)).astype(int)
    top, left = int(top) - border[0], int(left) - border[1]
    if transform.mode != "letterbox":
        window = (top, left, transform.crop, transform.crop)
        return images.resize_crop(image, resized, window, transform.interpolation)
    square = np.zeros((transform.crop, transform.crop, 3), np.uint8)
    bottom, right = top + transform.crop, left + transform.crop
    inside = (max(top, 0), max(left, 0), min(bottom, resized[0]), min(right, resized[1]))
    y0, x0, y1, x1 = inside
    if y0 < y1 and x0 < x1:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = images.resize_crop(
            image, resized, (y0, x0, y1 - y0, x1 - x0), transform.interpolation
        )
    return square


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """An iterator over batches that owns threads or processes; close it, or use it in `with`."""

    iterator: Iterator

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.iterator)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Stops the threads and ends the worker processes."""
        self.iterator.close()


def steps_per_epoch(num_images, batch_size):
    """The number of steps after which every image was used at least once: rounded up."""
    return -(-num_images // batch_size)


@dataclasses.dataclass(frozen=True)
class Reader:
    """How one of several processes reads its share of each batch.

    threads: the number that decode in parallel; 0 for the caller's thread. workers: processes with
    that many threads each; this is rarely faster, because decoding releases Python's lock.
    on_bad_image: "raise" a ValueError that names the file, or "skip" the image.
    """

    process_index: int = 0
    process_count: int = 1
    threads: int = 2
    workers: int = 0
    on_bad_image: str = "raise"

    def local_batch(self, split, batch_size):
        """The number of rows of a batch for this process. ValueError if they cannot be equal."""
        if not len(split):
            raise ValueError("the split has no images")
        if batch_size < 1 or batch_size % self.process_count:
            raise ValueError(
                f"the batch size {batch_size} (of all processes) must be a multiple of the number "
                f"of processes, {self.process_count}"
            )
        return batch_size // self.process_count

    def start(self, stream):
        """The Batches of this process's share of a stream of batches."""
        # grain's own buffer of 500 would be 500 batches.
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=self.threads + 1)
        batches = stream.to_iter_dataset(options)
        if self.workers:
            processes = grain.MultiprocessingOptions(num_workers=self.workers)
            batches = batches.mp_prefetch(processes, worker_init_fn=_watch_parent)
        return Batches(iter(batches))


def train_batches(split, transform, reader, *, batch_size, seed, start_step=0, order=None):
    """Endless shuffled batches of `split`, from step `start_step` on, as a Batches.

    Each has `image` uint8 `[b, crop, crop, 3]`, `label` int32 `[b]`, `mask` float32 `[b]`, `index`
    int32 `[b]` (the image's number in `split`), with b = batch_size / reader.process_count.
    `batch_size` is that of all processes together; process p gets the rows p * b to (p + 1) * b of
    the batch that a single process would get.

    The stream consists of shuffled epochs, each in a new order, without a gap: a batch may contain
    the end of one epoch and the beginning of the next, no image is dropped, and a split smaller
    than a batch is repeated within it. `order`, from sampling.order, replaces the shuffle: a
    function from a place in the stream to the image's number.

    An image that is skipped has mask 0, and the pixels of another random image of the split, so
    that no black image enters the statistics of batch norms; `index` is that of the unreadable
    image.
    """
    b = reader.local_batch(split, batch_size)
    if start_step < 0:
        raise ValueError(f"start_step must not be negative, got {start_step}")
    load = _Load(split, transform, reader.on_bad_image == "skip")
    if order is None:
        stream = grain.MapDataset.range(len(split)).shuffle(seed=seed)
    else:
        stream = grain.MapDataset.range(ENDLESS).map(order)
    # The random numbers belong to a place in the common stream, so they are drawn before it is
    # divided among the processes: after that, all processes would draw the same numbers.
    stream = stream.random_map(load, seed=seed + 1).repeat().batch(b, drop_remainder=True)
    return reader.start(stream[reader.process_index :: reader.process_count][start_step:])


def eval_batches(split, transform, reader, *, batch_size):
    """Every image of `split` once, in order, in batches like those of train_batches, as a Batches.

    All processes get the same number of batches; the last is padded with black images of mask 0,
    label 0 and index -1. A skipped image is black too.
    """
    b = reader.local_batch(split, batch_size)
    if transform.random_crop:
        raise ValueError("evaluation needs a Transform with random_crop=False")
    load = _Load(split, transform, reader.on_bad_image == "skip")
    total = steps_per_epoch(len(split), batch_size) * batch_size
    stream = grain.MapDataset.range(total).map(load).batch(b)
    return reader.start(stream[reader.process_index :: reader.process_count])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Load:
    """From an image's number to one row of a batch; a number after the last gives padding.

    With `rng`, that is in training, an image that is skipped gets the pixels of another one.
    """

    split: dataset.Split
    transform: Transform | Ready
    skip: bool

    def __call__(self, index, rng=None):
        row = {
            "image": self._blank(),
            "label": np.int32(0),
            "mask": np.float32(0),
            "index": np.int32(-1),
        }
        if index >= len(self.split):
            return row
        row |= {"label": np.int32(self.split.labels[index]), "index": np.int32(index)}
        try:
            image = self.split.read(int(index))
        except ValueError:
            if not self.skip:
                raise
            image = None if rng is None else self._stand_in(rng)
            return row if image is None else row | {"image": self._transformed(image, rng)}
        return row | {"image": self._transformed(image, rng), "mask": np.float32(1)}

    def _blank(self):
        if isinstance(self.transform, Ready):
            return np.zeros(self.transform.shape, np.float32)
        return np.zeros((self.transform.crop, self.transform.crop, 3), np.uint8)

    def _transformed(self, image, rng):
        if isinstance(self.transform, Ready):
            return image
        return transform_image(self.transform, image, rng)

    def _stand_in(self, rng):
        """A readable image of the split, drawn by `rng`; None if a dozen draws are damaged."""
        for index in rng.integers(len(self.split), size=12):
            try:
                return self.split.read(int(index))
            except ValueError:
                continue
        return None


def _watch_parent(_index, _count):
    """Ends a worker process when its parent is gone; else it would outlive a killed run."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
