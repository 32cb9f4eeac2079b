"""The compiled steps: training state, train step and evaluation step."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

from fgc_jax import mesh, models, params
from fgc_jax.data import augment
from fgc_jax.methods import losses

TOP_K = 5


@struct.dataclass
class TrainState:
    """All that a step changes; pure nested dicts, saved whole in each checkpoint."""

    step: jax.Array  # int32 [], counted over all phases
    params: Any
    stats: Any
    opt_state: Any
    method: Any  # the method's own state, {} for most


def train_graphdef(model: nnx.Module, trained: Collection[str]) -> nnx.GraphDef:
    """The static definition for training: dropout on, and batch statistics in those batch norms
    whose scale is trained; the others keep their running statistics, bit for bit."""
    view = nnx.view(model, deterministic=False, use_running_average=False, raise_if_not_found=False)
    for path, module in nnx.iter_modules(view):
        if hasattr(module, "use_running_average"):
            scale = "/".join([*map(str, path), "scale"])
            module.use_running_average = scale not in trained
    return nnx.graphdef(view)


def make_train_step(
    *,
    graphdef: nnx.GraphDef,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    rate: Callable[[jax.Array], jax.Array],
    phase_start: int,
    trained: Collection[str],
    preprocess: Callable[[jax.Array, dict], dict],
    key: jax.Array,
    device_mesh: jax.sharding.Mesh,
) -> Callable[[TrainState, dict, Any, float], tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles one optimiser step: (state, batch, constants, scale) -> (new state, scalar metrics).

    The optimiser's updates are those for a learning rate of 1. They are multiplied by `rate` of the
    step of the phase, which began at global step `phase_start`, and by `scale`.

    Only the `trained` subset is differentiated, so XLA never builds the frozen part's backward
    pass and norms mean the trained parameters. The state's buffers are donated. `constants` are
    the method's, replicated; its loss finds them in the batch.
    """
    replicated, sharded = mesh.replicated(device_mesh), mesh.sharded(device_mesh)

    def train_step(state, batch, constants, scale):
        augment_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = {**preprocess(augment_key, batch), "constants": constants}
        trainable, frozen = params.select(state.params, trained)

        def objective(trainable):
            variables = params.merge(trainable, frozen)
            (value, aux), stats = models.apply(
                graphdef, variables, state.stats, loss, batch, loss_key, state.method
            )
            return value, (aux, stats)

        (value, (aux, stats)), grads = jax.value_and_grad(objective, has_aux=True)(trainable)
        updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
        learning_rate = rate(state.step - phase_start) * scale
        updates = optax.tree.scale(learning_rate, updates)
        trainable = optax.apply_updates(trainable, updates)
        logits, method = aux.pop("logits"), aux.pop("state", state.method)
        hits = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
        metrics = {
            "loss": value,
            "top1": 100 * losses.masked_mean(hits, batch["mask"]),
            "grad_norm": optax.tree.norm(grads),
            "update_norm": optax.tree.norm(updates),  # not finite if a new weight is not
            **aux,
        }
        variables = params.merge(trainable, frozen)
        new_state = TrainState(state.step + 1, variables, stats, opt_state, method)
        return new_state, metrics

    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(replicated, sharded, replicated, replicated),
        out_shardings=(replicated, replicated),
    )


def make_eval_step(
    *, graphdef: nnx.GraphDef, mean, std, device_mesh: jax.sharding.Mesh
) -> Callable[[Any, Any, dict], dict[str, jax.Array]]:
    """Compiles inference: (params, stats, batch) -> per-image results, cut over the devices.

    The batch holds `image` uint8 [B, H, W, 3] and `label` int32 [B]. The result holds `loss`
    f32 [B] (cross-entropy in nats), `rank` int32 [B] (classes scored above the true one; 0 is a
    hit), `classes` int32 and `probabilities` f32 [B, min(5, K)] (best first).
    """
    replicated, sharded = mesh.replicated(device_mesh), mesh.sharded(device_mesh)

    def eval_step(variables, stats, batch):
        images = augment.normalise(batch["image"], mean, std)
        (logits, _), _ = models.apply(graphdef, variables, stats, lambda model: model(images))
        true_logit = jnp.take_along_axis(logits, batch["label"][:, None], axis=-1)
        # A logit equal to the true one counts against it where argmax would prefer it.
        classes = jnp.arange(logits.shape[-1])[None, :]
        above = (logits > true_logit) | (
            (logits == true_logit) & (classes < batch["label"][:, None])
        )
        # By logits, as rank is: in f32 close or small probabilities become equal.
        _, order = jax.lax.top_k(logits, min(TOP_K, logits.shape[-1]))
        # NaN logits compare false everywhere, which would make them hits.
        rank = jnp.where(jnp.isfinite(logits).all(-1), above.sum(-1), logits.shape[-1])
        return {
            "loss": losses.cross_entropy(logits, batch["label"]),
            "rank": rank.astype(jnp.int32),
            "classes": order.astype(jnp.int32),
            "probabilities": jnp.take_along_axis(jax.nn.softmax(logits), order, axis=-1),
        }

    return jax.jit(eval_step, in_shardings=(replicated, replicated, sharded), out_shardings=sharded)
