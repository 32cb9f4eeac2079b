"""What each phase of a recipe needs of memory: no images, no weights, nothing is trained.

    python scripts/estimate_memory.py --config=configs/lora_folder.py --classes=200

Compiles the train step of each phase for one device of the kind at hand and prints what XLA says
that it takes, in MB of 1e6 bytes: parameters, the optimiser's state (with averaged weights), and
temporaries, which are activations, gradients and work space. Beside it the TFLOP of a step, by
XLA's cost analysis. config.KEY may be changed as in training.
"""

import jax
import jax.numpy as jnp
from absl import app, flags

from fgc_jax import config, console, files, trees
from fgc_jax.cli import recipe_flags
from fgc_jax.data import dataset
from fgc_jax.training import classification, phases, plans, rules, trainable

CLASSES = flags.DEFINE_integer("classes", 200, "Number of classes of the images.", lower_bound=2)
STEPS = 1000  # an epoch's; what is compiled does not depend on it


def assembled(settings: config.Settings, classes: int) -> plans.Plan:
    """The plan on images that are not there."""
    names = tuple(map(str, range(classes)))
    return plans.assemble(settings, dataset.Dataset("none", names, {}))


def compiled(plan: plans.Plan, index: int):
    """(compiled train step, shapes of its state) of a phase."""
    method, task = phases.method_of(plan), classification.task(plan)
    ready = phases.prepare(plan, index, method, task, steps_per_epoch=STEPS)
    phase, state = ready.phase, ready.state_shapes()
    rows, side = phase.batch_size, ready.setup.inputs.transform.crop
    batch = {
        "image": jax.ShapeDtypeStruct((rows, side, side, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((rows,), jnp.float32),
    }
    return ready.step.lower(state, batch, method.constants, 1.0).compile(), state


def table(plan: plans.Plan) -> str:
    """A row for each phase."""
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


def main(argv: list[str]) -> None:
    """Prints the table, or one line that says what is wrong with the recipe."""
    recipe_flags.prepare(argv)
    files.keep_compiled()
    try:
        settings = rules.parse(recipe_flags.CONFIG.value)
        print(table(assembled(settings, CLASSES.value)))
    except ValueError as error:
        recipe_flags.fail(error)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=recipe_flags.parse)
