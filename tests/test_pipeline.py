"""Batches: determinism, resume, processes, padding, damaged files."""

import dataclasses
import itertools
import time

import numpy as np
import pytest

from fgc_jax import data
from fgc_jax.data import dataset, images, pipeline
from tests import data_files
from tests.data_files import assert_equal, joined

TRAIN = pipeline.Transform(32, "squash", 24, True, "bilinear")
EVAL = dataclasses.replace(TRAIN, random_crop=False)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """34 images: no multiple of any batch size used here."""
    folder = tmp_path_factory.mktemp("pipeline")
    root = data_files.write_folder(folder, classes=("a", "b"), splits=17)
    return data.load("folder", root, {"test_fraction": 0}).splits["train"]


def train(split, steps, **options):
    options = {"batch_size": 8, "seed": 3, "threads": 1} | options
    reader = data_files.reader_of(options)
    with pipeline.train_batches(split, TRAIN, reader, **options) as batches:
        return list(itertools.islice(batches, steps))


def evaluate(split, **options):
    options = {"batch_size": 8, "threads": 1} | options
    reader = data_files.reader_of(options)
    with pipeline.eval_batches(split, EVAL, reader, **options) as batches:
        return list(batches)


def test_a_batch(split):
    (batch,) = train(split, 1)
    types = {key: (value.shape, value.dtype) for key, value in batch.items()}
    assert types == {
        "image": ((8, 24, 24, 3), np.uint8),
        "label": ((8,), np.int32),
        "mask": ((8,), np.float32),
        "index": ((8,), np.int32),
    }
    assert batch["mask"].min() == 1
    np.testing.assert_array_equal(batch["label"], split.labels[batch["index"]])
    for image, index in zip(batch["image"], batch["index"], strict=True):
        whole = pipeline.transform_image(dataclasses.replace(EVAL, crop=32), split.read(index))
        places = itertools.product(range(9), repeat=2)
        differences = [
            np.abs(image - whole[y : y + 24, x : x + 24].astype(int)).mean() for y, x in places
        ]
        assert min(differences) < 0.2  # a window of the resized picture, and of the right one


def test_every_epoch_has_every_image_once_in_a_new_order(split):
    indices = np.concatenate([batch["index"] for batch in train(split, 17)])  # 4 epochs of 34
    epochs = indices.reshape(4, 34)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(34))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert not np.array_equal(np.sort(epochs[0]), epochs[0])


def test_random_crops_differ_between_epochs_and_images(split):
    seen = {}
    for batch in train(split, 17):
        for index, image in zip(batch["index"], batch["image"], strict=True):
            seen.setdefault(int(index), set()).add(image.tobytes())
    assert np.mean([len(images) for images in seen.values()]) > 3.5  # of 4 epochs; 81 places


@pytest.mark.parametrize("threads", [0, 2, 5])
def test_threads_do_not_change_the_data(split, threads):
    assert_equal(train(split, 9, threads=threads), train(split, 9))
    assert_equal(evaluate(split, threads=threads), evaluate(split))


def test_workers_do_not_change_the_data(split):
    assert_equal(train(split, 7, workers=2, start_step=3), train(split, 10)[3:])
    assert_equal(evaluate(split, workers=2), evaluate(split))


def test_the_seed_changes_order_and_crops(split):
    one, other = train(split, 1)[0], train(split, 1, seed=4)[0]
    assert not np.array_equal(one["index"], other["index"])


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_global_batch(split, count):
    """In order, so that what the device draws for a row of the batch falls on the same image."""
    late = {"steps": 3, "start_step": 4}
    for read, options in ((train, {"steps": 6}), (train, late), (evaluate, {})):
        shares = [
            read(split, process_index=i, process_count=count, **options) for i in range(count)
        ]
        assert all(len(batch["index"]) == 8 // count for share in shares for batch in share)
        assert_equal([joined(parts) for parts in zip(*shares, strict=True)], read(split, **options))


@pytest.mark.parametrize("start", [1, 7, 30])
@pytest.mark.parametrize("count", [1, 2])
def test_resume_equals_the_straight_run(split, start, count):
    shard = {"process_index": count - 1, "process_count": count}
    straight = train(split, start + 4, **shard)
    assert_equal(train(split, 4, start_step=start, **shard), straight[start:])


def test_a_late_start_is_quick(split):
    began = time.perf_counter()
    (batch,) = train(split, 1, start_step=10**8)
    assert batch["mask"].sum() == 8
    assert time.perf_counter() - began < 10


def test_a_split_smaller_than_a_batch_is_repeated(split):
    few = dataset.subset(split, np.arange(3))
    indices = np.concatenate([batch["index"] for batch in train(few, 3)])
    np.testing.assert_array_equal(np.bincount(indices), [8, 8, 8])
    (batch,) = evaluate(few)
    assert batch["mask"].sum() == 3


def test_steps_per_epoch():
    assert [pipeline.steps_per_epoch(n, 8) for n in (1, 8, 9, 34)] == [1, 1, 2, 5]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("n", [34, 24, 5, 1])
def test_evaluation_sees_every_image_once(split, n, count):
    some = dataset.subset(split, np.arange(n))
    shares = [
        evaluate(some, batch_size=6, process_index=i, process_count=count) for i in range(count)
    ]
    assert len({len(share) for share in shares}) == 1  # the same number of batches everywhere
    batches = [batch for share in shares for batch in share]
    assert all(batch["image"].shape == (6 // count, 24, 24, 3) for batch in batches)
    index, mask, label = (
        np.concatenate([b[key] for b in batches]) for key in ("index", "mask", "label")
    )
    np.testing.assert_array_equal(np.sort(index[mask == 1]), np.arange(n))
    np.testing.assert_array_equal(label[mask == 1], some.labels[index[mask == 1]])
    assert (index[mask == 0] == -1).all() and set(mask) <= {0, 1}
    images = np.concatenate([batch["image"] for batch in batches])
    assert images[mask == 0].sum() == 0
    first = images[np.flatnonzero(index == 0)[0]]
    np.testing.assert_array_equal(first, pipeline.transform_image(EVAL, split.read(0)))


@pytest.fixture
def damaged(tmp_path):
    root = data_files.write_folder(tmp_path, classes=("a", "b"), splits=6)
    (root / "a" / "002.jpg").write_bytes(b"")
    path = root / "b" / "001.jpg"
    path.write_bytes(path.read_bytes()[:300])
    return data.load("folder", root, {"test_fraction": 0}).splits["train"]


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": 2}, {"workers": 1}])
def test_a_bad_image_stops_training_and_is_named(damaged, options):
    with pytest.raises(ValueError, match=r"00[12]\.jpg: .*not an image"):
        train(damaged, 3, **options)
    with pytest.raises(ValueError, match=r"a/002\.jpg: not an image, the file is empty"):
        evaluate(damaged, **options)


@pytest.mark.parametrize("options", [{"threads": 2}, {"workers": 1}])
def test_bad_images_can_be_skipped(damaged, options):
    train_steps = train(damaged, 3, on_bad_image="skip", **options)  # two epochs of 12
    eval_steps = evaluate(damaged, on_bad_image="skip", **options)
    for batches in (joined(train_steps), joined(eval_steps)):
        index, mask = batches["index"], batches["mask"]
        bad = index[(mask == 0) & (index >= 0)]
        assert {damaged.names[i] for i in bad} == {"a/002.jpg", "b/001.jpg"}
        assert batches["image"][mask == 1].max(axis=(1, 2, 3)).min() > 0
        assert set(index[mask == 1]) == set(range(12)) - set(bad.tolist())
    assert joined(eval_steps)["image"][mask == 0].max() == 0


@pytest.mark.parametrize("count", [1, 2])
def test_another_image_stands_in_for_a_skipped_one(damaged, count):
    """A black one would enter the batch statistics of batch norms."""
    options = {"on_bad_image": "skip", "process_count": count}
    shares = [train(damaged, 6, process_index=i, **options) for i in range(count)]
    batches = joined([batch for parts in zip(*shares, strict=True) for batch in parts])
    assert (batches["mask"] == 0).sum() == 8  # two of 12, four epochs
    stand_ins = batches["image"][batches["mask"] == 0]
    assert stand_ins.std(axis=(1, 2, 3)).min() > 5
    assert len({image.tobytes() for image in stand_ins}) > 1
    assert_equal([batches], [joined(train(damaged, 6, on_bad_image="skip"))])


def test_a_black_image_stands_in_where_none_can_be_read(split):
    class Damaged:
        def __call__(self, index):
            raise ValueError("damaged")

    damaged = dataset.Split(split.labels, split.names, Damaged())
    (batch,) = train(damaged, 1, on_bad_image="skip")
    assert batch["mask"].max() == 0 and batch["image"].max() == 0


def test_only_bad_images_are_skipped(split):
    class Broken:
        def __call__(self, index):
            raise RuntimeError("a bug, not a bad image")

    broken = dataset.Split(split.labels, split.names, Broken())
    with pytest.raises(RuntimeError, match="a bug"):
        train(broken, 1, on_bad_image="skip")


def test_short_side_and_centre_crop():
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64 - 16 : 64 + 16] = 255
    transform = pipeline.Transform(32, "short_side", 16, False, "bilinear")
    got = pipeline.transform_image(transform, image)
    assert got.shape == (16, 16, 3) and got[:, 1:-1].min() == 255  # its edges are blurred
    squashed = pipeline.transform_image(dataclasses.replace(transform, mode="squash"), image)
    assert squashed[:, 0].max() == 0 and squashed[:, 8].min() == 255


def test_random_crops_reach_every_place():
    image = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None], (6, 6, 3))
    transform = pipeline.Transform(6, "squash", 4, True, "bilinear")
    rng = np.random.default_rng(0)
    tops = [pipeline.transform_image(transform, image, rng)[0, 0, 0] for _ in range(60)]
    assert set(tops) == {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 9, "process_count": 2}, "9 .* must be a multiple of .* processes, 2"),
        ({"batch_size": 0}, "batch size 0"),
        ({"start_step": -1}, "start_step must not be negative"),
    ],
)
def test_wrong_options_are_refused_before_the_first_batch(split, change, message):
    options = {"batch_size": 8, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        pipeline.train_batches(split, TRAIN, data_files.reader_of(options), **options)


def test_evaluation_refuses_random_crops(split):
    with pytest.raises(ValueError, match="random_crop=False"):
        pipeline.eval_batches(split, TRAIN, pipeline.Reader(), batch_size=8)


def test_few_batches_are_read_ahead(split):
    """grain's own buffer of 500 batches would fill the memory."""
    reads = []

    class Counting:
        def __call__(self, index):
            reads.append(index)
            return np.zeros((32, 32, 3), np.uint8)

    counted = dataset.Split(split.labels, split.names, Counting())
    with pipeline.train_batches(counted, TRAIN, pipeline.Reader(), batch_size=8, seed=0) as batches:
        next(batches)
        time.sleep(0.5)
        assert len(reads) <= 6 * 8


@pytest.mark.parametrize("crop", [32, 20])
def test_letterbox_keeps_the_whole_picture(crop):
    image = data_files.picture(0, 0, (65, 40))
    transform = pipeline.Transform(32, "letterbox", crop, False, "bilinear")
    got = pipeline.transform_image(transform, image)
    whole = images.resize_crop(image, (19, 32), (0, 0, 19, 32))  # 32 * 40 // 65 rows
    canvas = np.zeros((32, 32, 3), np.uint8)
    canvas[7:26] = whole  # the odd row of the border is on top
    start = (32 - crop) // 2
    np.testing.assert_array_equal(got, canvas[start : start + crop, start : start + crop])


def test_letterbox_does_not_enlarge():
    image = data_files.picture(0, 0, (20, 30))
    transform = pipeline.Transform(64, "letterbox", 64, False, "bilinear")
    got = pipeline.transform_image(transform, image)
    np.testing.assert_array_equal(got[17:47, 22:42], image)
    assert not got[:17].any() and not got[:, :22].any() and not got[:, 42:].any()
