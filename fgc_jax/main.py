"""The command line: `python -m fgc_jax.main --config=configs/NAME.py --workdir=DIR`."""

import sys

from absl import app, flags

from fgc_jax import files
from fgc_jax.cli import recipe_flags

WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run directory. If it holds this run already, the run continues."
)
MULTI_HOST = flags.DEFINE_string(
    "multi_host",
    "",
    "Join the other processes of this run: 'auto' under Slurm, Open MPI, Kubernetes or on TPUs, "
    "else COORDINATOR_HOST:PORT,NUMBER_OF_PROCESSES,INDEX_OF_THIS_ONE.",
)
flags.adopt_module_key_flags(recipe_flags)


def main(argv: list[str]) -> None:
    """Reads the flags, trains, and turns errors into one line and an exit code."""
    recipe_flags.prepare(argv)
    files.keep_compiled()
    from fgc_jax import mesh, train
    from fgc_jax.runs import checkpoint, meter, stop

    checkpoint.mute_leftover_writes()
    try:
        mesh.join_cluster(MULTI_HOST.value)
        train.run(recipe_flags.CONFIG.value, WORKDIR.value)
    except stop.Stopped as stopped:
        print(f"{stopped}; the same command continues the run", file=sys.stderr)
        sys.exit(143)  # as after an unhandled SIGTERM, so that schedulers see an unfinished job
    except (ValueError, OSError, meter.NonFiniteLoss, checkpoint.CheckpointError) as error:
        recipe_flags.fail(error)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=recipe_flags.parse)
