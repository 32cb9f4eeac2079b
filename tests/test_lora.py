"""LoRA and biases alone: what they compute, what trains, what it costs, and how they leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import numpy as safetensors_numpy

from configs import common, lora_folder
from fgc_jax import models, train, trees
from fgc_jax.cli import convert_weights, estimate_memory, evaluate
from fgc_jax.convert import timm
from fgc_jax.data import dataset
from fgc_jax.models import layers, lora
from fgc_jax.runs import checkpoint
from fgc_jax.training import memory, plans, restored, rules, trainable
from tests import data_files, seeded, small_networks, tiny_run, watched

pytestmark = pytest.mark.usefixtures("compiled_quickly")

FAMILIES = ("vit", "eva", "convnext", "swin")


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        for name in FAMILIES:
            patch.setitem(models.BACKBONES, name, small_networks.SMALL[name])
        yield


def drawn(tree, seed=0):
    """Every leaf new, those of LoRA that start as zero too."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.float32(rng.normal(0, 0.2, leaf.shape)), tree)


def test_a_layer_computes_the_papers_formula():
    layer = layers.Linear(6, 5, rngs=nnx.Rngs(0))
    x = np.float32(np.random.default_rng(0).normal(size=(2, 3, 6)))
    before = np.asarray(layer(x))
    layer.add_lora(2, 1.5, rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(layer(x), before)
    assert (layer.lora_a.shape, layer.lora_b.shape) == ((6, 2), (2, 5))
    assert 0.1 < np.abs(layer.lora_a[...]).max() <= 6**-0.5
    layer.lora_b[...] = jnp.asarray(drawn(np.zeros((2, 5))))
    w, b, low, high = (
        np.float64(leaf[...]) for leaf in (layer.kernel, layer.bias, layer.lora_a, layer.lora_b)
    )
    np.testing.assert_allclose(layer(x), x @ w + b + 1.5 * (x @ low) @ high, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_and_logits_are_those_of_the_merged_network(name):
    """By the chain rule from the merged kernels', in every layer, with remat too."""
    # The rest is like it, and takes long to compile.
    maps = {"convnext": "stage1", "swin": "stage2"}
    same = {"head": "gap", "feature_map": maps.get(name, "features")}
    remat = name in ("vit", "swin")
    settings = seeded.config(name, lora_rank=2, lora_alpha=3.0, remat=remat, **same)
    images = seeded.images(2, 32, 48)

    def outcome(settings, variables):
        graphdef = models.evaluation_graphdef(models.abstract(settings, 5))

        def loss(variables):
            (logits, _), _ = models.apply(graphdef, variables, {}, lambda live: live(images))
            return jnp.square(logits).sum(), logits

        gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(variables)
        return trees.flatten(gradients), logits

    variables = drawn(models.split(models.abstract(settings, 5))[0])
    merged = lora.merged(settings, variables)
    found, logits = outcome(settings, variables)
    expected, wanted = outcome(seeded.config(name, **same), merged)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    flat = trees.flatten(variables)
    assert set(found) - set(expected) == lora.paths(variables)
    for path in sorted(lora.paths(variables)):
        layer = path.rpartition("/")[0]
        low, high = (flat[f"{layer}/{leaf}"] for leaf in lora.LEAVES)
        whole = 1.5 * expected[f"{layer}/kernel"]
        rule = whole @ high.T if path.endswith("lora_a") else low.T @ whole
        assert np.abs(rule).max() > 0, path
        np.testing.assert_allclose(found[path], rule, atol=1e-4 * np.abs(rule).max(), err_msg=path)


def test_targets_name_whole_paths():
    settings = seeded.config("vit", lora_rank=2, lora_targets=".*/(qkv|fc2)")
    found = lora.paths(models.split(models.abstract(settings, 5))[0])
    assert {path.split("/", 3)[3].rpartition("/")[0] for path in found} == {"attn/qkv", "mlp/fc2"}
    assert len(found) == 2 * 2 * 2


def recipe(*phases, backbone="vit", **model):
    made = tiny_run.recipe("unused")
    made.model.update(backbone=backbone, **model)
    made.phases = tuple(
        common.phase(f"phase{index}", **{"batch_size": 6, "resize": 36, "crop": 32, **phase})
        for index, phase in enumerate(phases)
    )
    return made


LORA = ({"train": "lora"},)


@pytest.mark.parametrize(
    ("phases", "model", "message"),
    [
        (LORA, {}, "train='lora' needs config.model.lora_rank"),
        (({},), {"lora_alpha": 8.0}, "lora_alpha has no effect without config.model.lora_rank"),
        (({},), {"lora_targets": ".*"}, "lora_targets has no effect without config.model.lora_ra"),
        (({"train": "head"}, {"train": "bias"}), {"lora_rank": 2}, "lora_rank=2 has no effect"),
        (({},), {"lora_rank": -1}, "lora_rank=-1 must be a whole number at least 0"),
        (({}, {"train": "bias", "reinit": "last 1"}), {}, "re-initialises whole layers, but"),
        (LORA, {"lora_rank": 2, "backbone": "resnet18"}, "resnet18 has no linear layers outside"),
        (LORA, {"lora_rank": 2, "lora_targets": "qkv"}, "'qkv' does not match the whole path of"),
        (LORA, {"lora_rank": 2, "lora_targets": "("}, r"'\(' is not a regular"),
    ],
)
def test_keys_that_cannot_be_or_do_nothing_are_errors(phases, model, message):
    with pytest.raises(ValueError, match=message):
        plans.assemble(rules.parse(recipe(*phases, **model)), NO_DATA)


NO_DATA = dataset.Dataset("none", tiny_run.CLASSES, {})


def assembled(made, classes):
    return plans.assemble(rules.parse(made), dataset.without_images(classes))


def compiled(**phase):
    """(compiled train step, shapes of its state) of the small ViT with remat: 8 images, 128 px."""
    made = recipe({**phase, "batch_size": 8, "resize": 128, "crop": 128}, lora_rank=2, remat=True)
    made.data.augment = ()
    return memory.compiled(assembled(made, 3), 0)


def test_no_gradient_of_a_frozen_kernel_is_computed():
    part, state = compiled(train="lora")
    whole, _ = compiled(train="all")
    kernels = {
        path: leaf.size
        for path, leaf in trees.flatten(state.params["backbone"]).items()
        if path.endswith("/kernel")
    }
    # The product of a layer's input and upstream gradient; of the patches there are fewer tokens.
    saved = 2 * 8 * 64 * sum(kernels.values())
    flops = [program.cost_analysis()["flops"] for program in (whole, part)]
    assert flops[0] - flops[1] > 0.98 * saved
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == trees.count(state.params["head"]) + sum(
        leaf.size for path, leaf in trees.flatten(state.params).items() if "/lora_" in path
    )
    temporary = [program.memory_analysis().temp_size_in_bytes for program in (whole, part)]
    assert temporary[1] < temporary[0]


@pytest.mark.parametrize(
    ("variant", "trained"), [("", 3_145_728), ("bias", 272_384), ("full", 303_301_632)]
)
def test_the_recipe_trains_as_much_as_the_documentation_says(variant, trained):
    plan = assembled(lora_folder.get_config(variant), 200)
    (phase,) = plan.settings.phases
    flat = trees.flatten(plan.network.params)
    paths = trainable.trained_paths(plan.labels(phase))
    assert sum(flat[path].size for path in paths) == trained + 200 * 1025


def test_memory_is_estimated_for_each_phase():
    made = recipe({"train": "lora"}, {"train": "head"}, lora_rank=2)
    first, second = memory.table(assembled(made, 3)).splitlines()[2:]
    assert first.split()[:4] == ["phase0", "lora", "32", "6"]
    assert second.split()[4] == str(3 * 25)


def test_a_recipe_without_sense_is_one_line(capsys):
    arguments = ("--config=configs/lora_folder.py:tiny", "--config.model.lora_targets=qkv")
    assert estimate_memory.main(arguments) == 1
    message = "error: lora_targets='qkv' does not match the whole"
    assert capsys.readouterr().err.startswith(message)


def two_phases(root):
    made = recipe(
        {"train": "bias", "epochs": 2, "lr": 0.1},
        {"train": "lora", "epochs": 2, "optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
        lora_rank=2,
        lora_alpha=6.0,
        remat=True,
        drop_path=0.2,
    )
    made.data.root = str(root)
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return data_files.write_folder(root, classes=tiny_run.CLASSES, splits={"train": 8, "test": 5})


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("lora") / "run"
    results = train.run(two_phases(images), workdir)
    return workdir, results


def stored(workdir, number):
    return trees.flatten(checkpoint.load_variables(workdir, number)[0])


def changed(first, second):
    return {path for path in first if first[path].tobytes() != second[path].tobytes()}


def test_a_phase_changes_what_it_trains_and_nothing_else(images, finished):
    workdir, found = finished
    plan = plans.prepare(rules.parse(two_phases(images)))
    start = trees.flatten(plans.initial_variables(plan)[0])
    bias, last = (stored(workdir, phase.best.step) for phase in found.phases)
    head = {path for path in start if path.startswith("head/")}
    biases = {path for path in start if path.endswith("/bias")}
    assert len(biases) == 1 + 2 * 6 + 1 + 1
    assert changed(start, bias) == biases | head
    assert changed(bias, last) == lora.paths(trees.unflatten(start)) | head


def test_a_stopped_run_continues_to_the_same_bits(images, finished, tmp_path):
    workdir = tmp_path / "run"
    watched.stopped(two_phases(images), workdir, 8)  # in an epoch of the second phase
    train.run(two_phases(images), workdir)
    assert trees.fingerprint(stored(workdir, 12)) == trees.fingerprint(stored(finished[0], 12))


def test_a_trained_run_is_evaluated_and_exported_merged(finished, tmp_path, capsys):
    workdir, found = finished
    assert evaluate.main([f"--workdir={workdir}"]) == 0
    assert f"{found.test.metrics.top1:.2f} %" in capsys.readouterr().out
    output = tmp_path / "merged.safetensors"
    assert convert_weights.main([f"--workdir={workdir}", f"--output={output}"]) == 0
    assert not [key for key in safetensors_numpy.load_file(output) if "lora" in key]
    run = restored.load_run(workdir)
    graphdef = models.evaluation_graphdef(run.plan.network.model)
    pixels = seeded.images(4, 32, 32)
    wanted, _ = models.forward(graphdef, run.params, run.stats, pixels)
    found, _ = models.load("vit", str(output))(pixels)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    kernel = run.params["backbone"]["blocks"]["0"]["attn"]["qkv"]["lora_b"]
    assert np.abs(kernel).max() > 1e-3, "nothing to merge"


def test_pretrained_weights_leave_lora_at_its_start(tmp_path):
    path = tmp_path / "vit.safetensors"
    pairs = models.pretrained.original_names(models.BACKBONES["vit"])
    _, weights, stats = seeded.trees("vit", 5)
    safetensors_numpy.save_file(timm.to_state_dict(weights, stats, pairs), path)
    settings = seeded.config("vit", lora_rank=2, pretrained=str(path))
    found, _, report = models.initialise(settings, 5, seed=3)
    adapters, rest = trees.select(found, lora.paths(found))
    filled = jax.tree.map(np.asarray, rest["backbone"])
    assert trees.fingerprint(filled) == trees.fingerprint(weights["backbone"])
    fresh = models.random_weights(settings, 5, seed=3)
    for name, leaf in trees.flatten(adapters).items():
        np.testing.assert_array_equal(leaf, fresh[name])
        assert leaf.any() == name.endswith("lora_a")
    told = f"backbone (vit): {path} fills backbone; left out on purpose: head"
    assert report == told
