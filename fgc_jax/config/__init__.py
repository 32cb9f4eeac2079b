"""What a config may hold: the settings of a run, the options of a function, what each may be.

`limits` are what annotations say beyond a type. Nothing here knows of a network, a method or a data
set: names of those, and rules between keys, are checked by `fgc_jax.training.rules`, whose `parse`
is what commands call.
"""

from fgc_jax.config.fields import defaults, options, read
from fgc_jax.config.languages import (
    NO_AVERAGE,
    Average,
    Duration,
    FeatureMaps,
    Layers,
    Monitor,
    NewLayers,
    Sampling,
    Weights,
)
from fgc_jax.config.settings import (
    DataSettings,
    ModelSettings,
    Phase,
    ResizeMode,
    Seed,
    Settings,
    SplitName,
    parse,
    resolved,
    with_changes,
)

__all__ = (
    "NO_AVERAGE",
    "Average",
    "DataSettings",
    "Duration",
    "FeatureMaps",
    "Layers",
    "ModelSettings",
    "Monitor",
    "NewLayers",
    "Phase",
    "ResizeMode",
    "Seed",
    "Sampling",
    "Settings",
    "SplitName",
    "Weights",
    "defaults",
    "options",
    "parse",
    "read",
    "resolved",
    "with_changes",
)
