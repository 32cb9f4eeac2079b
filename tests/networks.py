"""What the tests of several network families share."""

from pathlib import Path

import numpy as np

from fgc_jax import models
from tests import seeded

GOLDEN = Path(__file__).parent / "golden"
SIZES = ("64x64", "75x61")
EVERY = 8  # As in scripts/make_golden.py.


def forward(backbone: str, num_classes: int, **changes):
    """The evaluation forward images -> (logits, maps) on seeded weights."""
    config, params, stats = seeded.trees(backbone, num_classes, **changes)
    graphdef = models.evaluation_graphdef(models.abstract(config, num_classes))
    return lambda images: models.forward(graphdef, params, stats, images)


def relative(actual, expected) -> float:
    """Largest difference over the standard deviation of what is expected."""
    return float(np.abs(np.asarray(actual) - expected).max() / expected.std())


def assert_near(found, expected, within: float = 1e-5) -> None:
    """That no difference is above `within` of the largest expected number."""
    scale = np.abs(np.asarray(expected, np.float64)).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=within * scale)


def check_golden(backbone: str, size: str, logits: bool = True) -> None:
    """Compares a network with the file that scripts/make_golden.py wrote for it."""
    stored = np.load(GOLDEN / f"{backbone}.npz")
    height, width = map(int, size.split("x"))
    # VGG's own head is too large for these tests: see test_heads.py.
    changes = {} if logits else {"head": "gap"}
    run = forward(backbone, 40, **changes)
    found, out = run(seeded.images(2, height, width))
    features = np.asarray(out["features"])
    assert features.shape[1:3] == tuple(stored[f"grid_{size}"])
    means = features.mean((1, 2))[:, ::EVERY]
    assert relative(means, stored[f"features_{size}"]) < 1e-4
    if logits:
        assert relative(found, stored[f"logits_{size}"]) < 1e-4
