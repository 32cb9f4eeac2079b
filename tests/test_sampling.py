"""Balanced orders: counts of classes and images, resume, processes, errors."""

import itertools
import pickle

import numpy as np
import pytest

from configs import common
from fgc_jax import config
from fgc_jax.data import dataset, pipeline, sampling
from fgc_jax.training import plans, rules
from tests import data_files, tiny_run
from tests.data_files import assert_equal, joined

SIZES = (1, 3, 5, 12, 4)  # images of each class
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), SIZES))
NAMES = tuple("abcde")
TRANSFORM = pipeline.Transform(8, "squash", 6, True, "bilinear")
SPECS = ("balanced", "3 classes x 2")


def make(spec, batch_size=6, seed=3, labels=LABELS):
    return sampling.order(
        config.Sampling.parse(spec), labels, NAMES, batch_size=batch_size, seed=seed
    )


def places(order, start, stop):
    return np.array([order(place) for place in range(start, stop)])


def picture(index):
    return np.random.default_rng(index).integers(0, 256, (9, 9, 3), np.uint8)


SPLIT = dataset.Split(LABELS, [f"{i}.jpg" for i in range(len(LABELS))], picture)


def train(spec, steps, **options):
    options = {"batch_size": 6, "seed": 3, "threads": 1} | options
    order = make(spec, options["batch_size"], options["seed"])
    reader = data_files.reader_of(options)
    with pipeline.train_batches(SPLIT, TRANSFORM, reader, order=order, **options) as batches:
        return list(itertools.islice(batches, steps))


def test_shuffle_is_left_to_the_pipeline():
    assert make("shuffle") is None


def test_balanced_shows_each_class_once_in_as_many_places_as_classes():
    labels = LABELS[places(make("balanced"), 0, 500)].reshape(-1, 5)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(5), (100, 1)))
    assert len({tuple(row) for row in labels.tolist()}) > 50


def test_balanced_goes_through_all_images_of_a_class_before_it_repeats_one():
    images = places(make("balanced"), 0, 5 * 60)  # 60 times each class
    for label, size in enumerate(SIZES):
        rounds = images[LABELS[images] == label]
        rounds = rounds[: len(rounds) // size * size].reshape(-1, size)
        expected = np.flatnonzero(LABELS == label)
        np.testing.assert_array_equal(np.sort(rounds), np.tile(expected, (len(rounds), 1)))
        if size > 3:
            assert len({tuple(row) for row in rounds.tolist()}) > len(rounds) / 2


@pytest.mark.parametrize(("classes", "images"), [(3, 2), (5, 1), (2, 4), (1, 3), (4, 12)])
def test_batches_of_classes_times_images(classes, images):
    size = classes * images
    order = make(f"{classes} classes x {images}", size)
    for batch in places(order, 0, 40 * size).reshape(40, classes, images):
        labels = LABELS[batch]
        assert (labels == labels[:, :1]).all()
        assert len(set(labels[:, 0].tolist())) == classes
        for label, group in zip(labels[:, 0], batch, strict=True):
            assert len(set(group.tolist())) == min(images, SIZES[label])


def test_classes_meet_others_in_each_turn():
    """Of 20 ordered pairs of 5 classes, rotation alone would show 10."""
    labels = LABELS[places(make("2 classes x 1", 2), 0, 200)].reshape(-1, 2)
    assert len({tuple(pair) for pair in labels.tolist()}) > 15


def test_classes_and_their_images_come_equally_often():
    """5 turns of one batch, in each of which 2 classes sit out; then classes have had 3 groups
    of 2 images each. After 30 groups (3, 5 x 2, 6 and 2 make a round) the images are equal too."""
    order = make("3 classes x 2")
    labels = LABELS[places(order, 0, 5 * 6 * 20)].reshape(20, -1)
    for row in labels:
        np.testing.assert_array_equal(np.bincount(row), [6] * 5)
    images = places(order, 0, 10 * 5 * 6)
    for label, size in enumerate(SIZES):
        counts = np.bincount(images[LABELS[images] == label], minlength=len(LABELS))
        counts = counts[LABELS == label]
        assert len(set(counts.tolist())) == 1 and counts[0] * size == 10 * 3 * 2


@pytest.mark.parametrize("spec", SPECS)
def test_an_order_depends_on_place_and_seed_alone(spec):
    straight = places(make(spec), 0, 60)
    np.testing.assert_array_equal(places(make(spec), 30, 60), straight[30:])
    np.testing.assert_array_equal(places(pickle.loads(pickle.dumps(make(spec))), 0, 60), straight)
    assert not np.array_equal(places(make(spec, seed=4), 0, 60), straight)
    assert not np.array_equal(straight[:30], straight[30:])


@pytest.mark.parametrize("spec", SPECS)
def test_resume_equals_the_straight_run(spec):
    straight = train(spec, 9)
    assert_equal(train(spec, 4, start_step=5), straight[5:])
    (late,) = train(spec, 1, start_step=10**8)
    assert late["mask"].sum() == 6
    first, again = (batch["image"] for batch in (straight[0], train(spec, 1)[0]))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_global_batch(spec, count):
    options = {"process_count": count, "start_step": 2, "steps": 5}
    shares = [train(spec, process_index=index, **options) for index in range(count)]
    together = [joined(parts) for parts in zip(*shares, strict=True)]
    assert_equal(together, train(spec, 5, start_step=2))
    for batch in together:
        np.testing.assert_array_equal(batch["label"], LABELS[batch["index"]])


@pytest.mark.parametrize(
    ("spec", "change", "message"),
    [
        ("4 classes x 4", {}, "makes batches of 16, but the batch size is 6"),
        ("6 classes x 1", {}, "there are only 5 classes"),
        ("balanced", {"labels": LABELS % 3}, "the train split has no images of d, e"),
        ("2 classes x 3", {"labels": LABELS // 4}, "the train split has no images of c, d, e"),
    ],
)
def test_what_cannot_be_is_named(spec, change, message):
    with pytest.raises(ValueError, match=message):
        make(spec, **change)


def test_a_run_refuses_wrong_samplings_before_it_trains():
    recipe = tiny_run.recipe("")
    options = {"species": 3, "train_per_class": 4, "test_per_class": 1, "size": 64}
    recipe.data.update(name="synthetic_birds", options=options, sampling="2 classes x 4")
    recipe.phases = (
        common.phase("fits", batch_size=8, resize=32, crop=32),
        common.phase("not", batch_size=6, resize=32, crop=32),
    )
    message = "phase not: data.sampling='2 classes x 4' makes batches of 8, but the batch size is 6"
    with pytest.raises(ValueError, match=message):
        plans.prepare(rules.parse(recipe))
    recipe.data.sampling = "classes"
    with pytest.raises(ValueError, match="config.data.sampling='classes' must be one of 'shuffle'"):
        rules.parse(recipe)
