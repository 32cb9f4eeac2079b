"""The compiled train step, and the state that it changes."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

from fgc_jax import config, mesh, models, trees
from fgc_jax.methods import Method, Report, Task
from fgc_jax.training import averaging, trainable
from fgc_jax.training.inputs import Inputs


@struct.dataclass
class TrainState:
    """Everything that a step changes: pure nested dicts, saved completely in each checkpoint."""

    step: jax.Array  # int32 [], counted over all phases
    params: Any
    stats: Any
    opt_state: Any
    method: Any  # the method's own state, {} for most
    # Averaged trained parameters and statistics, see `averaging`; {} for none.
    average: Any = struct.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts that a phase's step is built from.

    labels: how each parameter trains. optimizer: gives the updates for a learning rate of 1. rate:
    step of the phase -> learning rate. start: the first global step of the phase. key: for all
    random numbers of the phase's steps.
    """

    phase: config.Phase
    inputs: Inputs
    labels: trainable.Labels
    optimizer: optax.GradientTransformation
    rate: Callable[[jax.Array], jax.Array]
    start: int
    key: jax.Array


def train_graphdef(model: nnx.Module, trained: Collection[str]) -> nnx.GraphDef:
    """The static definition for training: dropout is on, and batch norms whose scale is trained use
    batch statistics. The other batch norms use their running statistics, which do not change."""
    view = nnx.view(model, deterministic=False, use_running_average=False, raise_if_not_found=False)
    for path, module in nnx.iter_modules(view):
        if hasattr(module, "use_running_average"):
            scale = "/".join([*map(str, path), "scale"])
            module.use_running_average = scale not in trained
    return nnx.graphdef(view)


def make_train_step(
    setup: Setup, method: Method, task: Task, device_mesh: jax.sharding.Mesh
) -> Callable[[TrainState, dict, Any, float], tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles one step: (state, batch, constants, scale) -> (new state, metrics).

    For each of the method's losses, one after the other, the optimiser makes one update with the
    batch. In the metrics, loss and norms are sums over the losses; the task reports on the outputs
    of the last loss. Updates are multiplied by the rate of the step and by `scale`. `constants` are
    the method's, replicated. With `accumulate`, the gradient is computed for that many parts of the
    batch, one after the other; `sam_rho`: see `_sharpness_aware`.

    Only the trained parameters are differentiated, so XLA builds no backward pass for the frozen
    ones, and norms are those of the trained parameters. The state's buffers are donated.
    """
    phase, trained = setup.phase, trainable.trained_paths(setup.labels)
    graphdef = train_graphdef(setup.inputs.network.model, trained)
    replicated, sharded = mesh.replicated(device_mesh), mesh.sharded(device_mesh)

    def gradient_of(loss):
        def objective(trainable, frozen, moving, batch, key, constants):
            stats, kept = moving
            params = trees.merge(trainable, frozen)
            (value, report), stats = models.apply(
                graphdef, params, stats, loss, batch, key, kept, constants
            )
            moving = stats, kept if report.state is None else report.state
            return value, (report.replace(state=None), moving)

        gradient = jax.value_and_grad(objective, has_aux=True)
        if phase.accumulate > 1:
            gradient = _accumulated(gradient, phase.accumulate)
        return _sharpness_aware(gradient, phase.sam_rho) if phase.sam_rho else gradient

    gradients = [gradient_of(loss) for loss in method.losses]

    def train_step(state, batch, constants, scale):
        augment_key, loss_key = jax.random.split(jax.random.fold_in(setup.key, state.step))
        batch = setup.inputs.augment(augment_key, batch)
        trainable, frozen = trees.select(state.params, trained)
        moving, opt_state = (state.stats, state.method), state.opt_state
        done = state.step - setup.start
        totals, scalars = {"loss": 0.0, "grad_norm": 0.0, "update_norm": 0.0}, {}
        for number, gradient in enumerate(gradients):
            own_key = jax.random.fold_in(loss_key, number) if len(gradients) > 1 else loss_key
            (value, (report, moving)), grads = gradient(
                trainable, frozen, moving, batch, own_key, constants
            )
            updates, opt_state = setup.optimizer.update(grads, opt_state, trainable)
            updates = optax.tree.scale(setup.rate(done) * scale, updates)
            trainable = optax.apply_updates(trainable, updates)
            scalars |= report.scalars
            totals["loss"] += value
            totals["grad_norm"] += optax.tree.norm(grads)
            # Not finite if a new weight is not finite.
            totals["update_norm"] += optax.tree.norm(updates)
        metrics = {**totals, **task.report(report.outputs, batch), **scalars}
        stats, kept = moving
        new_state = TrainState(
            step=state.step + 1,
            params=trees.merge(trainable, frozen),
            stats=stats,
            opt_state=opt_state,
            average=averaging.after_step(phase.average, state.average, trainable, stats, done),
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
    """`gradient` of a batch as the mean over `parts` of it, weighted by their valid images.

    Part i contains the images i, i + parts, ..., so each device splits its own share of the batch.
    Batch norms normalise each part separately.
    """

    def whole(trainable, frozen, moving, batch, key, constants):
        total = jnp.maximum(batch["mask"].sum(), 1.0)

        def split(array):
            return jnp.moveaxis(array.reshape(-1, parts, *array.shape[1:]), 1, 0)

        def joined(array):
            return jnp.moveaxis(array, 0, 1).reshape(-1, *array.shape[2:])

        def add(carry, part):
            moving, grads = carry
            index, piece = part
            part_key = jax.random.fold_in(key, index)
            (value, (report, moving)), new = gradient(
                trainable, frozen, moving, piece, part_key, constants
            )
            share = piece["mask"].sum() / total
            grads = jax.tree.map(lambda old, more: old + share * more, grads, new)
            scalars = jax.tree.map(lambda x: share * x, report.scalars)
            return (moving, grads), (share * value, scalars, report.outputs)

        start = (moving, jax.tree.map(jnp.zeros_like, trainable))
        pieces = (jnp.arange(parts), jax.tree.map(split, batch))
        (moving, grads), (values, scalars, outputs) = jax.lax.scan(add, start, pieces)
        report = Report(jax.tree.map(joined, outputs), jax.tree.map(lambda x: x.sum(0), scalars))
        return (values.sum(), (report, moving)), grads

    return whole


def _sharpness_aware(gradient: Callable, rho: float) -> Callable:
    """The gradient at the trained weights plus rho g / |g|, where g is the plain gradient (SAM,
    Foret et al., arXiv:2010.01412). Loss and statistics are those of the first pass."""

    def sharp(trainable, *arguments):
        found, grads = gradient(trainable, *arguments)
        factor = rho / jnp.maximum(optax.tree.norm(grads), 1e-12)
        moved = jax.tree.map(lambda weight, slope: weight + factor * slope, trainable, grads)
        _, grads = gradient(moved, *arguments)
        return found, grads

    return sharp


def make_statistics_step(
    setup: Setup, key: jax.Array, device_mesh: jax.sharding.Mesh
) -> Callable[[Any, Any, dict, int], Any]:
    """Compiles (params, stats, batch, number) -> batch-norm statistics after one more batch."""
    replicated, sharded = mesh.replicated(device_mesh), mesh.sharded(device_mesh)
    graphdef = train_graphdef(setup.inputs.network.model, trainable.trained_paths(setup.labels))

    def statistics_step(params, stats, batch, number):
        augment_key, loss_key = jax.random.split(jax.random.fold_in(key, number))
        batch = setup.inputs.augment(augment_key, batch)
        rngs = nnx.Rngs(dropout=loss_key)
        _, stats = models.apply(
            graphdef, params, stats, lambda model: model(batch["image"], rngs=rngs)[0].sum()
        )
        return stats

    return jax.jit(
        statistics_step,
        in_shardings=(replicated, replicated, sharded, replicated),
        out_shardings=replicated,
    )
