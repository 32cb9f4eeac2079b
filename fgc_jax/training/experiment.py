"""The fixed parts of a run - data, model, phases - built and checked before anything is written."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax import config, data, mesh, methods, models, trees
from fgc_jax.data import augment, boxes, pipeline, sampling, splitting
from fgc_jax.data import dataset as datasets
from fgc_jax.evaluation import multiview
from fgc_jax.evaluation.views import RAW, Views
from fgc_jax.models import conv
from fgc_jax.training import optim, schedules, step

CROPS = ("crop", "resized_crop")  # augmentations that crop on the device


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's fixed parts. Shapes stand in for arrays: nothing large is allocated."""

    settings: config.Settings
    dataset: datasets.Dataset
    model: Any  # abstract nnx.Module
    params: Mapping  # ShapeDtypeStructs
    stats: Mapping
    layers: optim.Layers
    preprocess: Any
    mesh: jax.sharding.Mesh
    _maps: dict = dataclasses.field(default_factory=dict, init=False)  # named_maps by crop

    @property
    def num_classes(self) -> int:
        return len(self.dataset.class_names)

    def key(self, *purpose: int) -> jax.Array:
        """The run's random key for a purpose, e.g. (phase index, 1)."""
        key = jax.random.key(self.settings.seed)
        for number in purpose:
            key = jax.random.fold_in(key, number)
        return key

    def groups(self, phase: config.Phase) -> dict[str, tuple[str, float]]:
        """What the phase trains: path -> (group, learning rate multiplier)."""
        bn_paths = {
            f"{path.rsplit('/', 1)[0]}/{leaf}"
            for path in trees.flatten(self.stats)
            for leaf in ("scale", "bias")
        }
        return optim.trained_groups(phase, self.layers, trees.flatten(self.params), bn_paths)

    def reinit_paths(self, phase: config.Phase) -> set[str]:
        """Paths of the parameters and statistics that the phase draws anew: those of the layers
        that `reinit` names, as far as they train.

        Raises:
            ValueError: one of these layers does not train at all.
        """
        if not phase.reinit:
            return set()
        # A batch norm that trains alone does not make its layer one that trains.
        trained = self.groups(dataclasses.replace(phase, train_bn_while_frozen=False))
        paths: set[str] = set()
        for layer in optim.last_layers(phase.reinit, self.layers):
            found = {
                path for path in trained if any(trees.is_under(path, p) for p in self.layers[layer])
            }
            if not found:
                raise ValueError(
                    f"phase {phase.name}: reinit={phase.reinit!r} would re-initialise {layer}, "
                    f"which train={phase.train!r} leaves frozen"
                )
            paths |= found
        modules = {path.rsplit("/", 1)[0] for path in paths}
        return paths | {p for p in trees.flatten(self.stats) if p.rsplit("/", 1)[0] in modules}

    def transform(self, phase: config.Phase, *, train: bool) -> pipeline.Transform:
        """How a phase's images are resized and cropped on the host; where the device crops them in
        training, whole squares of `resize` pixels."""
        settings = self.settings.data
        on_device = train and any(name in CROPS for name, _ in augment.checked(settings.augment))
        return pipeline.Transform(
            resize=phase.resize,
            mode=settings.resize_mode,
            crop=phase.resize if on_device else phase.crop,
            random_crop=train and settings.random_crop,
            interpolation=settings.interpolation,
        )

    def order(self, phase: config.Phase, seed: int) -> Callable[[int], int] | None:
        """The order of the train images in a phase; None for a shuffle. See data.sampling.order."""
        return sampling.order(
            self.settings.data.sampling,
            self.dataset.splits["train"].labels,
            self.dataset.class_names,
            batch_size=phase.batch_size,
            seed=seed,
            where=f"phase {phase.name}: data.sampling",
        )

    def views(self, split_name: str, seen: Views = RAW) -> str:
        """How test images are seen, to stand beside each number: crops to annotated boxes use what
        nobody knows of a new photo."""
        cropped = split_name in self.settings.data.box_crop
        return f"{seen}, cropped to ground-truth boxes" if cropped else str(seen)

    def augment(self, phase: config.Phase) -> Callable[[jax.Array, dict], dict]:
        """The function (key, batch on the device) -> augmented, normalised batch; pure.

        Raises:
            ValueError: an unknown augmentation or option of one.
        """
        mean = tuple(255 * part for part in self.preprocess.mean)
        filled = {
            **dict.fromkeys(CROPS, {"size": phase.crop}),
            "erase": {"fill": mean},  # which normalising makes 0
        }
        ops = []
        for name, options in augment.checked(self.settings.data.augment):
            if name in CROPS and "size" in options:
                raise ValueError(
                    f"config.data.augment: the size of {name!r} is the phase's crop, leave it out"
                )
            ops.append((name, {**filled.get(name, {}), **options}))
        change = augment.build(ops)

        def augmented(key, batch):
            batch = change(key, batch)
            images = augment.normalise(batch["image"], self.preprocess.mean, self.preprocess.std)
            return {**batch, "image": images}

        return augmented

    def method(self, load_run: Callable[[str], Any]) -> methods.Method:
        """The training method, its constants on the devices. `load_run`: as `restored.load_run`.

        Raises:
            ValueError: an unknown option of the method, or a value that it cannot use.
        """

        def load_checked(directory):
            run = load_run(directory)
            for phase in self.settings.phases:
                _check_crop(run.plan, phase)
            return run

        train = self.dataset.splits.get("train")
        counts = () if train is None else np.bincount(train.labels, minlength=self.num_classes)
        facts = methods.Facts(
            class_names=self.dataset.class_names,
            class_counts=tuple(int(count) for count in counts),
            preprocess=self.preprocess,
            shapes=self.shapes(),
            load_run=load_checked,
        )
        method = methods.build(self.settings.method, self.settings.method_options, facts)
        constants = mesh.replicate(self.mesh, method.constants)
        return dataclasses.replace(method, constants=constants)

    def shapes(self) -> tuple[dict[str, tuple[int, ...]], ...]:
        """For each phase, the shapes of what is in the classifier's `out` for one image, and of
        that "image"; see `methods.Facts`."""
        return tuple(
            {name: leaf.shape[1:] for name, leaf in self.named_maps(phase.crop).items()}
            | {"image": (phase.crop, phase.crop, 3)}
            for phase in self.settings.phases
        )

    def named_maps(self, crop: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of the classifier's `out` for one image of `crop` pixels."""
        if crop not in self._maps:
            graphdef = models.evaluation_graphdef(self.model)
            images = jax.ShapeDtypeStruct((1, crop, crop, 3), jnp.float32)

            def maps(variables, stats, images):
                return models.apply(graphdef, variables, stats, lambda model: model(images)[1])[0]

            self._maps[crop] = jax.eval_shape(maps, self.params, self.stats, images)
        return self._maps[crop]

    def eval_step(self, seen: Views = RAW) -> Callable:
        """The compiled inference step; see `fgc_jax.training.step.make_eval_step`."""
        return step.make_eval_step(
            graphdef=models.evaluation_graphdef(self.model),
            mean=self.preprocess.mean,
            std=self.preprocess.std,
            device_mesh=self.mesh,
            seen=seen,
        )

    def eval_transform(self, phase: config.Phase, seen: Views = RAW):
        """How images are resized and cropped on the host where they are looked at as `seen`."""
        transform = self.transform(phase, train=False)
        return dataclasses.replace(transform, crop=phase.resize) if seen.placed else transform

    def eval_batches(self, split: datasets.Split, phase: config.Phase, seen: Views = RAW):
        """Every image of a split once, as this process's host batches."""
        return pipeline.eval_batches(
            split,
            self.eval_transform(phase, seen),
            batch_size=self.settings.eval_batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=self.settings.data.threads,
            workers=self.settings.data.workers,
            on_bad_image=self.settings.data.on_bad_image,
        )

    def forward_gflops(self, phase: config.Phase) -> float:
        """1e9 floating-point operations of one image's forward pass (a multiply-add counts two),
        by XLA's cost analysis of the network with plain convolutions."""
        graphdef = models.evaluation_graphdef(self.model)
        image = jax.ShapeDtypeStruct((1, phase.crop, phase.crop, 3), jnp.float32)

        def forward(variables, stats, image):
            return models.apply(graphdef, variables, stats, lambda model: model(image)[0])[0]

        with conv.plain():
            cost = jax.jit(forward).lower(self.params, self.stats, image).cost_analysis()
        return cost["flops"] / 1e9


def prepare(settings: config.Settings) -> Experiment:
    """Builds and checks all that a training run needs.

    Raises:
        ValueError: data missing or unusable, unknown model parts, or a phase that cannot run.
    """
    experiment = assemble(settings, load_data(settings))
    images = len(experiment.dataset.splits["train"])
    for phase in settings.phases:
        schedules.build(phase, pipeline.steps_per_epoch(images, phase.batch_size))
        mesh.check_batch_size(f"phase {phase.name}: batch_size", phase.batch_size)
        if phase.accumulate > 1:
            part = phase.batch_size // phase.accumulate
            mesh.check_batch_size(f"phase {phase.name}: batch_size / accumulate", part)
        experiment.order(phase, 0)
    return experiment


def load_data(run: config.Settings) -> datasets.Dataset:
    """The data set with train and validation split, or, for a final run, both in one.

    Raises:
        ValueError: data missing or unusable, or no say in what validates.
    """
    settings = run.data
    dataset = data.load(settings.name, settings.root, settings.options)
    if "train" not in dataset.splits:
        raise ValueError(
            f"data set {dataset.name!r} has no train split, only {list(dataset.splits)}"
        )
    if "val" not in dataset.splits and not settings.val_fraction:
        raise ValueError(
            f"data set {dataset.name!r} has no validation split: config.data.val_fraction must "
            "say which part of train to use for model selection (the test split is not)"
        )
    dataset = splitting.with_validation(dataset, settings.val_fraction, settings.split_seed)
    crops = settings.box_crop
    if run.final and ("train" in crops) != ("val" in crops):
        raise ValueError(
            f"config.data.box_crop={crops!r}: in a final run the images of val train too, so both "
            "of train and val are cropped or neither"
        )
    dataset = boxes.with_box_crops(
        dataset, settings.box_crop, margin=settings.box_margin, square=settings.box_square
    )
    return datasets.with_validation_in_train(dataset) if run.final else dataset


def assemble(settings: config.Settings, dataset: datasets.Dataset) -> Experiment:
    """Puts model and phases to a data set, of which only the class names need to be there, and
    checks them. Raises ValueError."""
    model = models.abstract(settings.model, len(dataset.class_names))
    own = {name: getattr(settings.data, name) for name in ("mean", "std")}
    own = {name: value for name, value in own.items() if value}
    variables, stats = models.split(model)
    experiment = Experiment(
        settings=settings,
        dataset=dataset,
        model=model,
        params=variables,
        stats=stats,
        layers=models.layer_prefixes(settings.model),
        preprocess=dataclasses.replace(models.preprocess(settings.model), **own),
        mesh=mesh.make(),
    )
    for phase in settings.phases:
        experiment.groups(phase)
        experiment.reinit_paths(phase)
        experiment.augment(phase)
        _check_crop(experiment, phase)
    multiview.of(experiment, settings.phases[-1])
    mesh.check_batch_size("eval_batch_size", settings.eval_batch_size)
    return experiment


def _check_crop(experiment: Experiment, phase: config.Phase) -> None:
    """Raises ValueError if the backbone takes no images of this size, or they leave no positions
    on the head's feature map."""
    try:
        maps = experiment.named_maps(phase.crop)
    except ValueError as error:
        raise ValueError(f"phase {phase.name}: crop={phase.crop}: {error}") from None
    model = experiment.settings.model
    streams = zip(
        (("", model.backbone), ("b/", model.backbone_b)),
        experiment.model.feature_maps,
        strict=False,
    )
    for (prefix, backbone), names in streams:
        for shape in (maps[prefix + name].shape for name in names):
            if 0 in shape:
                raise ValueError(
                    f"phase {phase.name}: crop={phase.crop} is too small for {backbone}: its "
                    f"feature map would have {shape[1]} x {shape[2]} positions"
                )


def initial_variables(experiment: Experiment) -> tuple[Any, Any, str]:
    """(params, stats, report): the pretrained weights if any; the rest random, from the seed."""
    settings = experiment.settings
    variables, stats, report = models.initialise(
        settings.model,
        experiment.num_classes,
        seed=experiment.key(0),
        own_input=bool(settings.data.mean or settings.data.std),
    )
    return *jax.tree.map(np.asarray, (variables, stats)), report


def reinitialised(experiment: Experiment, index: int, variables: Any, stats: Any):
    """(params, stats) with the layers that phase `index` re-initialises replaced by new ones."""
    fresh = models.random_weights(
        experiment.settings.model,
        experiment.num_classes,
        seed=experiment.key(index, 1),
        paths=experiment.reinit_paths(experiment.settings.phases[index]),
    )
    return tuple(
        trees.unflatten(
            {path: np.asarray(fresh.get(path, leaf)) for path, leaf in trees.flatten(tree).items()}
        )
        for tree in (variables, stats)
    )
