"""The generated birds: deterministic, exact boxes, species told apart by parts and nothing else."""

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import pickle

import cv2
import numpy as np
import pytest

from fgc_jax.data import dataset
from fgc_jax.data.sources import bird_drawing, bird_outlines, synthetic_birds

PART_TRAITS = {
    "bill": ("bill", "bill_colour"),
    "crest": ("crest",),
    "wing": ("wing",),
    "tail": ("tail",),
    "belly": ("belly", "belly_colour"),
    "legs": ("legs", "leg_colour"),
}


@pytest.fixture(scope="module")
def birds():
    return synthetic_birds.load(
        "", species=32, train_per_class=6, val_per_class=1, test_per_class=2
    )


def differing_parts(a, b):
    return [
        part
        for part, fields in PART_TRAITS.items()
        if any(getattr(a, field) != getattr(b, field) for field in fields)
    ]


def extent(mask):
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) if x.size else np.full(4, np.nan)


def painted(split, i, part=None):
    """Grey picture of a part (None: the whole bird), markings and all, white on black."""
    side = 2 * split.size
    bird = bird_drawing.pose(split.traits(i), split.scene(i).look, side)
    bird = bird._replace(shapes=tuple(s._replace(colour=s.part) for s in bird.shapes))
    colours = {name: 255 * (part in (None, name)) for name in bird_drawing.REGIONS}
    canvas = np.zeros((side, side), np.uint8)
    bird_drawing.paint(canvas, bird, colours)
    return cv2.resize(canvas, (split.size, split.size), interpolation=cv2.INTER_AREA)


def test_splits_and_images(birds):
    assert list(birds.splits) == ["train", "val", "test"]
    assert [len(s) for s in birds.splits.values()] == [192, 32, 64]
    split = birds.splits["test"]
    image = split.read(5)
    assert image.shape == (192, 192, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5
    assert split.labels.dtype == np.int32
    assert np.bincount(split.labels).tolist() == [2] * 32
    assert len(set(split.names)) == len(split)
    assert birds.class_names[split.labels[5]] in split.names[5]
    small = synthetic_birds.load("", size=96).splits["test"]
    assert small.read(0).shape == (96, 96, 3)
    np.testing.assert_allclose(small.parts(0)["wing"], split.parts(0)["wing"] / 2, atol=1)


def test_images_differ_between_splits_seeds_and_indices(birds):
    other = synthetic_birds.load("", species=32, seed=1)
    reads = [s.read(i) for s in birds.splits.values() for i in (0, 1)]
    reads.append(other.splits["train"].read(0))
    for a, b in itertools.combinations(reads, 2):
        assert np.abs(a.astype(int) - b).mean() > 4


def test_same_pixels_in_any_thread_and_process(birds):
    split = birds.splits["train"]
    alone = [split.read(i) for i in range(24)]
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            together = list(pool.map(split.read, reversed(range(24))))[::-1]
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(alone, together)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(split.read, (3,)), alone[3])


def test_pickles_and_subsets(birds):
    split = birds.splits["val"]
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy.read(2), split.read(2))
    some = dataset.subset(split, [7, 2])
    np.testing.assert_array_equal(some.read(1), split.read(2))
    np.testing.assert_array_equal(some.boxes, split.boxes[[7, 2]])


def test_species_differ_in_two_parts():
    table = synthetic_birds.SPECIES
    assert len(table) >= 24
    closest = {name: 9 for name in table}
    for (a, x), (b, y) in itertools.combinations(table.items(), 2):
        n = len(differing_parts(x, y))
        assert n >= 2, (a, b)
        closest[a], closest[b] = min(n, closest[a]), min(n, closest[b])
    assert set(closest.values()) == {2}  # each species has a look-alike
    for part, fields in PART_TRAITS.items():
        for field in fields:
            assert len({getattr(t, field) for t in table.values()}) > 1, part


def test_each_trait_shows(birds):
    """Two birds alike but for one trait differ inside that part's box and hardly elsewhere."""
    look = birds.splits["train"].scene(0).look
    look = dataclasses.replace(look, variations=(), scale=0.4, centre=(0.5, 0.5), strength=0.6)
    base = synthetic_birds.SPECIES["fan_crested_hook_billed_cockatoo"]

    def picture(traits, part):
        canvas = np.full((384, 384, 3), (255, 0, 255), np.uint8)
        bird = bird_drawing.pose(traits, look, 384)
        bird_drawing.paint(canvas, bird, bird_drawing.palette(traits, look))
        cover = bird_drawing.coverage(bird, 1)[:, :, bird_drawing.REGIONS.index(part)]
        image = cv2.resize(canvas, (160, 160), interpolation=cv2.INTER_AREA).astype(int)
        return image, extent(cover) * 160 / 384

    for part, fields in PART_TRAITS.items():
        for field in fields:
            values = {getattr(traits, field) for traits in synthetic_birds.SPECIES.values()}
            pictures = [picture(dataclasses.replace(base, **{field: v}), part) for v in values]
            for (a, box_a), (b, box_b) in itertools.combinations(pictures, 2):
                different = np.abs(a - b).max(axis=2) > 30
                assert different.sum() >= 20, (field, values)
                low = np.fmin(box_a[:2], box_b[:2]) - 1.5
                high = np.fmax(box_a[2:], box_b[2:]) + 1.5
                changed = extent(different)
                assert (changed[:2] >= low).all() and (changed[2:] <= high).all(), (field, values)


def test_boxes_are_exact(birds):
    split = birds.splits["train"]
    for i in range(0, len(split), 3):
        boxes = {None: split.boxes[i], **split.parts(i)}
        assert set(boxes) == {None, *bird_outlines.PARTS}
        for part, box in boxes.items():
            assert box.dtype == np.float32
            np.testing.assert_array_equal(box, extent(painted(split, i, part) >= 32))
            if part == "crest":
                assert np.isnan(box).all() == (split.traits(i).crest == "none")
            else:
                assert (box[:2] < box[2:]).all()
                assert box.min() >= 0
                assert box.max() <= split.size


def test_boxes_match_the_picture(birds):
    """Where painting the bird changes an empty scene is where its box is."""
    split = birds.splits["train"]
    for i in range(0, len(split), 16):
        look, traits = split.scene(i).look, split.traits(i)
        bird = bird_drawing.pose(traits, look, 384)
        canvas = np.full((384, 384, 3), (255, 0, 255), np.uint8)
        bird_drawing.paint(canvas, bird, bird_drawing.palette(traits, look))
        image = cv2.resize(canvas, (192, 192), interpolation=cv2.INTER_AREA)
        changed = np.abs(image.astype(int) - (255, 0, 255)).max(axis=2) > 20
        assert np.abs(extent(changed) - split.boxes[i]).max() <= 1


def test_parts_are_where_they_belong(birds):
    split = birds.splits["train"]
    for i in range(len(split)):
        parts = split.parts(i)
        centre = {name: (box[:2] + box[2:]) / 2 for name, box in parts.items()}
        x0, y0, x1, y1 = split.boxes[i]
        for box in parts.values():
            if not np.isnan(box).any():
                assert box[0] >= x0 and box[1] >= y0 and box[2] <= x1 and box[3] <= y1
        forward = -1 if split.scene(i).look.left else 1
        assert forward * (centre["bill"][0] - centre["tail"][0]) > 0.1 * split.size
        assert centre["bill"][1] < centre["belly"][1] < centre["legs"][1]
        if split.traits(i).crest != "none":
            assert centre["crest"][1] < centre["wing"][1]
    area = (split.boxes[:, 2:] - split.boxes[:, :2]).prod(axis=1) / split.size**2
    assert 0.05 < area.min()
    assert area.max() < 0.9


def test_nuisance_ignores_the_species(birds):
    """Image i has the same scene whichever species it shows: the corners are equal pixels."""
    few = synthetic_birds.load("", species=31).splits["train"]
    same = 0
    for i in range(31, 62):
        a, b = few.scene(i), birds.splits["train"].scene(i)
        assert a.look == b.look
        assert a._replace(in_front=()) == b._replace(in_front=())
        assert few.traits(i) != birds.splits["train"].traits(i)
        corners = [s.read(i)[:8, :8] for s in (few, birds.splits["train"])]
        same += np.array_equal(*corners)
    assert same > 25  # now and then a bird reaches into the corner


def test_nuisance_is_uncorrelated_with_the_label():
    """One-way F statistics over the classes stay where chance puts them."""
    split = synthetic_birds.load("", species=24, train_per_class=20, size=48).splits["train"]
    rows = []
    for i in range(len(split)):
        scene, box = split.scene(i), split.boxes[i]
        values = [*dataclasses.asdict(scene.look).values(), *scene._asdict().values()]
        flat = [x for v in values for x in (v if isinstance(v, tuple) else (v,))]
        image = split.read(i)
        edge = np.concatenate([image[:5].reshape(-1, 3), image[:, :3].reshape(-1, 3)])
        hidden = sum(points.std() for points, _, _ in scene.in_front)
        rows.append([float(v) for v in flat if np.isscalar(v) and not isinstance(v, str)])
        rows[-1] = rows[-1][:30] + [hidden, *edge.mean(axis=0), *edge.std(axis=0)]
        assert box[0] < 30 and box[2] > 18
    x = np.array(rows)
    groups = np.stack([x[split.labels == k] for k in range(24)])
    between = 20 * groups.mean(axis=1).var(axis=0, ddof=1)
    f = between / groups.var(axis=1, ddof=1).mean(axis=0)
    assert f.shape == (37,)
    assert f.max() < 2.4  # 99.97 % of the F(23, 456) distribution
    assert 0.8 < f.mean() < 1.2


def test_leaves_and_twigs_hide_some_parts(birds):
    split = birds.splits["train"]
    shares = [split.visible(i) for i in range(64)]
    for i, share in enumerate(shares):
        for name, box in split.parts(i).items():
            assert np.isnan(share[name]) if np.isnan(box[0]) else 0 <= share[name] <= 1
        if not split.scene(i).in_front:
            assert np.nanmin(list(share.values())) == 1
    lowest = np.array([np.nanmin(list(share.values())) for share in shares])
    assert 0.2 < (lowest < 0.95).mean() < 0.8


def test_root_is_refused():
    with pytest.raises(ValueError, match="no files: root must be '', got '/data'"):
        synthetic_birds.load("/data")


def test_index_out_of_range(birds):
    with pytest.raises(IndexError, match="val has images 0 to 31, not 32"):
        birds.splits["val"].read(32)
