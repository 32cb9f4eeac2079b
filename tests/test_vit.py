import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax import models
from fgc_jax import params as trees
from tests import networks, seeded

REGISTERS = "vit_small_patch14_reg4_dinov2"


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", "64x64"),
        ("vit_tiny_patch16_224", "96x80"),
        (REGISTERS, "56x56"),
        (REGISTERS, "84x70"),
    ],
)
def test_forward_equals_timms(name, size):
    networks.check_golden(name, size)
