"""The compiled steps: training state, train step and evaluation step."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

from fgc_jax import config, mesh, methods, models, trees
from fgc_jax.data import augment
from fgc_jax.evaluation import multiview, views
from fgc_jax.methods import losses
from fgc_jax.training import averaging

TOP_K = 5


@struct.dataclass
class TrainState:
    """All that a step changes; pure nested dicts, saved whole in each checkpoint."""

    step: jax.Array  # int32 [], counted over all phases
    params: Any
    stats: Any
    opt_state: Any
    method: Any  # the method's own state, {} for most
    # Averaged trained parameters and statistics, see `averaging`; {} for none.
    average: Any = struct.field(default_factory=dict)


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
    method: methods.Method,
    optimizer: optax.GradientTransformation,
    rate: Callable[[jax.Array], jax.Array],
    phase_start: int,
    trained: Collection[str],
    preprocess: Callable[[jax.Array, dict], dict],
    key: jax.Array,
    device_mesh: jax.sharding.Mesh,
    accumulate: int = 1,
    sam_rho: float = 0.0,
    average: config.Average = config.NO_AVERAGE,
) -> Callable[[TrainState, dict, Any, float], tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles one step: (state, batch, constants, scale) -> (new state, metrics).

    Each of the method's losses takes an optimiser step with the batch, in turn; of the metrics,
    loss and norms are sums over them, top-1 is the last one's. The optimiser's updates are those
    for a learning rate of 1. They are multiplied by `rate` of the step of the phase, which began at
    global step `phase_start`, and by `scale`. `constants` are the method's, replicated; its losses
    find them in the batch. With `accumulate` a gradient is that of so many parts of the batch, one
    after the other; `sam_rho`: see `_sharpness_aware`.

    Only the `trained` subset is differentiated, so XLA never builds the frozen part's backward
    pass and norms mean the trained parameters. The state's buffers are donated.
    """
    replicated, sharded = mesh.replicated(device_mesh), mesh.sharded(device_mesh)

    def gradient_of(loss):
        def objective(trainable, frozen, moving, batch, key):
            stats, kept = moving
            variables = trees.merge(trainable, frozen)
            (value, aux), stats = models.apply(graphdef, variables, stats, loss, batch, key, kept)
            return value, (aux, (stats, aux.pop("state", kept)))

        gradient = jax.value_and_grad(objective, has_aux=True)
        if accumulate > 1:
            gradient = _accumulated(gradient, accumulate)
        return _sharpness_aware(gradient, sam_rho) if sam_rho else gradient

    gradients = [gradient_of(loss) for loss in method.losses]

    def train_step(state, batch, constants, scale):
        augment_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = {**preprocess(augment_key, batch), "constants": constants}
        trainable, frozen = trees.select(state.params, trained)
        moving, opt_state = (state.stats, state.method), state.opt_state
        done = state.step - phase_start
        totals, scalars = {"loss": 0.0, "grad_norm": 0.0, "update_norm": 0.0}, {}
        for number, gradient in enumerate(gradients):
            own_key = jax.random.fold_in(loss_key, number) if len(gradients) > 1 else loss_key
            (value, (aux, moving)), grads = gradient(trainable, frozen, moving, batch, own_key)
            updates, opt_state = optimizer.update(grads, opt_state, trainable)
            updates = optax.tree.scale(rate(done) * scale, updates)
            trainable = optax.apply_updates(trainable, updates)
            logits = aux.pop("logits")
            scalars |= aux
            totals["loss"] += value
            totals["grad_norm"] += optax.tree.norm(grads)
            totals["update_norm"] += optax.tree.norm(updates)  # not finite if a new weight is not
        hits = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
        metrics = {**totals, "top1": 100 * losses.masked_mean(hits, batch["mask"]), **scalars}
        stats, kept = moving
        new_state = TrainState(
            step=state.step + 1,
            params=trees.merge(trainable, frozen),
            stats=stats,
            opt_state=opt_state,
            average=averaging.after_step(average, state.average, trainable, stats, done),
            method=kept,
        )
        return new_state, metrics

    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(replicated, sharded, replicated, replicated),
        out_shardings=(replicated, replicated),
    )


def _accumulated(gradient: Callable, parts: int) -> Callable:
    """`gradient` of a batch as the mean over `parts` of it, weighed by their valid images.

    Part i holds the images i, i + parts, ..., so that each device cuts its own share of the batch.
    Batch norms normalise each part by itself.
    """

    def whole(trainable, frozen, moving, batch, key):
        constants = batch["constants"]
        batch = {name: values for name, values in batch.items() if name != "constants"}
        total = jnp.maximum(batch["mask"].sum(), 1.0)

        def cut(array):
            return jnp.moveaxis(array.reshape(-1, parts, *array.shape[1:]), 1, 0)

        def add(carry, part):
            moving, grads = carry
            index, piece = part
            piece = {**piece, "constants": constants}
            part_key = jax.random.fold_in(key, index)
            (value, (aux, moving)), new = gradient(trainable, frozen, moving, piece, part_key)
            share = piece["mask"].sum() / total
            grads = jax.tree.map(lambda old, more: old + share * more, grads, new)
            logits = aux.pop("logits")
            return (moving, grads), (share * value, jax.tree.map(lambda x: share * x, aux), logits)

        start = (moving, jax.tree.map(jnp.zeros_like, trainable))
        pieces = (jnp.arange(parts), jax.tree.map(cut, batch))
        (moving, grads), (values, scalars, logits) = jax.lax.scan(add, start, pieces)
        aux = jax.tree.map(lambda x: x.sum(0), scalars)
        aux["logits"] = jnp.moveaxis(logits, 0, 1).reshape(-1, logits.shape[-1])
        return (values.sum(), (aux, moving)), grads

    return whole


def _sharpness_aware(gradient: Callable, rho: float) -> Callable:
    """The gradient at the trained weights moved by rho g / |g|, g being the plain gradient there
    (SAM, Foret et al., arXiv:2010.01412). Loss and statistics are those of the first pass."""

    def sharp(trainable, frozen, moving, batch, key):
        found, grads = gradient(trainable, frozen, moving, batch, key)
        factor = rho / jnp.maximum(optax.tree.norm(grads), 1e-12)
        moved = jax.tree.map(lambda weight, slope: weight + factor * slope, trainable, grads)
        _, grads = gradient(moved, frozen, moving, batch, key)
        return found, grads

    return sharp


def make_statistics_step(
    *,
    graphdef: nnx.GraphDef,
    preprocess: Callable[[jax.Array, dict], dict],
    key: jax.Array,
    device_mesh: jax.sharding.Mesh,
) -> Callable[[Any, Any, dict, int], Any]:
    """Compiles (params, stats, batch, number) -> batch-norm statistics after one more batch."""
    replicated, sharded = mesh.replicated(device_mesh), mesh.sharded(device_mesh)

    def statistics_step(variables, stats, batch, number):
        augment_key, loss_key = jax.random.split(jax.random.fold_in(key, number))
        batch = preprocess(augment_key, batch)
        rngs = nnx.Rngs(dropout=loss_key)
        _, stats = models.apply(
            graphdef, variables, stats, lambda model: model(batch["image"], rngs=rngs)[0].sum()
        )
        return stats

    whole = replicated
    return jax.jit(
        statistics_step, in_shardings=(whole, whole, sharded, whole), out_shardings=whole
    )


def scorer(
    *, graphdef: nnx.GraphDef, mean, std, seen: views.Views = views.RAW
) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """Inference as a pure function: (params, stats, images) -> logits f32 [B, K].

    The images, uint8 [B, H, W, 3], are normalised by mean and std, or with None for both taken as
    they are, and looked at as `seen` says.
    """

    def score(variables, stats, images):
        def forward(images):
            return models.apply(graphdef, variables, stats, lambda model: model(images))[0]

        if mean is not None:
            images = augment.normalise(images, mean, std)
        return multiview.scores(seen, forward, images)

    return score


def make_eval_step(
    *,
    graphdef: nnx.GraphDef,
    mean,
    std,
    device_mesh: jax.sharding.Mesh,
    seen: views.Views = views.RAW,
) -> Callable[[Any, Any, dict], dict[str, jax.Array]]:
    """Compiles inference: (params, stats, batch) -> per-image results, cut over the devices.

    mean, std, seen: see `scorer`. The batch holds `image` uint8 [B, H, W, 3] and `label` int32 [B].
    The result holds `loss` f32 [B] (cross-entropy in nats), `rank` int32 [B] (classes scored above
    the true one; 0 is a hit), `classes` int32 and `probabilities` f32 [B, min(5, K)] (best first).
    """
    replicated, sharded = mesh.replicated(device_mesh), mesh.sharded(device_mesh)
    score = scorer(graphdef=graphdef, mean=mean, std=std, seen=seen)

    def eval_step(variables, stats, batch):
        return scored(score(variables, stats, batch["image"]), batch["label"])

    return jax.jit(eval_step, in_shardings=(replicated, replicated, sharded), out_shardings=sharded)


def scored(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """What evaluation keeps of each image, as `make_eval_step` says: logits f32 [B, K], labels
    int32 [B]."""
    true_logit = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    # A logit equal to the true one counts against it where argmax would prefer it.
    classes = jnp.arange(logits.shape[-1])[None, :]
    above = (logits > true_logit) | ((logits == true_logit) & (classes < labels[:, None]))
    # By logits, as rank is: in f32 close or small probabilities become equal.
    _, order = jax.lax.top_k(logits, min(TOP_K, logits.shape[-1]))
    # NaN logits compare false everywhere, which would make them hits.
    rank = jnp.where(jnp.isfinite(logits).all(-1), above.sum(-1), logits.shape[-1])
    return {
        "loss": losses.cross_entropy(logits, losses.targets({"label": labels}, logits.shape[-1])),
        "rank": rank.astype(jnp.int32),
        "classes": order.astype(jnp.int32),
        "probabilities": jnp.take_along_axis(jax.nn.softmax(logits), order, axis=-1),
    }
