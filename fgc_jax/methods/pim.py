"""The losses of PIM and HERBS, for the heads of those names (see models.pyramid).

Papers: A Novel Plug-in Module for Fine-Grained Visual Classification (PIM, arXiv 2202.03822);
Fine-grained Visual Classification with High-temperature Refinement and Background Suppression
(HERBS, arXiv 2303.06442). The terms are means over images and sums over the pyramid's levels.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Count, NotNegative, Positive
from fgc_jax.methods import losses
from fgc_jax.methods.method import Facts, Method, Report
from fgc_jax.models.heads import pyramid

LEAST_TEMPERATURE = 1 / 16


def make(
    facts: Facts,
    *,
    lambda_b: NotNegative = 0.5,
    lambda_n: NotNegative = 5.0,
    lambda_s: NotNegative = 0.0,
    lambda_c: Positive = 1.0,
) -> Method:
    """PIM: lambda_c times the cross-entropy of the logits, lambda_b times that of each level's mean
    scores, lambda_n times `dropped` and lambda_s times that of the picked positions.
    """
    factors = {"mean": lambda_b, "dropped": lambda_n, "picked": lambda_s, "graph": lambda_c}

    def loss(model, batch, key, state, constants):
        logits, out = model(batch["image"], rngs=nnx.Rngs(dropout=key))
        return _total(factors, _terms(logits, out, batch), logits)

    return Method((loss,))


def make_herbs(
    facts: Facts,
    *,
    lambda_b: NotNegative = 0.3,
    lambda_n: NotNegative = 5.0,
    lambda_s: NotNegative = 0.0,
    lambda_c: Positive = 1.0,
    lambda_r: Positive = 1.375,
    temperature: Positive = 64.0,
    halve_every: Count = 10,
) -> Method:
    """HERBS: PIM's terms, and lambda_r times `refinement` at a temperature that is halved every
    `halve_every` epochs, down to LEAST_TEMPERATURE.

    The state is the number of images trained on so far.
    """
    factors = {"mean": lambda_b, "dropped": lambda_n, "picked": lambda_s, "graph": lambda_c}
    factors["refinement"] = lambda_r
    period = halve_every * max(sum(facts.class_counts), 1)

    def loss(model, batch, key, state, constants):
        logits, out = model(batch["image"], rngs=nnx.Rngs(dropout=key))
        halved = 0.5 ** (state["images"] // period).astype(jnp.float32)
        now = jnp.maximum(temperature * halved, LEAST_TEMPERATURE)
        terms = _terms(logits, out, batch)
        late = _levels(out, pyramid.SCORES)
        pairs = zip(_levels(out, pyramid.EARLY), late, strict=True)
        apart = sum(refinement(first, last, now) for first, last in pairs)
        terms["refinement"] = losses.masked_mean(apart, batch["mask"])
        value, report = _total(factors, terms, logits)
        scalars = {**report.scalars, "temperature": now}
        state = {"images": state["images"] + len(logits)}
        return value, report.replace(scalars=scalars, state=state)

    return Method((loss,), state={"images": jnp.int32(0)})


def dropped(scores: jax.Array, picked: jax.Array) -> jax.Array:
    """[B]: mean square of tanh(score) + 1 over the scores [B, h, w, K] of the positions that are
    not picked (f32 [B, h, w], 1 or 0), because they show no class. 0 if all are picked."""
    left = 1 - picked
    squares = jnp.square(jnp.tanh(scores) + 1).mean(-1)
    return (squares * left).sum((1, 2)) / jnp.maximum(left.sum((1, 2)), 1.0)


def refinement(early: jax.Array, late: jax.Array, temperature: jax.Array) -> jax.Array:
    """[B]: the divergence of the class probabilities of positions [B, h, w, K] from the later ones,
    both at a temperature; the later ones get no gradient.

    The Kullback-Leibler divergence, divided by K as in the authors' code. That code has 1 - p
    instead of the later probabilities p; these do not sum to 1, so here it is p.
    """
    wanted = jax.nn.log_softmax(jax.lax.stop_gradient(late) / temperature)
    given = jax.nn.log_softmax(early / temperature)
    return jnp.mean(jnp.exp(wanted) * (wanted - given), axis=(1, 2, 3))


def _terms(logits, out, batch):
    goal = losses.targets(batch, logits.shape[-1])
    sums = {"mean": 0.0, "dropped": 0.0, "picked": 0.0}
    levels = zip(_levels(out, pyramid.SCORES), _levels(out, pyramid.PICKED), strict=True)
    for scores, picked in levels:
        each = losses.cross_entropy(scores, goal[:, None, None])
        sums["mean"] += losses.cross_entropy(scores.mean((1, 2)), goal)
        sums["dropped"] += dropped(scores, picked)
        sums["picked"] += (each * picked).sum((1, 2)) / picked.sum((1, 2))
    sums["graph"] = losses.cross_entropy(logits, goal)
    return {name: losses.masked_mean(value, batch["mask"]) for name, value in sums.items()}


def _total(factors, terms, logits):
    used = {name: terms[name] for name, factor in factors.items() if factor}
    value = sum(factors[name] * term for name, term in used.items())
    return value, Report({"logits": logits}, {f"{name}_loss": term for name, term in used.items()})


def _levels(out, kind):
    """The head's arrays "kind/0", "kind/1" and so on."""
    name = f"head/{kind}/"
    return [out[f"{name}{index}"] for index in range(sum(key.startswith(name) for key in out))]
