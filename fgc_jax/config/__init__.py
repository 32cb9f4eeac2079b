"""The keys and allowed values of a config: the settings of a run and the options of functions.

`limits` restrict an annotated type, for example to a range. This package imports no networks,
methods or data sets: `fgc_jax.training.rules` checks their names and the rules between keys.
Commands call its function `parse`.
"""
# ruff: noqa: F401  (these are its names for the rest of the project)

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
from fgc_jax.config.views import ViewSpec
