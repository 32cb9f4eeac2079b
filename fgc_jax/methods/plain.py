"""Plain fine-tuning: a loss of the classifier's logits, with or without distillation."""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Rate, Share, above, at_most, between
from fgc_jax.methods import distillation, losses
from fgc_jax.methods.method import AT, Facts, Method, Report


def make(
    facts: Facts,
    *,
    loss: Literal["cross_entropy", "focal", "bce"] = "cross_entropy",
    label_smoothing: Rate = 0.0,
    focal_gamma: Annotated[float, between(0, 10)] = 0.0,
    class_weights: Literal["", "balanced"] = "",
    teacher: str = "",
    teacher_share: Share = 0.0,
    temperature: Annotated[float, above(0), at_most(100)] = 1.0,
) -> Method:
    """`loss` of the labels: "cross_entropy", "focal" (with focal_gamma above 0) or "bce".

    class_weights: "balanced" gives an image the weight N / (K n_c), so that all classes count the
    same. teacher: the directory of a finished run; the loss is then 1 - teacher_share times the
    loss of the labels plus teacher_share times that of the teacher's probabilities at
    `temperature`. See fgc_jax.methods.losses for formulas and papers.

    Raises:
        ValueError: a value that is not allowed or would have no effect, a balanced class without
            images, or a teacher that does not fit this run.
    """
    if loss == "focal" and not focal_gamma:
        raise ValueError(f"{AT}focal_gamma must be above 0 with loss='focal'")
    if focal_gamma and loss != "focal":
        raise ValueError(f"{AT}focal_gamma={focal_gamma} has no effect with loss={loss!r}")
    constants: dict[str, Any] = {}
    if class_weights:
        constants["class_weights"] = _balanced_weights(facts)
    if teacher:
        if not teacher_share:
            raise ValueError(f"{AT}teacher_share must be above 0 with a teacher")
        teach, constants["teacher"] = distillation.load_teacher(teacher, facts)
    elif (teacher_share, temperature) != (0, 1):
        raise ValueError(
            f"{AT}teacher_share={teacher_share} and temperature={temperature} have no effect "
            "without a teacher; leave them 0 and 1"
        )

    def of_labels(logits, batch, constants):
        classes = logits.shape[-1]
        goal = losses.targets(batch, classes, label_smoothing)
        mask, weights = batch["mask"], constants.get("class_weights")
        counted = mask
        if weights is not None:
            counted = mask * jnp.sum(losses.targets(batch, classes) * weights[None, :], axis=-1)
        if loss == "bce":
            return losses.masked_mean(losses.binary_cross_entropy(logits, goal), counted)
        if loss == "focal":
            values = losses.focal(logits, goal, focal_gamma, weights)
        else:
            values = losses.cross_entropy(logits, goal, weights)
        return losses.normalised_sum(values * mask, counted)

    def alone(model, batch, key, state, constants):
        logits, _ = model(batch["image"], rngs=nnx.Rngs(dropout=key))
        return of_labels(logits, batch, constants), Report({"logits": logits}, {})

    def taught(model, batch, key, state, constants):
        label_loss, report = alone(model, batch, key, state, constants)
        wanted = teach(constants["teacher"], batch["image"])
        differences = losses.distillation(report.outputs["logits"], wanted, temperature)
        teacher_loss = losses.masked_mean(differences, batch["mask"])
        value = (1 - teacher_share) * label_loss + teacher_share * teacher_loss
        scalars = {"label_loss": label_loss, "teacher_loss": teacher_loss}
        return value, report.replace(scalars=scalars)

    return Method((taught if teacher else alone,), constants=constants)


def _balanced_weights(facts: Facts) -> jax.Array:
    counts = zip(facts.class_names, facts.class_counts, strict=True)
    missing = [name for name, count in counts if not count]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" * (len(missing) > 5))
        raise ValueError(
            f"{AT}class_weights='balanced': train has no images of the classes {shown}"
        )
    return jnp.asarray(losses.balanced_weights(facts.class_counts))
