"""Devices: the data-parallel mesh, its shardings, and arrays moved from the host to the devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def join_cluster(where: str) -> None:
    """Connects the processes of one command. `where` is "auto" under Slurm, Open MPI, Kubernetes or
    on TPUs, else "COORDINATOR_HOST:PORT,NUMBER_OF_PROCESSES,INDEX_OF_THIS_PROCESS"; "" for a single
    process. Call it before any other function of JAX.

    Raises:
        ValueError: `where` is none of these.
    """
    if where == "auto":
        jax.distributed.initialize()
    elif where:
        try:
            address, count, index = where.split(",")
            cluster = (address, int(count), int(index))
        except ValueError:
            raise ValueError(
                f"--multi_host={where!r} must be 'auto' or HOST:PORT,COUNT,INDEX"
            ) from None
        jax.distributed.initialize(*cluster)


def is_first_process() -> bool:
    """Whether this is the process that writes and prints. The call does not initialise devices: a
    command that only starts other commands must leave the devices to them."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def make() -> Mesh:
    """A one-axis mesh over all devices of all processes.

    `Mesh` has Auto axes, unlike `jax.make_mesh`, so ordinary gathers and permutations over the
    batch need no sharding annotations.
    """
    return Mesh(np.array(jax.devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Each device has the complete array."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """Axis 0 (the batch) is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_global(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's share of a batch -> global arrays, split over the devices of all processes."""
    sharding = sharded(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def replicate(mesh: Mesh, tree):
    """Copies a tree of host or device arrays completely to each device, into new buffers.

    Without the copy, jit would return the buffers of its inputs, and a step that donates its
    arguments would delete them.
    """
    copy = jax.jit(lambda leaves: jax.tree.map(jnp.copy, leaves), out_shardings=replicated(mesh))
    return copy(tree)


def gather(tree):
    """The complete values of global arrays as NumPy arrays, on each process."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    from jax.experimental import multihost_utils

    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def of_first_process(number: float) -> float:
    """Process 0's `number`, as a float32, on every process. For decisions that one process makes
    for all."""
    if jax.process_count() == 1:
        return float(np.float32(number))
    from jax.experimental import multihost_utils

    return float(multihost_utils.broadcast_one_to_all(np.float32(number)))


def check_batch_size(name: str, batch_size: int) -> None:
    """Raises ValueError unless a global batch can be split evenly over the devices."""
    if batch_size % jax.device_count():
        raise ValueError(
            f"{name}={batch_size} cannot be split evenly over {jax.device_count()} devices: "
            f"use a multiple of {jax.device_count()}"
        )
