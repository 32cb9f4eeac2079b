"""Losses against PyTorch, torchvision and timm, by `make parity`."""

import jax
import numpy as np
import pytest
import timm.data.mixup
import timm.loss
import torch
import torchvision

from fgc_jax.methods import losses

ROWS, CLASSES = 12, 5
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 4, (ROWS, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, ROWS)
COUNTS = (40, 3, 10, 27, 1)


def torch_gradient(function):
    logits = torch.from_numpy(LOGITS).requires_grad_()
    value = function(logits)
    value.backward()
    return value.item(), logits.grad.numpy()


def check(ours, theirs):
    """Equal value and gradient of two functions of logits."""
    value, gradient = jax.value_and_grad(ours)(LOGITS)
    expected_value, expected_gradient = torch_gradient(theirs)
    np.testing.assert_allclose(value, expected_value, rtol=2e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=2e-7)


def goal(smoothing=0.0, **mixed):
    return losses.targets({"label": LABELS, **mixed}, CLASSES, smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_with_class_weights(weighted, smoothing):
    weights = losses.balanced_weights(COUNTS) if weighted else None
    theirs = torch.nn.CrossEntropyLoss(
        weight=torch.from_numpy(weights) if weighted else None, label_smoothing=smoothing
    )
    counted = np.float32(weights[LABELS] if weighted else np.ones(ROWS))
    check(
        lambda logits: losses.normalised_sum(
            losses.cross_entropy(logits, goal(smoothing), weights), counted
        ),
        lambda logits: theirs(logits, torch.from_numpy(LABELS)),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_of_mixed_images(smoothing):
    """timm mixes a batch with itself in reverse and has one weight for all."""
    ours = goal(smoothing, label_b=LABELS[::-1].copy(), weight=np.full(ROWS, 0.3, np.float32))
    theirs = timm.data.mixup.mixup_target(torch.from_numpy(LABELS), CLASSES, 0.3, smoothing)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)
    check(
        lambda logits: losses.cross_entropy(logits, ours).mean(),
        lambda logits: timm.loss.SoftTargetCrossEntropy()(logits, theirs),
    )
    check(
        lambda logits: losses.binary_cross_entropy(logits, ours).mean(),
        lambda logits: timm.loss.BinaryCrossEntropy()(logits, theirs),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy(smoothing):
    theirs = timm.loss.BinaryCrossEntropy(smoothing=smoothing)
    check(
        lambda logits: losses.binary_cross_entropy(logits, goal(smoothing)).mean(),
        lambda logits: theirs(logits, torch.from_numpy(LABELS)),
    )


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_of_two_classes_is_the_papers(gamma):
    """A softmax of (x, 0) is a sigmoid of x, which torchvision's focal loss takes."""
    x, y = LOGITS[:, :1], (LABELS[:, None] % 2).astype(np.float32)

    def ours(x):
        logits = jax.numpy.concatenate([x, jax.numpy.zeros_like(x)], axis=-1)
        two = losses.targets({"label": 1 - y[:, 0].astype(np.int32)}, 2)
        return losses.focal(logits, two, gamma).mean()

    value, gradient = jax.value_and_grad(ours)(x)
    theirs = torch.from_numpy(x).requires_grad_()
    expected = torchvision.ops.sigmoid_focal_loss(
        theirs, torch.from_numpy(y), alpha=-1, gamma=gamma, reduction="mean"
    )
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_focal_of_many_classes(weighted, gamma):
    weights = losses.balanced_weights(COUNTS) if weighted else None

    def theirs(logits):
        labels = torch.from_numpy(LABELS)
        log_p = torch.nn.functional.log_softmax(logits, -1).gather(1, labels[:, None])[:, 0]
        alpha = torch.from_numpy(weights)[labels] if weighted else 1.0
        return (-alpha * (1 - log_p.exp()) ** gamma * log_p).sum()

    check(lambda logits: losses.focal(logits, goal(), gamma, weights).sum(), theirs)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation(temperature):
    teacher = RNG.normal(0, 4, (ROWS, CLASSES)).astype(np.float32)

    def theirs(logits):
        wanted = torch.nn.functional.log_softmax(torch.from_numpy(teacher) / temperature, -1)
        given = torch.nn.functional.log_softmax(logits / temperature, -1)
        divergence = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)
        return temperature**2 * divergence(given, wanted)

    check(lambda logits: losses.distillation(logits, teacher, temperature).mean(), theirs)
