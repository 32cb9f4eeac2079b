"""Changing the learning rate of a running training by hand: `WORKDIR/override.json`.

`{"phase": "features", "lr": 1e-4}` replaces the `lr` of that phase from its next epoch on. Schedule
and multipliers still apply to it. When the file is removed, the config's value is used again.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from fgc_jax import console, mesh

FILE = "override.json"
HIGHEST = 3e38  # of float32


def read(workdir: Path, names: Sequence[str], name: str, lr: float) -> float | None:
    """The learning rate that the file sets for the phase `name`; None if it sets none. `names` are
    those of all phases; `lr` is the phase's own rate.

    Raises:
        ValueError: the file is not JSON, or contains an unknown phase or key or a wrong rate.
    """
    path = workdir / FILE
    try:
        wanted = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(wanted, dict) or set(wanted) != {"phase", "lr"}:
        raise ValueError(f'{path} must be {{"phase": NAME, "lr": NUMBER}}, not {wanted!r}')
    if wanted["phase"] not in names:
        raise ValueError(f"{path}: unknown phase {wanted['phase']!r}; the run has {list(names)}")
    rate = wanted["lr"]
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= HIGHEST:
        raise ValueError(f"{path}: lr={rate!r} must be a number from 0 to {HIGHEST:g}")
    if wanted["phase"] != name:
        return None
    if lr == 0:
        raise ValueError(f"{path}: phase {name!r} has lr=0, which cannot be changed")
    return float(rate)


def agreed(
    workdir: Path, names: Sequence[str], name: str, lr: float, now: float | None
) -> float | None:
    """The result of `read` by the first process, on every process: otherwise some might read the
    file before an edit and some after it. A wrong file is reported, and the rate `now` stays."""
    rate = now
    if mesh.is_first_process():
        try:
            rate = read(workdir, names, name, lr)
        except ValueError as error:
            console.say(f"ignored: {error}")
    rate = mesh.of_first_process(math.nan if rate is None else rate)
    return None if math.isnan(rate) else rate
