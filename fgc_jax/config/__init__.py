"""What a config may hold: the settings of a run, the options of a function, what each may be.

Nothing here knows of a network, a method or a data set: names of those, and rules between keys, are
checked by `fgc_jax.training.rules`, whose `parse` is what commands call.
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
from fgc_jax.config.limits import (
    Count,
    NotNegative,
    Positive,
    Rate,
    Share,
    above,
    at_least,
    at_most,
    below,
    between,
    interval,
    lengths,
    rule,
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
)

__all__ = (
    "NO_AVERAGE",
    "Average",
    "Count",
    "DataSettings",
    "Duration",
    "FeatureMaps",
    "Layers",
    "ModelSettings",
    "Monitor",
    "NewLayers",
    "NotNegative",
    "Phase",
    "Positive",
    "Rate",
    "ResizeMode",
    "Seed",
    "Sampling",
    "Settings",
    "Share",
    "SplitName",
    "Weights",
    "above",
    "at_least",
    "at_most",
    "below",
    "between",
    "defaults",
    "interval",
    "lengths",
    "options",
    "parse",
    "read",
    "resolved",
    "rule",
)
