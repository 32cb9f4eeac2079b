"""What the tests of several network families share."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax import models
from tests import seeded

GOLDEN = Path(__file__).parent / "golden"


def forward(backbone: str, num_classes: int, **changes):
    """The evaluation forward images -> (logits, maps) on seeded weights."""
    config, params, stats = seeded.trees(backbone, num_classes, **changes)
    graphdef = models.evaluation_graphdef(models.abstract(config, num_classes))
    return lambda images: models.forward(graphdef, params, stats, images)


def shapes(config, num_classes: int, height: int, width: int):
    """(logits, maps) of two images, without computing them."""
    model = models.abstract(config, num_classes)
    graphdef = models.evaluation_graphdef(model)
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    return jax.eval_shape(
        lambda *trees: models.forward(graphdef, *trees), *models.split(model), images
    )


def relative(actual, expected) -> float:
    """Largest difference over the standard deviation of what is expected."""
    return float(np.abs(np.asarray(actual) - expected).max() / expected.std())


def assert_near(found, expected, within: float = 1e-5) -> None:
    """That no difference is above `within` of the largest expected number."""
    scale = np.abs(np.asarray(expected, np.float64)).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=within * scale)
