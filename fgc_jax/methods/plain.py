"""Plain fine-tuning: cross-entropy of the classifier's logits."""

from flax import nnx

from fgc_jax.methods import losses
from fgc_jax.methods.method import Facts, Method


def make(facts: Facts, *, label_smoothing: float = 0.0) -> Method:
    """Cross-entropy, optionally with smoothed targets (Szegedy et al., arXiv:1512.00567 §7).

    Raises:
        ValueError: label_smoothing outside [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing} must lie in [0, 1)")

    def loss(model, batch, key, state):
        logits, _ = model(batch["image"], rngs=nnx.Rngs(dropout=key))
        values = losses.cross_entropy(logits, batch["label"], label_smoothing)
        if "label_b" in batch:  # two images in one, or parts of them
            second = losses.cross_entropy(logits, batch["label_b"], label_smoothing)
            values = batch["weight"] * values + (1 - batch["weight"]) * second
        return losses.masked_mean(values, batch["mask"]), {"logits": logits}

    return Method(loss)
