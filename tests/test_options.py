"""Options of methods, heads, backbones, augmentations, schedules and data sources: one checker."""

import inspect
from typing import Annotated, Literal

import pytest

from fgc_jax import config, data, methods, models
from fgc_jax.config import limits
from fgc_jax.data import augment
from fgc_jax.training import schedules

TABLES = {
    "method": {name: entry.make for name, entry in methods.METHODS.items()},
    "head": models.HEADS,
    "backbone": {name: row.adapt for name, row in models.BACKBONES.items()},
    "augmentation": augment.OPS,
    "schedule": schedules.SCHEDULES,
    "data": data.DATASETS,
}
NEEDED = {"crop": {"size": 8}, "csv": {"label_column": 1}, "inaturalist": {"year": 2021}}


@pytest.mark.parametrize("table", TABLES)
def test_every_option_says_what_it_may_be_and_so_does_its_default(table):
    for name, function in TABLES[table].items():
        checked = config.options(function, NEEDED.get(name, {}), f"{name}: ")
        code = function.__init__ if inspect.isclass(function) else function
        parameters = inspect.signature(code).parameters.values()
        keywords = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
        assert checked.keys() == keywords - {"rngs", "tfds_name"}, name


@pytest.mark.parametrize(
    ("table", "name", "option", "value", "message"),
    [
        ("head", "bilinear", "projection", -1, "a whole number at least 0"),
        ("head", "gap", "pool", "max", "'avg' or 'avgmax'"),
        ("head", "gap", "dropout", 1.0, "a number at least 0 and below 1"),
        ("head", "gap", "mlp", 1, "True or False"),
        ("head", "compact_bilinear", "dimension", 0, "a whole number at least 1"),
        ("head", "compact_bilinear", "seed", -1, "a whole number at least 0"),
        ("head", "isqrt_cov", "iterations", 0, "a whole number at least 1"),
        ("head", "low_rank_bilinear", "rank", 3, "a whole number at least 2 and even"),
        ("head", "pmg", "test", "mean", "'concat' or 'sum'"),
        ("head", "pmg", "hidden", 0, "a whole number at least 1"),
        ("head", "cross_x", "parts", 1, "a whole number at least 2"),
        ("head", "cross_x", "low_pool", "sum", "'avg' or 'max'"),
        ("head", "glsim", "top", 0, "a whole number at least 1"),
        ("head", "pim", "selects", (8, 0), "a tuple, each a whole number at least 1"),
        ("head", "attention_pooling", "maps", 0, "a whole number at least 1"),
        ("method", "api_net", "margin", -0.1, "a number from 0 to 1"),
        ("method", "api_net", "ranking_weight", float("nan"), "a number at least 0"),
        ("method", "pairwise_confusion", "confusion_weight", 0.0, "a number above 0"),
        ("method", "transfg", "margin", 1.0, "a number at least -1 and below 1"),
        ("method", "transfg", "label_smoothing", 1.0, "a number at least 0 and below 1"),
        ("method", "pim", "lambda_c", 0.0, "a number above 0"),
        ("method", "pim", "lambda_n", -1.0, "a number at least 0"),
        ("method", "herbs", "halve_every", 0, "a whole number at least 1"),
        ("method", "dcl", "tiles", 1, "a whole number at least 2"),
        ("method", "dcl", "swap_weight", -1.0, "a number at least 0"),
        ("method", "pmg", "tiles", (8, 1), "a tuple, each a whole number at least 2"),
        ("method", "pmg", "concat_weight", 0.0, "a number above 0"),
        ("method", "cross_x", "gamma_low", -0.1, "a number at least 0"),
        ("method", "wsdan", "crop_threshold", (0.6, 0.4), "2 entries in ascending order, each"),
        ("method", "wsdan", "drop_threshold", (0.5,), "2 entries in .* each a number from 0 to 1"),
        ("method", "wsdan", "centre_rate", 0.0, "a number above 0 and at most 1"),
        ("schedule", "step", "milestones", "50 %", "a tuple"),
        ("schedule", "step", "factor", 2, "a number from 1e-06 to 1"),
        ("schedule", "step", "every", 30, "one of 'N steps'"),
        ("schedule", "cosine", "final", "0", "a number"),
        ("schedule", "cosine", "final", True, "a number"),
        ("schedule", "one_cycle", "div", 0.5, "at least 1"),
        ("schedule", "one_cycle", "final", float("inf"), ""),
        ("schedule", "one_cycle", "momenta", (0.9,), "2 entries"),
        ("schedule", "one_cycle", "momenta", (0.9, 1.0), "2 entries"),
        ("schedule", "plateau", "patience", 1.5, "a whole number"),
        ("schedule", "exponential", "factor", 0, "a number"),
        ("data", "aircraft", "level", ["variant"], "'variant' or 'family' or 'manufacturer'"),
        ("data", "aircraft", "train_split", "test", "'train' or 'trainval'"),
        ("data", "cub2010", "layout", "2010", "'auto' or 'official' or 'homework'"),
        ("data", "synthetic_birds", "train_per_class", 0, "a whole number at least 1"),
        ("data", "synthetic_birds", "size", 16, "a whole number at least 32"),
        ("data", "synthetic_birds", "seed", -1, "a whole number at least 0"),
        ("data", "csv", "box_origin", 2, "0 or 1"),
        ("data", "aircraft", "level", "plane", "'variant' or 'family' or 'manufacturer'"),
        ("data", "synthetic_birds", "species", 33, "a whole number from 2 to 32"),
        ("data", "csv", "box_columns", ("x", "y"), "None or a tuple of 4 entries, each a"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(table, name, option, value, message):
    with pytest.raises(ValueError, match=f"^at.{option}=.* must be .*{message}"):
        config.options(TABLES[table][name], {**NEEDED.get(name, {}), option: value}, "at.")


def sample(
    positional: int,
    *,
    count: limits.Count,
    rate: limits.Rate = 0.5,
    way: Literal["up", "down"] = "up",
    pair: tuple[()] | tuple[float, float] = (),
    few: Annotated[tuple[int, ...], limits.lengths(0, 2)] = (),
    how_long: config.Duration = "1 epochs",
    note: str | None = None,
    rngs=None,
):
    """No option: what is positional, and what has no annotation."""


def test_options_are_complete_and_typed():
    found = config.options(sample, {"count": 2, "rate": 0, "pair": [1, 2], "few": (1, 2)}, "")
    assert found == {
        "count": 2,
        "rate": 0.0,
        "way": "up",
        "pair": (1.0, 2.0),
        "few": (1, 2),
        "how_long": config.Duration("1 epochs", 1.0, "epoch"),
        "note": None,
    }
    assert isinstance(found["rate"], float)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "at.count must be given"),
        ({"count": 1, "wy": "up"}, "at.wy is unknown: did you mean 'way'.*'count', 'rate'"),
        ({"count": 1, "rngs": 1}, "at.rngs is unknown"),
        ({"count": 1, "positional": 1}, "at.positional is unknown"),
        ({"count": True}, "at.count=True must be a whole number at least 1"),
        ({"count": 1.0}, "at.count=1.0 must be a whole number"),
        ({"count": 1, "rate": float("inf")}, "at.rate=inf must be a number"),
        (
            {"count": 1, "pair": (1,)},
            r"at.pair=\(1,\) must be \(\) or a tuple of 2 entries, each a number",
        ),
        (
            {"count": 1, "few": (1, 2, 3)},
            "at.few=.* a tuple with 0 or 2 entries, each a whole number",
        ),
        ({"count": 1, "how_long": "2 years"}, "at.how_long='2 years' must be one of 'N steps'"),
        ({"count": 1, "note": 1}, "at.note=1 must be None or a text"),
    ],
)
def test_what_cannot_be_read_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        config.options(sample, given, "at.")


@pytest.mark.parametrize(
    ("language", "text", "parts"),
    [
        (config.Average, "", {}),
        (config.Average, "ema 0.999", {"kind": "ema", "decay": 0.999}),
        (config.Average, "swa 12", {"kind": "swa", "epochs": 12}),
        (config.Layers, "head", {"kind": "head"}),
        (config.Layers, "last 3", {"kind": "last", "count": 3}),
        (config.Layers, "from layer4/0", {"kind": "from", "layer": "layer4/0"}),
        (config.NewLayers, "all", {"kind": "all"}),
        (config.Duration, "1.5 epochs", {"number": 1.5, "unit": "epoch"}),
        (config.Duration, "1 step", {"number": 1.0, "unit": "step"}),
        (config.Duration, "30%", {"number": 30.0, "unit": "%"}),
        (config.Sampling, "balanced", {"kind": "balanced"}),
        (config.Sampling, "4 classes x 8", {"kind": "classes", "classes": 4, "images": 8}),
        (config.FeatureMaps, "stage3+features", {"names": ("stage3", "features")}),
        (config.Weights, "", {}),
        (config.Weights, "a:b/c.pth", {"name": "a:b/c.pth"}),
        (config.Weights, "package:birds", {"kind": "package", "name": "birds"}),
        (config.Weights, "hub:a/b@v2", {"kind": "hub", "name": "a/b", "revision": "v2"}),
        (config.Monitor, "val_average_loss", {"source": "val_average", "metric": "loss"}),
    ],
)
def test_texts_are_taken_apart_and_put_together_again(language, text, parts):
    found = language.parse(text)
    assert found == language(text, **parts)
    assert str(found) == text and bool(found) == bool(text)


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        (config.Average, ("ema", "ema 1", "ema 0.0", "swa 1", "swa 0", "swa 2.5", "mean 3")),
        (config.Layers, ("", "last", "last 0", "from", "from a b", "All")),
        (config.NewLayers, ("head", "bias", "lora")),
        (config.Duration, ("5", "epochs", "-1 epochs", "1 e", "1e3 steps")),
        (config.Sampling, ("", "random", "0 classes x 4", "4 classes", "4 classes x 0")),
        (config.FeatureMaps, ("a+a",)),
        (config.Monitor, ("val", "loss", "test_loss", "val_top5")),
    ],
)
def test_other_texts_are_refused(language, texts):
    assert [language.parse(text) for text in texts] == [None] * len(texts)
