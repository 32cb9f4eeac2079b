"""What happens to images on the device, inside the compiled step: pure functions, batched."""

import jax
import jax.numpy as jnp


def flip(key, images):
    """Mirrors each of `[B, H, W, C]` left to right with probability 1/2; any type."""
    mirrored = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1, :], images)


def normalise(images, mean, std):
    """uint8 `[B, H, W, 3]` of 0..255 -> f32 (images / 255 - mean) / std.

    `mean` and `std`: 3 numbers for images of 0..1, as the pretrained weights state them.
    """
    mean = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)
    std = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, -1)
    return (images.astype(jnp.float32) / 255 - mean) / std
