"""The losses against their formulas in NumPy, and in train steps of a network of one layer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import common
from fgc_jax import mesh, methods, models, trees
from fgc_jax.data import augment, dataset
from fgc_jax.methods import losses
from fgc_jax.models.backbone import timm_facts
from fgc_jax.models.network import Network
from fgc_jax.training import classification, inputs, phases, plans, rules, step

NAMES = ("gull", "tern", "wren")
COUNTS = (6, 3, 1)
WEIGHTS = 10 / (3 * np.array(COUNTS))
FACTS = methods.Facts(
    class_names=NAMES,
    class_counts=COUNTS,
    preprocess=timm_facts(norm=((0.5,) * 3, (0.25,) * 3), size=8, crop=1.0),
    shapes=(),
    load_run=None,
)
LOSSES = {
    "cross_entropy": {},
    "smoothed": {"label_smoothing": 0.3},
    "focal": {"loss": "focal", "focal_gamma": 2.0},
    "focal, smoothed": {"loss": "focal", "focal_gamma": 0.5, "label_smoothing": 0.3},
    "bce": {"loss": "bce"},
    "bce, smoothed": {"loss": "bce", "label_smoothing": 0.3},
}


def make_batch(rows=5, mixed=False, masked=True):
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(rows, 4, 4, 3)).astype(np.float32),
        "label": rng.integers(0, 3, rows).astype(np.int32),
        "mask": np.float32([1, 0, 1, 1, 1])[:rows] if masked else np.ones(rows, np.float32),
    }
    if mixed:
        batch["label_b"] = rng.integers(0, 3, rows).astype(np.int32)
        batch["weight"] = rng.uniform(size=rows).astype(np.float32)
    return batch


def of_five_classes(images, mask, mixed=False):
    """A batch of 3 or 4 images; `mixed`: as if each were mixed with one of another class."""
    labels = jnp.array([0, 3, 1, 4][: len(images)])
    batch = {"image": jnp.asarray(images), "label": labels, "mask": jnp.asarray(mask, jnp.float32)}
    if mixed:
        weight = jnp.linspace(0.2, 0.9, len(images))
        batch |= {"label_b": (labels + 1) % 5, "weight": weight}
    return batch


def goal_of(batch, i, classes=3):
    """What the network should say of image i: float64 [classes]."""
    goal = np.eye(classes)[batch["label"][i]]
    if "label_b" not in batch:
        return goal
    share = np.float64(batch["weight"][i])
    return share * goal + (1 - share) * np.eye(classes)[batch["label_b"][i]]


def expected(logits, batch, options, weighted):
    """The loss by its formula, image after image and class after class."""
    values, counted = [], []
    smoothing = options.get("label_smoothing", 0)
    for i, row in enumerate(np.float64(logits)):
        goal = goal_of(batch, i)
        weights = WEIGHTS if weighted else np.ones(3)
        counted.append(batch["mask"][i] * goal @ weights)
        goal_now = (1 - smoothing) * goal + smoothing / 3
        value = 0
        for k in range(3):
            if options.get("loss") == "bce":
                yes = 1 / (1 + np.exp(-row[k]))
                cost = goal_now[k] * np.log(yes) + (1 - goal_now[k]) * np.log(1 - yes)
                value -= cost / 3 * (goal @ weights)
            else:
                p = np.exp(row[k]) / np.exp(row).sum()
                modulation = (1 - p) ** options.get("focal_gamma", 0)
                value -= weights[k] * goal_now[k] * modulation * np.log(p)
        values.append(batch["mask"][i] * value)
    return np.sum(values) / np.sum(counted)


def call(method, model, batch, *, number=0, seed=0, state=None):
    """(value, report) of one of the method's losses, for any `model(images, rngs=...)`."""
    state = method.state if state is None else state
    return method.losses[number](model, batch, jax.random.key(seed), state, method.constants)


def answering(logits, **out):
    """A model that answers this to whatever it sees."""
    return lambda images, rngs: (logits, out)


def of_labels(options, batch, logits):
    """(value, report) of the plain method."""
    return call(methods.build("plain", options, FACTS), answering(logits), batch)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_their_formulas(name, weighted, mixed):
    options = LOSSES[name] | {"class_weights": "balanced" if weighted else ""}
    batch = make_batch(mixed=mixed)
    logits = np.random.default_rng(1).normal(0, 3, (5, 3)).astype(np.float32)
    value, report = of_labels(options, batch, logits)
    np.testing.assert_allclose(value, expected(logits, batch, options, weighted), rtol=1e-5)
    assert report.outputs.keys() == {"logits"} and not report.scalars and report.state is None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_masked_rows_count_for_nothing(name, weighted):
    options = LOSSES[name] | {"class_weights": "balanced" if weighted else ""}
    logits = np.random.default_rng(1).normal(0, 3, (5, 3)).astype(np.float32)
    batch = make_batch(mixed=True)
    valid = batch["mask"] > 0
    value, _ = of_labels(options, batch, logits)
    alone, _ = of_labels(options, {k: v[valid] for k, v in batch.items()}, logits[valid])
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    nothing = {**batch, "mask": np.zeros(5, np.float32)}
    assert float(of_labels(options, nothing, logits)[0]) == 0


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_focal_has_a_finite_gradient_where_the_network_is_sure(gamma):
    logits = np.float32([[80, 0, 0], [0, 80, 0], [17, 0, 0], [0.1, 0, 0]])
    goal = np.eye(3, dtype=np.float32)[[0, 0, 0, 0]]

    def total(logits):
        return losses.focal(logits, goal, gamma).sum()

    gradient = np.asarray(jax.grad(total)(logits))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[0], 0, atol=1e-6)
    np.testing.assert_allclose(gradient[1], [-1, 1, 0], atol=1e-6)  # as cross-entropy's
    p = np.exp(0.1) / (np.exp(0.1) + 2)
    by_hand = (gamma * (1 - p) ** gamma * p * np.log(p)) - (1 - p) ** (gamma + 1)
    np.testing.assert_allclose(gradient[3, 0], by_hand, rtol=1e-5)


def test_balanced_weights_let_classes_count_the_same():
    weights = losses.balanced_weights(COUNTS)
    np.testing.assert_allclose(weights, WEIGHTS, rtol=1e-6)
    np.testing.assert_allclose(weights * COUNTS, [10 / 3] * 3, rtol=1e-6)


def test_distillation_is_its_formula_and_spares_the_teacher():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 3, (2, 5, 3)).astype(np.float32)
    temperature = 4.0
    given, wanted = (np.exp(np.float64(x) / temperature) for x in (student, teacher))
    given, wanted = (x / x.sum(-1, keepdims=True) for x in (given, wanted))
    by_hand = temperature**2 * (wanted * np.log(wanted / given)).sum(-1)
    got = losses.distillation(student, teacher, temperature)
    np.testing.assert_allclose(got, by_hand, rtol=1e-5)

    def total(student, teacher):
        return losses.distillation(student, teacher, temperature).sum()

    to_student, to_teacher = jax.grad(total, (0, 1))(student, teacher)
    np.testing.assert_allclose(to_student, temperature * (given - wanted), atol=1e-5)
    assert not np.asarray(to_teacher).any()
    np.testing.assert_allclose(losses.distillation(teacher, teacher, 2.0), np.zeros(5), atol=1e-6)


class OneLayer(nnx.Module):
    """The smallest classifier: a linear layer of the mean colour."""

    def __init__(self):
        self.fc = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

    def __call__(self, images, *, rngs=None):
        return self.fc(images.mean((1, 2))), {}


@dataclasses.dataclass(frozen=True)
class Stepped:
    before: dict
    after: step.TrainState
    metrics: dict


def network_of(model, preprocess=None) -> Network:
    """A model of one layer, `fc`, as a plan holds it."""
    return Network(None, model, *models.split(model), {"fc": ("fc",)}, preprocess)


def one_step(method, batch, **phase) -> Stepped:
    """Of plain SGD with a rate of 0.1, on a batch that is not augmented."""
    recipe, network = common.get_config(), network_of(OneLayer())
    recipe.phases = (common.phase("test", lr=0.1, momentum=0.0, **phase),)
    classes = dataset.Dataset("none", NAMES, {})
    plan = plans.Plan(rules.parse(recipe), classes, network, mesh.make())
    given = inputs.Inputs({}, network, None, None, augment=lambda key, batch: batch)
    task = classification.task(plan)
    prepared = phases.prepare(plan, 0, method, task, given=given, steps_per_epoch=1)
    before = jax.tree.map(np.array, network.params)
    state = prepared.first_state(network.params, network.stats)
    after, metrics = prepared.step(state, batch, method.constants, np.float32(1))
    return Stepped(before, after, jax.tree.map(np.asarray, metrics))


@pytest.fixture(scope="module")
def mixed():
    """A batch as augmentation mixes it on the device."""
    batch = make_batch()
    batch["image"] = np.random.default_rng(2).integers(0, 256, (5, 8, 8, 3), np.uint8)
    batch = jax.jit(augment.build((("mixup_or_cutmix", {}),)))(jax.random.key(0), batch)
    return jax.tree.map(np.asarray, {**batch, "image": batch["image"] / 255 - 0.5})


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["smoothed", "focal", "bce"])
def test_mixed_images_train_with_each_loss(name, weighted, mixed):
    options = LOSSES[name] | {"class_weights": "balanced" if weighted else ""}
    stepped = one_step(methods.build("plain", options, FACTS), mixed)
    assert 0 < mixed["weight"].min() < 0.9
    layer = stepped.before["fc"]
    logits = mixed["image"].mean((1, 2)) @ layer["kernel"] + layer["bias"][None, :]
    wanted = expected(logits, mixed, options, weighted)
    np.testing.assert_allclose(stepped.metrics["loss"], wanted, rtol=1e-5)
    assert stepped.metrics["grad_norm"] > 0.01
    assert trees.fingerprint(stepped.after.params) != trees.fingerprint(stepped.before)


def test_a_method_keeps_a_state_and_reads_constants():
    """A loss that counts its steps, and shifts the logits by a constant."""

    def loss(model, batch, key, state, constants):
        logits = model(batch["image"])[0] + constants["shift"][None, :]
        return logits.mean(), methods.Report({"logits": logits}, {}, {"seen": state["seen"] + 1})

    constants = {"shift": np.float32([0, 0, 300])}
    method = methods.Method((loss,), {"seen": np.int32(4)}, constants)
    stepped = one_step(method, make_batch())
    assert int(stepped.after.method["seen"]) == 5
    assert 95 < stepped.metrics["loss"] < 105
    assert stepped.metrics.keys() == {"loss", "top1", "grad_norm", "update_norm"}


def test_the_state_passes_through_the_parts_of_a_batch():
    """Two parts, of three and one valid images: the state in their order, the gradient by their
    number."""

    def loss(model, batch, key, state, constants):
        logits, _ = model(batch["image"])
        score = losses.masked_mean(logits[:, 0] * batch["weight"], batch["mask"])
        seen = 10 * state["seen"] + batch["mask"].sum()
        return score, methods.Report({"logits": logits}, {}, {"seen": seen})

    batch = make_batch(rows=6)
    batch["mask"] = np.float32([1, 1, 1, 0, 1, 0])  # parts: rows 0, 2, 4 and rows 1, 3, 5
    batch["weight"] = np.float32([1, 2, 3, 4, 5, 6])
    method = methods.Method((loss,), {"seen": np.float32(7)})
    stepped = one_step(method, batch, accumulate=2)
    assert float(stepped.after.method["seen"]) == 731
    moved = 0.1 * np.average(batch["weight"], weights=batch["mask"])
    bias = stepped.before["fc"]["bias"] - np.float32([moved, 0, 0])
    np.testing.assert_allclose(stepped.after.params["fc"]["bias"], bias, rtol=1e-5)


def test_losses_have_keys_of_their_own():
    def loss_of(k):
        def loss(model, batch, key, state, constants):
            drawn = {f"own{k}": jax.random.uniform(key)}
            for n, half in enumerate(jax.random.split(key, 3)):
                drawn[f"split{k}{n}"] = jax.random.uniform(half)
            logits, _ = model(batch["image"])
            return logits.mean(), methods.Report({"logits": logits}, drawn)

        return loss

    stepped = one_step(methods.Method(tuple(map(loss_of, range(3)))), make_batch())
    drawn = [float(v) for k, v in stepped.metrics.items() if k.startswith(("own", "split"))]
    assert len(set(drawn)) == len(drawn) == 12


def test_each_loss_takes_a_step_of_its_own():
    """Three steps of one bias each: the second sees what the first one left."""

    def loss_of(k):
        def loss(model, batch, key, state, constants):
            logits, _ = model(batch["image"])
            bias = model.fc.bias[...][k]
            report = methods.Report({"logits": logits}, {f"bias{k}": bias}, state + 1)
            return 0.5 * (bias - 1) ** 2, report

        return loss

    each = loss_of(0), loss_of(0), loss_of(1)
    stepped = one_step(methods.Method(each, np.int32(0)), make_batch())
    np.testing.assert_array_equal(stepped.before["fc"]["bias"], np.zeros(3))
    np.testing.assert_allclose(stepped.after.params["fc"]["bias"], [0.19, 0.1, 0], rtol=1e-5)
    np.testing.assert_allclose(stepped.metrics["bias0"], 0.1, rtol=1e-5)
    np.testing.assert_allclose(stepped.metrics["loss"], 0.5 * (1 + 0.81 + 1), rtol=1e-5)
    assert int(stepped.after.method) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss='hinge' must be 'cross_entropy' or 'focal' or 'bce'"),
        ({"class_weights": "inverse"}, "class_weights='inverse' must be '' or 'balanced'"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 must be .* at least 0 and below 1"),
        ({"label_smoothing": float("nan")}, "label_smoothing=nan must be"),
        ({"loss": "focal"}, "focal_gamma must be above 0 with loss='focal'"),
        ({"focal_gamma": 2.0}, "focal_gamma=2.0 has no effect with loss='cross_entropy'"),
        ({"temperature": 2.0}, "temperature=2.0 have no effect without a teacher"),
        ({"teacher_share": 0.5}, "teacher_share=0.5 .* no effect without a teacher"),
        ({"teacher": "run"}, "teacher_share must be above 0 with a teacher"),
        ({"teacher": "run", "teacher_share": 0.5, "temperature": 0.0}, "temperature=0.0 must be"),
        ({"gamma": 1.0}, "config.method_options.gamma is unknown: did you mean 'focal_gamma'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        methods.build("plain", options, FACTS)
    assert str(caught.value).startswith("config.method_options")


def test_classes_without_images_cannot_be_weighed():
    facts = dataclasses.replace(FACTS, class_counts=(4, 0, 0))
    with pytest.raises(ValueError, match="train has no images of the classes tern, wren"):
        methods.build("plain", {"class_weights": "balanced"}, facts)
