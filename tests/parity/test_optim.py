"""Schedules, averages of the weights and optimisers against PyTorch's over the steps of a phase;
LAMB, and which parameters decay, against timm's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import timm
import torch
from timm.optim import Lamb, param_groups_weight_decay
from torch.optim import lr_scheduler, swa_utils

from configs import common
from fgc_jax import config, models, trees
from fgc_jax.runs import progress
from fgc_jax.training import averaging, optim, schedules, trainable
from tests import seeded
from tests.parity import oracles

STEPS, PER_EPOCH, LR = 24, 6, 0.1
ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}


def make_phase(**changes) -> config.Phase:
    phase = common.phase("test", **{"lr": LR, "epochs": STEPS // PER_EPOCH, **changes}).to_dict()
    return config.read(config.Phase, phase, "phase")


def torch_rates(build) -> np.ndarray:
    """The learning rate of each step under the scheduler `build(optimizer)`."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
    scheduler, found = build(optimizer), []
    for _ in range(STEPS):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return np.array(found)


def behind_warmup(steps, rest):
    """PyTorch's linear warm-up from lr / steps, then `rest(optimizer)`."""

    def build(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, 1 / steps, total_iters=steps - 1)
        return lr_scheduler.SequentialLR(optimizer, [rise, rest(optimizer)], [steps])

    return build


SCHEDULES = {
    "constant with warm-up": (
        {"warmup": "1 epochs"},
        lambda o: lr_scheduler.LinearLR(o, 1 / 6, total_iters=5),
    ),
    "cosine": (
        {"schedule": "cosine", "schedule_options": {"final": 0.05}},
        lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.05 * LR),
    ),
    "cosine with warm-up": (
        {"schedule": "cosine", "warmup": "25 %"},
        behind_warmup(6, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS - 6)),
    ),
    "one_cycle": (
        {"schedule": "one_cycle"},
        lambda o: lr_scheduler.OneCycleLR(o, LR, STEPS, final_div_factor=1000),
    ),
    "one_cycle, other numbers": (
        {
            "schedule": "one_cycle",
            "schedule_options": {"peak": "0.5 epochs", "div": 10.0, "final": 500.0},
        },
        lambda o: lr_scheduler.OneCycleLR(
            o, LR, STEPS, pct_start=0.125, div_factor=10, final_div_factor=50
        ),
    ),
    "step": (
        {"schedule": "step", "schedule_options": {"every": "7 steps"}},
        lambda o: lr_scheduler.StepLR(o, 7),
    ),
    "milestones": (
        {
            "schedule": "step",
            "schedule_options": {"milestones": ("1.5 epochs", "75 %"), "factor": 0.3},
        },
        lambda o: lr_scheduler.MultiStepLR(o, [9, 18], 0.3),
    ),
    "exponential": (
        {"schedule": "exponential", "schedule_options": {"factor": 0.9, "every": "1 steps"}},
        lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    ),
    "exponential with warm-up": (
        {
            "schedule": "exponential",
            "schedule_options": {"factor": 0.9, "every": "2 epochs"},
            "warmup": "4 steps",
        },
        behind_warmup(4, lambda o: lr_scheduler.ExponentialLR(o, 0.9 ** (1 / 12))),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_equal_pytorchs(name):
    changes, build = SCHEDULES[name]
    schedule = schedules.build(make_phase(**changes), PER_EPOCH)
    got = np.asarray(jax.vmap(schedule.rate)(np.arange(STEPS)))
    # Of the peak: PyTorch's own cosine recursion loses that much at the end of a fall to zero.
    np.testing.assert_allclose(got, torch_rates(build), rtol=1e-5, atol=1e-7 * LR)


OPTIMISERS = {
    "sgd": ({"optimizer": "sgd"}, torch.optim.SGD, {"momentum": 0.9}),
    "sgd without momentum": ({"optimizer": "sgd", "momentum": 0.0}, torch.optim.SGD, {}),
    "nesterov": (
        {"optimizer": "sgd", "nesterov": True},
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True},
    ),
    "adam": ({"optimizer": "adam"}, torch.optim.Adam, ADAM),
    "adamw": ({"optimizer": "adamw"}, torch.optim.AdamW, ADAM),
    # timm clips within LAMB where it is not told otherwise.
    "lamb": ({"optimizer": "lamb"}, Lamb, {"betas": (0.9, 0.999), "max_grad_norm": None}),
}
SHAPES = {"backbone/kernel": (5, 4), "backbone/bias": (4,), "head/kernel": (4, 3)}
FACTORS = {"backbone/kernel": 0.25, "backbone/bias": 0.25, "head/kernel": 1.0}
LABELS = {path: trainable.Label("all", factor) for path, factor in FACTORS.items()}


def gradient(weights: dict, number: int) -> dict:
    """Of a loss with a minimum, different at each step; small for the bias."""
    rng = np.random.default_rng(number)
    return {
        path: (weight - 1 + rng.normal(size=weight.shape)) * (0.01 if weight.ndim == 1 else 1)
        for path, weight in sorted(weights.items())
    }


def start() -> dict:
    rng = np.random.default_rng(0)
    weights = {path: rng.normal(size=shape) for path, shape in SHAPES.items()}
    return weights | {"backbone/bias": np.zeros(4)}  # as at the start of training


def ours(phase) -> list[dict]:
    """The weights after each step, float32."""
    schedule = schedules.build(phase, PER_EPOCH)
    optimizer = optim.make(phase, schedule, LABELS)
    tree = trees.unflatten({path: jnp.float32(weight) for path, weight in start().items()})
    state, found = optimizer.init(tree), []

    @jax.jit
    def step(tree, state, grads, number):
        updates, state = optimizer.update(grads, state, tree)
        updates = optax.tree.scale(schedule.rate(number), updates)
        return optax.apply_updates(tree, updates), state

    for number in range(STEPS):
        grads = gradient({p: np.float64(w) for p, w in trees.flatten(tree).items()}, number)
        grads = trees.unflatten({path: jnp.float32(grad) for path, grad in grads.items()})
        tree, state = step(tree, state, grads, number)
        found.append({path: np.asarray(weight) for path, weight in trees.flatten(tree).items()})
    return found


def theirs(kind, options, *, decay, spared=(), one_cycle=False, clip=0.0) -> list[dict]:
    """The weights after each step in float64; `spared` do not decay."""
    weights = {path: torch.nn.Parameter(torch.tensor(w)) for path, w in start().items()}
    groups = [
        {
            "params": [weight],
            "lr": LR * FACTORS[path],
            "weight_decay": 0.0 if path in spared else decay,
        }
        for path, weight in weights.items()
    ]
    optimizer = kind(groups, lr=LR, **options)
    rates = [group["lr"] for group in groups]
    scheduler = None
    if one_cycle:
        scheduler = lr_scheduler.OneCycleLR(optimizer, rates, STEPS, final_div_factor=1000)
    found = []
    for number in range(STEPS):
        grads = gradient({path: w.detach().numpy() for path, w in weights.items()}, number)
        for path, weight in weights.items():
            weight.grad = torch.tensor(grads[path])
        if clip:
            torch.nn.utils.clip_grad_norm_(weights.values(), clip)
        optimizer.step()
        if scheduler:
            scheduler.step()
        found.append({path: w.detach().numpy().copy() for path, w in weights.items()})
    return found


def compare(found, expected):
    assert len(found) == len(expected) == STEPS
    for number, (ours_, theirs_) in enumerate(zip(found, expected, strict=True)):
        for path, weight in theirs_.items():
            np.testing.assert_allclose(
                ours_[path], weight, rtol=2e-4, atol=2e-5, err_msg=f"{path} after step {number}"
            )


@pytest.mark.parametrize("one_cycle", [False, True], ids=["constant", "one_cycle"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_equal_pytorchs(name, one_cycle):
    """With weight decay and two learning rates; the cycle moves momentum and beta1 too."""
    changes, kind, options = OPTIMISERS[name]
    cycle = {}
    if one_cycle:
        cycle = {"schedule": "one_cycle", "momentum": 0.9}
        options = {"momentum": 0.9, **options} if kind is torch.optim.SGD else options
    phase = make_phase(**{**changes, **cycle}, weight_decay=0.05)
    compare(ours(phase), theirs(kind, options, decay=0.05, one_cycle=one_cycle))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb"])
def test_vectors_that_do_not_decay(name):
    changes, kind, options = OPTIMISERS[name]
    phase = make_phase(**changes, weight_decay=0.05, decay_norm_and_bias=False)
    compare(ours(phase), theirs(kind, options, decay=0.05, spared=("backbone/bias",)))


def test_lamb_without_decay_adapts_everything():
    changes, kind, options = OPTIMISERS["lamb"]
    options = {**options, "always_adapt": True}
    compare(ours(make_phase(**changes)), theirs(kind, options, decay=0.0))


def test_clipping_equals_pytorchs():
    changes, kind, options = OPTIMISERS["sgd"]
    phase = make_phase(**changes, clip_norm=0.7, weight_decay=0.05)
    compare(ours(phase), theirs(kind, options, decay=0.05, clip=0.7))


@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "convnextv2_atto"]
)
def test_what_decays_is_what_timm_lets_decay(name):
    theirs_ = timm.create_model(name, num_classes=10)
    groups = param_groups_weight_decay(theirs_, weight_decay=0.1)
    names = {key: id(x) for key, x in theirs_.named_parameters()}
    decays = {id(x): group["weight_decay"] > 0 for group in groups for x in group["params"]}
    model = models.split(models.abstract(seeded.config(name), 10))[0]
    found = trees.flatten(optim._decays(model))
    for key, path in oracles.paths(name, model).items():
        assert found[path] == decays[names[key]], key


def test_plateau_equals_pytorchs():
    """Scores that rise, stay and fall by chance, in all orders, for several patiences."""
    rng = np.random.default_rng(0)
    for patience in (0, 1, 3):
        scores = rng.integers(0, 8, 60).astype(float)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
        scheduler = lr_scheduler.ReduceLROnPlateau(
            optimizer, "max", factor=0.5, patience=patience, threshold=0.0, min_lr=0, eps=0
        )
        run, reductions = progress.Progress(), 0
        for number, score in enumerate(scores):
            scheduler.step(score)
            better = run.end_epoch(number, score, {})
            reductions += run.end_plateau_epoch(better, 0.5, patience)
            assert LR * run.lr_scale(LR) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12)
        assert reductions > 5


def walk(kind):
    """[12, 3] weights along a training, and PyTorch's average of them, begun with the first."""
    weights = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32).cumsum(0)
    module = torch.nn.Linear(3, 1, bias=False)
    averaged = kind(module)
    found = []
    for row in weights:
        module.weight.data = torch.tensor(row[None])
        averaged.update_parameters(module)
        found.append(averaged.module.weight.detach().numpy()[0].copy())
    return weights, np.array(found)


def test_ema_equals_pytorchs():
    # At such a decay the ramp of the first steps, which PyTorch lacks, does not show.
    weights, expected = walk(
        lambda module: swa_utils.AveragedModel(
            module, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.1)
        )
    )
    kept = averaging.start("ema 0.1", weights[0], {})
    for done, (row, wanted) in enumerate(zip(weights[1:], expected[1:], strict=True)):
        kept = averaging.after_step(config.Average.parse("ema 0.1"), kept, row, {}, jnp.int32(done))
        np.testing.assert_allclose(kept["params"], wanted, rtol=1e-6)


def test_swa_equals_pytorchs():
    weights, expected = walk(swa_utils.AveragedModel)
    phase = make_phase(average="swa 12", epochs=14)  # the mean of the last 12
    kept = averaging.start("swa 12", np.full(3, np.nan, np.float32), {})["params"]
    epochs = np.concatenate([weights[:2] + 9, weights])  # two before, which do not count
    wanted = np.concatenate([epochs[:2], expected])
    for epoch, (row, mean) in enumerate(zip(epochs, wanted, strict=True), start=1):
        kept = averaging.mean_of_weights(kept, row, averaging.swa_count(phase, epoch))
        np.testing.assert_allclose(kept, mean, rtol=1e-5)
