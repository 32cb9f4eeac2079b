"""The memory that the train steps of a plan need, as reported by XLA, without training."""

import jax
import jax.numpy as jnp

from fgc_jax import console, trees
from fgc_jax.training import phases, plans, trainable

STEPS = 1000  # per epoch; the compiled program does not depend on it


def compiled(plan: plans.Plan, index: int):
    """(compiled train step, shapes of its state) of a phase."""
    method, task = phases.method_of(plan), phases.task_of(plan)
    ready = phases.prepare(plan, index, method, task, steps_per_epoch=STEPS)
    phase, state = ready.phase, ready.state_shapes()
    rows, side = phase.batch_size, ready.inputs.transform.crop
    batch = {
        "image": jax.ShapeDtypeStruct((rows, side, side, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((rows,), jnp.float32),
    }
    return ready.step.lower(state, batch, method.constants, 1.0).compile(), state


def table(plan: plans.Plan) -> str:
    """A text table with a row for each phase."""
    heads = "phase trains px batch trained parameters optimiser temporaries sum TFLOP"
    rows = [tuple(heads.split())]
    for index, phase in enumerate(plan.settings.phases):
        program, state = compiled(plan, index)
        sizes = [
            trees.num_bytes(state.params),
            trees.num_bytes((state.opt_state, state.average)),
            program.memory_analysis().temp_size_in_bytes,
        ]
        flat = trees.flatten(plan.network.params)
        trained = sum(flat[path].size for path in trainable.trained_paths(plan.labels(phase)))
        rows.append(
            (
                phase.name,
                str(phase.train),
                str(phase.crop),
                str(phase.batch_size),
                f"{trained:,}",
                *(f"{size / 1e6:,.0f}" for size in (*sizes, sum(sizes))),
                f"{program.cost_analysis()['flops'] / 1e12:.2f}",
            )
        )
    return console.table(rows)
